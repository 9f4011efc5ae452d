"""C10: names of people who are not in the chat, by lists and capitals."""

import polars as pl
import pytest

from user_embeddings_dagster.privacy.masking import mask_messages
from user_embeddings_dagster.privacy.persons import PERSONS
from user_embeddings_dagster.privacy.pii import mark_kinds, render_kinds


def masked(text: str) -> str:
    return render_kinds(mark_kinds(pl.Series([text]), PERSONS)[0])[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I met Sarah yesterday", "I met <PERSON> yesterday"),
        ("Kevin's bike and KEVIN'S car", "<PERSON>'s bike and <PERSON>'S car"),
        ("ask Laura Kowalczyk, or Miguel A. Okafor.", "ask <PERSON>, or <PERSON>."),
        ("Thanks Sarah You Rock", "Thanks <PERSON> You Rock"),
        ("José and Zoë Lindqvist", "<PERSON> and <PERSON>"),
        ("Dr. Okafor said no, Mrs Whitfield yes", "Dr. <PERSON> said no, Mrs <PERSON> yes"),
        ("my brother kevin is here, my name is sarah", "my brother <PERSON> is here, my name is <PERSON>"),
        ("Will Smith paid", "<PERSON> paid"),
        ("Rashid and Katarzyna know Oscar de la Renta.", "<PERSON> and <PERSON> know <PERSON>."),
        ("a talk by Kowalski? By Gutierrez!", "a talk by Kowalski? By <PERSON>!"),
        ("hey kevin, hi sarah doyle", "hey <PERSON>, hi <PERSON>"),
        ("ask Andrew. Probably not", "ask <PERSON>. Probably not"),
        ("JASON come here, MARK WRIGHT too", "<PERSON> come here, <PERSON> too"),
        ("Łukasz, Jørgen and LUDMIŁA’S bike", "<PERSON>, <PERSON> and <PERSON>’S bike"),
        ("thanks Łukasz Don’t", "thanks <PERSON> Don’t"),
        ("Frau Okafor und Herr Wölfli", "Frau <PERSON> und Herr <PERSON>"),
    ],
)
def test_names_are_found(text, expected):
    """C10: alone, with surnames, initials, possessives, titles, and introduced in lower case."""
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Will you be there in May? Mark the date, Grace period and all",
        "Paris, Austin and Florence in August; Jan 5, Mar 3",
        "i'm happy, my friend said so, call me later, i am hope less",
        "Java, Python, Ubuntu, Debian and Emacs, Ms And Mr You",
        "sarah and kevin in lower case are nobody we know",
        "the ISA of a LAN, a DAG, PAM and SID; MS Windows and Ms. of old",
        "St John's wort, San Jose, Santa Ana; read Luke 10:10 in Kent",
        "Ada, Pascal and Hardy Heron, Beryl on a Tesla",
        "Smith Street, Davis Foundation, Kimberly College",
        "@Sarah u/Kevin /Laura Miguel() are handles, paths and code",
    ],
)
def test_ordinary_words_stay(text):
    """C10: months, places, products and words that are also names."""
    assert masked(text) == text


def test_participants_first_and_setting():
    """C9, C10: a participant's name is that person; somebody else is `<PERSON>`, unless that is off."""
    messages = pl.DataFrame({"thread_id": ["t"], "text": ["Sarah met Kevin"]})
    names = pl.DataFrame({"thread_id": ["t"], "author_id": ["a"], "name": ["Sarah"], "name_kind": ["display_name"]})
    on, off = (mask_messages(messages, names, persons=setting) for setting in (True, False))
    (mark,) = on.people["t"]
    assert render_kinds(on.texts)[0] == f"{mark} met <PERSON>" and on.counts["masked_person"] == 1
    assert render_kinds(off.texts)[0] == f"{mark} met Kevin" and "masked_person" not in off.counts
