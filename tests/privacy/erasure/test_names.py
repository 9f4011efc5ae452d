"""Names of the erased are replaced in what others wrote, however they are typed (F4)."""

import polars as pl
import pytest

from user_embeddings_dagster.keys import keyed_id
from user_embeddings_dagster.privacy.erased_names import ErasedNames
from user_embeddings_dagster.privacy.redaction import Redaction

KEY = bytes(range(32))


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("ask Alice Wonder's", "ask <PERSON>'s"),
        ("@alicewonder ?", "<PERSON> ?"),
        ("ALICE, come", "<PERSON>, come"),
        ("nothing of hers", "nothing of hers"),
    ],
)
def test_names_are_replaced_in_what_others_wrote(text, redacted):
    assert Redaction([("Alice Wonder", "display_name")]).text(text) == redacted


SPELT = [("Niamh O'Brien", "display_name"), ("Łukasz Wójcik", "display_name"), ("Jörg Müller", "display_name")]


@pytest.mark.parametrize(
    ("text", "redacted"),
    [
        ("Niamh O’Brien and lukasz wojcik", "<PERSON> and <PERSON>"),
        ("ask Oʼbrien, ŁUKASZ", "ask <PERSON>, <PERSON>"),
        ("joerg mueller", "<PERSON>"),
        ("I don’t know a müll", "I don’t know a müll"),
    ],
)
def test_a_name_is_replaced_however_it_is_typed(text, redacted):
    assert Redaction(SPELT).text(text) == redacted
    found = ErasedNames(KEY).with_names(SPELT).found_in(pl.Series([text]))
    assert Redaction(found).text(text) == redacted


@pytest.mark.parametrize(
    ("name", "text", "redacted"),
    [
        ("Niamh O'Brien", "niamh o'brien, niamh o;brien, niamh o brien", "<PERSON>, <PERSON>, <PERSON>"),
        ("王・小明", "問王・小明吧", "問<PERSON>吧"),
        ("Alice王", "問Alice王吧", "問<PERSON>吧"),
    ],
)
def test_a_hashed_name_is_found_in_each_way_that_it_is_written(name, text, redacted):
    found = ErasedNames(KEY).with_names([(name, "display_name")]).found_in(pl.Series([text]))
    assert Redaction(found).text(text) == redacted


def test_a_name_hashed_in_an_earlier_form_is_found():
    """Hashes of before "ł" was compared as "l" are still in the files of erased names."""
    earlier = ErasedNames(KEY, frozenset([keyed_id(KEY, "erased name", "łukasz")]), frozenset([1]))
    assert Redaction(earlier.found_in(pl.Series(["ask Łukasz, lukasz"]))).text("ask Łukasz, lukasz") == (
        "ask <PERSON>, <PERSON>"
    )
