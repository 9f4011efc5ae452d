"""How much of labelled personal data the masking removes: recall, precision and F2 by characters (C11).

Per entity: recall is the share of its labelled characters that are masked, as whatever kind (masked is masked);
precision the share of the characters masked as its kinds whose label is an entity of such a kind (a driving licence
masked as a national id, like a social security number, is no error).
F2 weighs recall four times as much as precision (van Rijsbergen 1979, as presidio-research reports it). Intervals
by resampling texts.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.bootstrap import NOTHING, Estimate, bootstrap_statistics
from user_embeddings_dagster.privacy.normalise import canonical

BETA = 2.0
Span = tuple[int, int, str]
Finder = Callable[[pl.Series], list[list[Span]]]
"""Canonical texts to (start, end, kind) of what is masked in each."""


@dataclass(frozen=True)
class LabelledText:
    """A canonical text, its labels (start, end, entity), and the group (template, thread) that is resampled whole."""

    text: str
    spans: tuple[Span, ...]
    group: str


def labelled(pieces: Iterable[tuple[str, str | None]], group: str) -> LabelledText | None:
    """Text of `pieces` (text, entity or None) in canonical form; None if a label's ends do not survive that form."""
    pieces = list(pieces)
    parts = canonical(pl.Series([text for text, _ in pieces], dtype=pl.String)).to_list()
    whole = canonical(pl.Series(["".join(text for text, _ in pieces)]))[0]
    if "".join(parts) != whole:
        return None
    spans, place = [], 0
    for part, (_, entity) in zip(parts, pieces, strict=True):
        if entity is not None:
            spans.append((place, place + len(part), entity))
        place += len(part)
    return LabelledText(whole, tuple(spans), group)


def read_presidio(path: Path) -> list[LabelledText]:
    """A JSON list of presidio-research: full_text, spans with character positions, template_id."""
    texts = []
    for sample in json.loads(path.read_text()):
        pieces, place = [], 0
        for span in sorted(sample["spans"], key=lambda s: s["start_position"]):
            pieces += [
                (sample["full_text"][place : span["start_position"]], None),
                (sample["full_text"][span["start_position"] : span["end_position"]], span["entity_type"]),
            ]
            place = span["end_position"]
        texts.append(labelled([*pieces, (sample["full_text"][place:], None)], str(sample["template_id"])))
    return [text for text in texts if text]


def read_conll(path: Path) -> list[LabelledText]:
    """Token and IOB label per line, a blank line between texts; mentions and links are labelled by their form.

    Tokenisers part "@" from the name after it: joined again.
    """
    texts, pieces, before = [], [], ""
    for number, line in enumerate([*path.read_text().splitlines(), ""]):
        if not line.strip():
            texts += [labelled(pieces, str(number))] if pieces else []
            pieces, before = [], ""
            continue
        token, tag = line.rsplit(maxsplit=1)
        if token == "@":
            before = token
            continue
        sign, token, entity = _entity(before + token, tag)
        before = ""
        if tag.startswith("I-") and pieces and pieces[-1][1] == entity:
            pieces[-1] = (f"{pieces[-1][0]} {sign}{token}", entity)
        else:
            pieces += [(f" {sign}" if pieces else sign, None), (token, entity)]
    return [text for text in texts if text]


_MENTION = re.compile(r"(['\"(.]?@)(\w{2,})")
_LINK = re.compile(r"(?i)(?:https?:|www\.).*|(?:[a-z0-9-]+\.)+(?:com|net|org|tv|me|ly|co|uk|info|fm|gd)(?:/\S*)?")
_MAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")


def _entity(token: str, tag: str) -> tuple[str, str, str | None]:
    """Sign before the entity, its text, its name: what a form gives away is labelled by that form, as in
    `@mention`, `'@mention`, a link with or without "http:", an e-mail address."""
    if mention := _MENTION.fullmatch(token):
        return mention[1], mention[2], "MENTION"
    if _LINK.fullmatch(token):
        return "", token, "LINK"
    if _MAIL.fullmatch(token):
        return "", token, "EMAIL_ADDRESS"
    return "", token, tag[2:].upper() if tag != "O" else None


@dataclass(frozen=True)
class EntityScore:
    """Of one entity: number of labels, share of labels masked whole, recall, precision and F2 by characters."""

    entity: str
    n: int
    whole: Estimate
    recall: Estimate
    precision: Estimate
    f2: Estimate


def score_entities(
    texts: Sequence[LabelledText], found: Sequence[Sequence[Span]], kinds: Mapping[str, frozenset[str]], seed: int = 0
) -> list[EntityScore]:
    """Scores of every entity of `kinds` (entity → the kinds of the masking that stand for it)."""
    groups = np.array([text.group for text in texts])
    alike = {e: frozenset(other for other, theirs in kinds.items() if theirs & own) for e, own in kinds.items()}
    rows = {entity: np.array([_counts(t, f, entity, own, alike[entity]) for t, f in zip(texts, found, strict=True)])
            for entity, own in kinds.items()}  # fmt: skip
    return [_score(entity, counts, groups, seed) for entity, counts in rows.items() if counts[:, 0].any()]


def _counts(
    text: LabelledText, found: Sequence[Span], entity: str, kinds: frozenset[str], alike: frozenset[str]
) -> tuple[int, ...]:
    """Labels, labels masked whole, labelled characters, those masked, characters masked as `kinds`, those rightly."""
    masked, own, gold, right = (np.zeros(len(text.text), bool) for _ in range(4))
    for start, end, kind in found:
        masked[start:end] = True
        own[start:end] |= kind in kinds
    for start, end, name in text.spans:
        right[start:end] |= name in alike
    mine = [(start, end) for start, end, name in text.spans if name == entity]
    for start, end in mine:
        gold[start:end] = True
    whole = sum(bool(masked[start:end].all()) for start, end in mine)
    return len(mine), whole, gold.sum(), (gold & masked).sum(), own.sum(), (own & right).sum()


def _score(entity: str, counts: np.ndarray, groups: np.ndarray, seed: int) -> EntityScore:
    used = counts[:, [0, 4]].any(axis=1)  # a text with neither label nor mask of the kind weighs nothing
    counts, groups = counts[used], groups[used]

    def statistic(weights: np.ndarray) -> np.ndarray:
        n, whole, gold, hit, own, right = (weights @ counts).T.astype(float)
        with np.errstate(invalid="ignore", divide="ignore"):  # no label drawn: NaN, which does not count
            recall, precision = hit / gold, np.where(own > 0, right / np.maximum(own, 1), 0.0)
            f2 = (1 + BETA**2) * precision * recall / (BETA**2 * precision + recall)
            shares = [whole / n, recall, precision, np.where(recall + precision > 0, f2, 0.0)]
        return np.stack(shares, axis=1)

    estimates = bootstrap_statistics(statistic, groups, seed=seed) if len(groups) else [NOTHING] * 4
    return EntityScore(entity, int(counts[:, 0].sum()), *estimates)


def changed_share(texts: Sequence[LabelledText], found: Sequence[Sequence[Span]], seed: int = 0) -> Estimate:
    """Share of the texts without any label in which something is masked."""
    benign = [(bool(f), t.group) for t, f in zip(texts, found, strict=True) if not t.spans]
    if not benign:
        return NOTHING
    changed, groups = np.array([c for c, _ in benign], float), np.array([g for _, g in benign])
    return bootstrap_statistics(lambda w: (w @ changed / w.sum(axis=1))[:, None], groups, seed=seed)[0]
