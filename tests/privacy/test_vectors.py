"""C10: identifiers in the categories of others' test suites, and our own kinds in any surroundings."""

import random
import re
from collections import Counter
from collections.abc import Iterable

import identifier_vectors as vectors
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from user_embeddings_dagster.evaluation.own_messages import _SIGNS, MAKERS
from user_embeddings_dagster.privacy import pii
from user_embeddings_dagster.privacy.normalise import canonical
from user_embeddings_dagster.privacy.pii import IDENTIFIERS, PEOPLE, mark_kinds, mask_patterns

PLACES = ("{}", "use {} please", "key: {}", "({})", "it is {}.", '"{}"', "{}, ok")
ROUNDS = 24


def missed(texts: Iterable[tuple[str, str, str]]) -> Counter[str]:
    """By name, how many of (name, identifier, text) keep the longest piece of the identifier."""
    texts = list(texts)
    masked = mask_patterns(pl.Series([text for _, _, text in texts]))[0]
    pieces = [max(re.findall(r"[A-Za-z0-9]+", value), key=len) for _, value, _ in texts]
    return Counter(name for (name, _, _), piece, text in zip(texts, pieces, masked, strict=True) if piece in text)


def issued() -> list[tuple[str, str, str]]:
    draw = random.Random(0)
    return [(name, value, PLACES[turn % len(PLACES)].format(value))
            for name in vectors.ISSUED for turn in range(ROUNDS) for value in [vectors.issued(name, draw)]]  # fmt: skip


def test_issued_secrets():
    """C10: every one of 129 kinds of keys that say themselves what they are, in every place of a sentence."""
    assert len(vectors.ISSUED) >= 120 and not missed(issued())


def test_named_secrets():
    """C10: random text that only a name in front gives away, in 22 notations: at least 99 %."""
    draw = random.Random(0)
    texts = [
        (name, value, notation.format(i=name, I=name.upper(), s=value))
        for name in vectors.NAMED for notation in vectors.NOTATIONS for value in [vectors.named(name, draw)]
    ]  # fmt: skip
    assert sum(missed(texts).values()) <= 0.01 * len(texts)


def test_numbers_of_many_countries():
    """C10: what Presidio's recognisers look for, cards to national identity numbers of sixteen countries."""
    draw = random.Random(0)
    values = [(name, make(draw)) for name, make in vectors.NUMBERS.items() for _ in range(ROUNDS)]
    texts = mask_patterns(pl.Series([f"use {value} please" for _, value in values]))[0]
    left = [name for (name, value), text in zip(values, texts, strict=True)
            if value in text or any(run in text for run in re.findall(r"\d{4,}", value))]  # fmt: skip
    assert left == []


@pytest.mark.parametrize("broken", ["API_KEY", "SECRET", "NATIONAL_ID"])
def test_vectors_notice_a_missing_kind(monkeypatch, broken):
    """The control: without one kind, its vectors survive."""
    monkeypatch.setattr(pii, "IDENTIFIERS", tuple(kind for kind in IDENTIFIERS if kind.name != broken))
    draw = random.Random(0)
    values = {
        "API_KEY": [vectors.issued("gitlab runner", draw), vectors.issued("heroku", draw)],
        "SECRET": [f"{name}_token: '{vectors.named(name, draw)}'" for name in vectors.NAMED],
        "NATIONAL_ID": [vectors.NUMBERS[name](draw) for name in ("PL_PESEL", "SG_NRIC_FIN", "US_SSN", "IN_PAN")],
    }[broken]
    assert mask_patterns(pl.Series(values))[0].str.contains(f"<{broken}>").sum() == 0
    monkeypatch.undo()
    assert mask_patterns(pl.Series(values))[0].str.contains(f"<{broken}>").sum() >= 0.9 * len(values) - 1


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.text("abc ,;.!?(\n\"'—é明ж🙂", max_size=12), st.text(" ,;!?)\n\"'—🙂", max_size=12))
def test_own_kinds_in_any_surroundings(seed, before, after):
    """C10: of every kind (names of persons by lists aside) at least 99.5 % whole, between words, scripts and emoji."""
    draw = random.Random(seed)
    before = before + " " if before[-1:] in {*"abcéж"} or before[-2:-1].isalnum() else before
    values = [(name, make(draw)) for name, (_, make) in MAKERS.items() if name != "person" for _ in range(8)]
    texts = canonical(pl.Series([f"{before}{_SIGNS.get(name, '')}{value}{after}" for name, value in values]))
    masked = mark_kinds(texts, (*IDENTIFIERS, *PEOPLE))[0]
    kept = canonical(pl.Series([value for _, value in values]))
    left = [name for (name, _), value, text in zip(values, kept, masked, strict=True) if value in text]
    assert len(left) <= 0.005 * len(values), left
