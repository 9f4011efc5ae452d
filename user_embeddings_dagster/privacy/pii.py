"""Typed placeholders for personal data that has a form: e-mail, phone, card, key, wallet, address, … (C10).

A Rust regular expression per kind picks the texts that may hold it; only those meet Python. Inside the
package a placeholder is one private-use character, so that nothing masked can be matched again;
`render_kinds` writes them out.
"""

import re
from collections import Counter
from collections.abc import Iterable

import polars as pl

from user_embeddings_dagster.privacy.normalise import canonical
from user_embeddings_dagster.privacy.patterns import ADDRESSES, HANDLES, NUMBERS, SECRETS, Kind

_FIRST_MARK = 0xE000
KIND_NAMES = tuple(dict.fromkeys(kind.name for kind in (*SECRETS, *ADDRESSES, *NUMBERS, *HANDLES)))
_MARKS = {name: chr(_FIRST_MARK + place) for place, name in enumerate(KIND_NAMES)}
_PLACEHOLDERS = {ord(mark): f"<{name}>" for name, mark in _MARKS.items()}


def mask_patterns(texts: pl.Series) -> tuple[pl.Series, dict[str, int]]:
    """`texts` in canonical form with typed placeholders such as `<EMAIL>`, and how many of each kind.

    Null stays null. Names without a form of their own are not found here: see `privacy.masking`.
    """
    marked, counts = mark_kinds(canonical(texts), (*SECRETS, *ADDRESSES, *NUMBERS, *HANDLES))
    return render_kinds(marked), counts


def mark_kinds(texts: pl.Series, kinds: Iterable[Kind]) -> tuple[pl.Series, dict[str, int]]:
    """Canonical `texts` with identifiers of `kinds` replaced by private-use marks, and counts by name."""
    found: Counter[str] = Counter()
    for kind in kinds:
        places = texts.str.contains(kind.prefilter).fill_null(False).arg_true()
        if not places.len():
            continue
        masked, count = _mask_each(texts.gather(places).to_list(), kind)
        if count:
            texts = texts.scatter(places, pl.Series(masked, dtype=pl.String))
            found[kind.name] += count
    return texts, {name: found[name] for name in KIND_NAMES if found[name]}


def render_kinds(texts: pl.Series) -> pl.Series:
    """`texts` with the private-use marks written as typed placeholders."""
    marks = list(_MARKS.values())
    return texts.str.replace_many(marks, [f"<{name}>" for name in _MARKS])


def kind_placeholders() -> dict[int, str]:
    """Code point of each mark and the placeholder it stands for, for `str.translate`."""
    return dict(_PLACEHOLDERS)


def _mask_each(texts: list[str], kind: Kind) -> tuple[list[str], int]:
    mark = _MARKS[kind.name]
    group = "value" if "value" in kind.pattern.groupindex else 0
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        span = kind.span(match[group])
        if span is None:
            return match[0]
        count += 1
        start = match.start(group) - match.start() + span[0]
        end = match.start(group) - match.start() + span[1]
        return match[0][:start] + mark + match[0][end:]

    return [kind.pattern.sub(replace, text) for text in texts], count
