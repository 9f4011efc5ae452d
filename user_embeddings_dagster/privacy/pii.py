"""Typed placeholders for personal data that has a form: e-mail, phone, card, key, wallet, address, … (C10).

A Rust regular expression per kind picks the texts that may hold it; only those meet Python. Inside the
package a placeholder is one private-use character, so that nothing masked can be matched again;
`render_kinds` writes them out.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter

import polars as pl

from user_embeddings_dagster.privacy.kinds import Kind
from user_embeddings_dagster.privacy.normalise import canonical
from user_embeddings_dagster.privacy.numbers import NUMBERS
from user_embeddings_dagster.privacy.patterns import ADDRESSES, HANDLES
from user_embeddings_dagster.privacy.persons import PERSONS
from user_embeddings_dagster.privacy.secrets import RANDOM, SECRETS

IDENTIFIERS = (*SECRETS, *ADDRESSES, *NUMBERS, *RANDOM)
PEOPLE = (*HANDLES, *PERSONS)  # after the known names, which say whose handle it is
_FIRST_MARK = 0xE000
KIND_NAMES = tuple(dict.fromkeys(kind.name for kind in (*IDENTIFIERS, *PEOPLE)))
_MARKS = {name: chr(_FIRST_MARK + place) for place, name in enumerate(KIND_NAMES)}
_PLACEHOLDERS = {ord(mark): f"<{name}>" for name, mark in _MARKS.items()}


def mask_patterns(texts: pl.Series) -> tuple[pl.Series, dict[str, int]]:
    """`texts` in canonical form with typed placeholders such as `<EMAIL>`, and how many of each kind.

    Null stays null. Names without a form of their own are not found here: see `privacy.masking`.
    """
    marked, counts = mark_kinds(canonical(texts), (*IDENTIFIERS, *PEOPLE))
    return render_kinds(marked), counts


def mark_kinds(texts: pl.Series, kinds: Iterable[Kind]) -> tuple[pl.Series, dict[str, int]]:
    """Canonical `texts` with identifiers of `kinds` replaced by private-use marks, and counts by name."""
    found: Counter[str] = Counter()
    for gate, family in groupby(kinds, key=attrgetter("gate")):
        if not gate:
            texts = _mark_family(texts, family, found)
            continue
        places = texts.str.contains(gate).fill_null(False).arg_true()
        if places.len():
            before = found.total()
            marked = _mark_family(texts.gather(places), family, found)
            texts = texts.clone().scatter(places, marked) if found.total() > before else texts
    return texts, {name: found[name] for name in KIND_NAMES if found[name]}


def _mark_family(texts: pl.Series, kinds: Iterable[Kind], found: Counter[str]) -> pl.Series:
    for kind in kinds:
        places = kind.may_hold(texts).fill_null(False).arg_true()
        if places.len():
            masked, count = _mark_each(texts.gather(places), kind)
            if count:
                texts = texts.clone().scatter(places, masked)
                found[kind.name] += count
    return texts


def _mark_each(texts: pl.Series, kind: Kind) -> tuple[pl.Series, int]:
    """`texts` with marks of one kind, and how many: by one Rust replacement where that says the same."""
    if kind.whole_column is None:
        masked, count = _mask_each(texts.to_list(), kind)
        return pl.Series(masked, dtype=pl.String), count
    mark = _MARKS[kind.name]
    replaced = kind.whole_column.replaced(texts, mark)
    places = kind.whole_column.exceptions(texts).arg_true()
    count = _n_marks(replaced, mark) - _n_marks(texts, mark)
    if places.len():
        rest, others = texts.gather(places), replaced.gather(places)
        masked, more = _mask_each(rest.to_list(), kind)
        replaced = replaced.scatter(places, pl.Series(masked, dtype=pl.String))
        count += more + _n_marks(rest, mark) - _n_marks(others, mark)
    return replaced, count


def _n_marks(texts: pl.Series, mark: str) -> int:
    return int(texts.str.count_matches(mark, literal=True).sum())


def mark_spans(texts: pl.Series, spans: list[list[tuple[int, int]]], name: str) -> tuple[pl.Series, int]:
    """`texts` with the mark of kind `name` for each of `spans` (start, end; in order), and how many."""
    marked = [_replaced(text, own, _MARKS[name]) for text, own in zip(texts, spans, strict=True)]
    return pl.Series(marked, dtype=pl.String), sum(map(len, spans))


def locate_kinds(texts: pl.Series, kinds: Iterable[Kind]) -> list[list[tuple[int, int, str]]]:
    """Per canonical text, (start, end, name of the kind) of what `mark_kinds` would replace, in order of start."""
    current = texts.to_list()
    origins = [[(place, place + 1) for place in range(len(text))] for text in current]
    for kind in kinds:
        places = kind.may_hold(pl.Series(current, dtype=pl.String)).arg_true()
        for place in places:
            spans, own = kind.spans(current[place]), origins[place]
            current[place] = _replaced(current[place], spans, _MARKS[kind.name])
            for start, end in reversed(spans):
                own[start:end] = [(own[start][0], own[end - 1][1])]
    names = {mark: name for name, mark in _MARKS.items()}
    return [
        [(*origin, names[character]) for character, origin in zip(text, own, strict=True) if character in names]
        for text, own in zip(current, origins, strict=True)
    ]


def render_kinds(texts: pl.Series) -> pl.Series:
    """`texts` with the private-use marks written as typed placeholders."""
    marks = list(_MARKS.values())
    return texts.str.replace_many(marks, [f"<{name}>" for name in _MARKS])


def kind_placeholders() -> dict[int, str]:
    """Code point of each mark and the placeholder it stands for, for `str.translate`."""
    return dict(_PLACEHOLDERS)


def _mask_each(texts: list[str], kind: Kind) -> tuple[list[str], int]:
    spans = [kind.spans(text) for text in texts]
    mark = _MARKS[kind.name]
    return [_replaced(text, own, mark) for text, own in zip(texts, spans, strict=True)], sum(map(len, spans))


def _replaced(text: str, spans: list[tuple[int, int]], mark: str) -> str:
    pieces, done = [], 0
    for start, end in spans:
        pieces += text[done:start], mark
        done = end
    return "".join((*pieces, text[done:]))
