"""C10: Rust and Python say the same, and callers keep what they passed."""

import os
import random
import re
from pathlib import Path

import identifier_vectors as vectors
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from user_embeddings_dagster.evaluation.masking import read_labelled
from user_embeddings_dagster.evaluation.own_messages import own_messages
from user_embeddings_dagster.privacy import pii
from user_embeddings_dagster.privacy.kinds import ALIKE, Kind
from user_embeddings_dagster.privacy.normalise import canonical
from user_embeddings_dagster.privacy.patterns import ADDRESSES, HANDLES
from user_embeddings_dagster.privacy.pii import IDENTIFIERS, PEOPLE, mark_kinds

KINDS = (*IDENTIFIERS, *PEOPLE)
CHARACTERS = "".join(map(chr, range(32, 127))) + "\t\n\r" + "éäñü°′″·•。看дпинкоПИНКОД验证码арбы"
WHOLE = {kind.name: kind for kind in (*ADDRESSES, *HANDLES) if kind.whole_column}
PIECES = (
    *("http://", "https://a.bc/d", "www.", "www1.x", "t.me/ab", "magnet:?x", "ftp.x://", "discord.gg/", "@", "@ab"),
    *("@ab_1", "@12", "@import", "e\u0301", "b9", *" ,.()<>\"'/-é明ж🙂ıa_\n"),
)


def by_python(kind: Kind, text: str, mark: str) -> str:
    for start, end in reversed(kind.spans(text)):
        text = text[:start] + mark + text[end:]
    return text


def test_characters_that_both_take_alike():
    """Every character of ALIKE is a letter, digit, space or none of them for Rust and for Python."""
    inside = re.compile(f"[{ALIKE}]")
    characters = pl.Series([chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000])
    characters = characters.filter(canonical(characters) == characters)
    for form in (r"\w", r"\s", r"\d", r"(?i)[a-z]"):
        rust = characters.str.contains(f"^{form}$")
        python = pl.Series([bool(re.fullmatch(form, character)) for character in characters])
        differ = characters.filter(rust != python).to_list()
        assert not any(map(inside.fullmatch, differ)) and (differ or form in (r"\s", r"\d"))


@pytest.mark.parametrize("name", WHOLE)
@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from(PIECES), max_size=10).map("".join), min_size=20, max_size=40))
def test_whole_column_is_text_by_text(name, texts):
    """Links and handles replaced by Rust are those that the Python pattern finds."""
    kind = WHOLE[name]
    texts = canonical(pl.Series(texts, dtype=pl.String))
    marked = mark_kinds(texts, [kind])[0]
    mark = next((c for text in marked for c in text if "\ue000" <= c <= "\uf8ff"), "\ue000")
    assert marked.to_list() == [by_python(kind, text, mark) for text in texts]


def test_callers_keep_their_texts():
    """Neither step changes the column it is given."""
    texts = pl.Series(["write to a@b.example", "ｆｕｌｌ", "@jane and https://a.bc", "call 415-555-2671"])
    before = texts.to_list()
    assert mark_kinds(canonical(texts), (*IDENTIFIERS, *PEOPLE))[1] and texts.to_list() == before
    assert mark_kinds(texts, (*IDENTIFIERS, *PEOPLE))[1] and texts.to_list() == before


def test_digits_of_all_scripts():
    """A number in Arabic, Persian, Devanagari or Bengali digits is the number."""
    written = ["٤١٥-٥٥٥-٢٦٧١", "۴۱۵-۵۵۵-۲۶۷۱", "४१५-५५५-२६७१", "৪১৫-৫৫৫-২৬৭১"]
    assert canonical(pl.Series(written)).to_list() == ["415-555-2671"] * 4


def by_every_pattern(texts: pl.Series) -> list[str]:
    """What the Python patterns alone make of `texts`, without gates, prefilters or Rust."""
    marked = texts.to_list()
    for kind in (*IDENTIFIERS, *PEOPLE):
        marked = [by_python(kind, text, pii._MARKS[kind.name]) for text in marked]
    return marked


def check_against_every_pattern(texts: pl.Series) -> None:
    texts = canonical(texts)
    assert mark_kinds(texts, (*IDENTIFIERS, *PEOPLE))[0].to_list() == by_every_pattern(texts)


def test_prefilters_lose_nothing():
    """C10: gates and prefilters leave out only texts in which no pattern finds anything."""
    draw = random.Random(0)
    texts = [f"to {vectors.issued(name, draw)}, ok" for name in vectors.ISSUED]
    texts += [f"{name}_token: {vectors.named(name, draw)}" for name in vectors.NAMED]
    texts += [f"use {make(draw)} please" for make in vectors.NUMBERS.values()]
    check_against_every_pattern(pl.Series([*texts, *(text.text for text in own_messages(4))]))


@pytest.mark.parametrize("place", range(len(KINDS)), ids=lambda place: f"{place}-{KINDS[place].name}")
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_a_pattern_matches_passes_its_gate_and_prefilter(place, data):
    """C10: strings made from each Python pattern; what its check refuses need not."""
    kind = KINDS[place]
    text = data.draw(st.from_regex(kind.pattern, alphabet=CHARACTERS))
    filters = [one for one in (kind.gate, kind.prefilter) if one]
    assert not kind.spans(text) or all(pl.Series([text]).str.contains(one)[0] for one in filters), ascii(text)


@pytest.mark.real
def test_prefilters_lose_nothing_of_real_texts():
    """C10: nor of the labelled public texts."""
    folder = Path(os.environ.get("USER_EMBEDDINGS_REAL_DATA", "")) / "pii"
    if not folder.is_dir():
        pytest.skip("not run: USER_EMBEDDINGS_REAL_DATA is not set")
    check_against_every_pattern(pl.Series([text.text for texts in read_labelled(folder).values() for text in texts]))
