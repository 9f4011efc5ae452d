"""Rows of the scores table about the masking: data sets made by us and by others, planted participants (C9–C11)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from user_embeddings_dagster.conversations.chunks import VERSION
from user_embeddings_dagster.evaluation.bootstrap import Estimate, bootstrap_means
from user_embeddings_dagster.evaluation.own_messages import NAME, PARTICIPANTS, own_messages, planted_names
from user_embeddings_dagster.evaluation.pii import (
    EntityScore,
    LabelledText,
    Span,
    changed_share,
    read_conll,
    read_presidio,
    score_entities,
)
from user_embeddings_dagster.evaluation.scores import Scope, ScoreSheet
from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.privacy.masking import mask_messages
from user_embeddings_dagster.privacy.normalise import canonical
from user_embeddings_dagster.privacy.pii import IDENTIFIERS, KIND_NAMES, PEOPLE, locate_kinds

ASSET = "masking_scores"
PUBLIC = "PUBLIC"  # all public sets as one
MODEL = "masking"
KINDS: dict[str, frozenset[str]] = {
    "EMAIL_ADDRESS": frozenset({"EMAIL"}), "IBAN_CODE": frozenset({"IBAN"}), "US_SSN": frozenset({"NATIONAL_ID"}),
    "US_DRIVER_LICENSE": frozenset({"NATIONAL_ID"}), "IP_ADDRESS": frozenset({"IP"}), "DOMAIN_NAME": frozenset({"URL"}),
    "CREDIT_CARD": frozenset({"CARD"}), "PHONE_NUMBER": frozenset({"PHONE"}), "PERSON": frozenset({"PERSON"}),
    "PER": frozenset({"PERSON"}), "MENTION": frozenset({"HANDLE"}), "LINK": frozenset({"URL"}),
}  # fmt: skip
"""Entities of the public data sets, and the kinds of the masking that stand for them. Places, organisations, dates,
ages and addresses are not masked and not scored."""
_READERS: dict[str, Callable[[Path], list[LabelledText]]] = {".json": read_presidio, ".conll": read_conll}


class NoLabelledData(Exception):
    """The folder that was named holds no file that any reader takes."""


def read_labelled(folder: Path) -> dict[str, list[LabelledText]]:
    """Every labelled file in `folder` by name. Raises NoLabelledData if there is none."""
    paths = sorted(path for path in folder.glob("*") if path.suffix in _READERS)
    if not paths:
        raise NoLabelledData(f"{folder} holds neither .json (presidio-research) nor .conll files")
    return {path.stem: _READERS[path.suffix](path) for path in paths}


def measure_masking(folder: Path | None, seed: int) -> pl.DataFrame:
    """SCORES rows: recall, precision, F2 and whole labels per data set and entity; benign texts changed,
    with and without names of persons; participants' names."""
    sets = {NAME: own_messages(), **(read_labelled(folder) if folder else {})}
    sheet = ScoreSheet(Scope(ASSET, "all", seed, content_id(*(repr(part) for part in sets.items()))))
    everything: list[tuple[LabelledText, list[Span]]] = []
    for name, texts in sets.items():
        found = locate_kinds(pl.Series([text.text for text in texts]), (*IDENTIFIERS, *PEOPLE))
        for score in score_entities(texts, found, _kinds_of(texts), seed):
            _add(sheet, name, score)
        _add_benign(sheet, name, texts, found, seed)
        everything += zip(texts, found, strict=True) if name != NAME else ()
    if everything:
        _add_benign(sheet, PUBLIC, [text for text, _ in everything], [spans for _, spans in everything], seed)
    for form, estimate in names_masked(seed).items():
        _row(sheet, f"{NAME} participants", "recall", estimate, form)
    return pl.DataFrame(sheet.rows)


def names_masked(seed: int = 0) -> Mapping[str, Estimate]:
    """Share of planted participants' names of which nothing is left, and of messages whose other words are."""
    planted = list(planted_names())
    participants = pl.DataFrame(PARTICIPANTS, schema=["author_id", "name", "name_kind"], orient="row")
    participants = participants.with_columns(canonical(participants["name"]), thread_id=pl.lit("t"))
    messages = pl.DataFrame({"thread_id": "t", "text": [name.text for name in planted]})
    masked = mask_messages(messages, participants).texts.to_list()
    gone, kept = [], []
    for name, text in zip(planted, masked, strict=True):
        inner = text.removeprefix(
            name.before.removesuffix("t.me/").removesuffix("@").removesuffix("u/").removesuffix("/")
        )
        left = inner.removesuffix(name.after)
        kept.append(len(inner) < len(text) or not name.before)
        gone.append(not any(c.isalnum() for c in left.lstrip("@/")))
    people = np.array([name.participant for name in planted])
    estimates = bootstrap_means(np.array([gone, kept], float).T, people, seed=seed)
    return {"nothing left of the name": estimates[0], "the words before it are": estimates[1]}


def _kinds_of(texts: Sequence[LabelledText]) -> dict[str, frozenset[str]]:
    """Entities in `texts` that are scored; of our own messages the entity begins with its kind."""
    entities = sorted({entity for text in texts for _, _, entity in text.spans})
    own = {entity: frozenset({entity.split(" (")[0]}) for entity in entities if entity.split(" (")[0] in KIND_NAMES}
    return {entity: KINDS.get(entity) or own[entity] for entity in entities if entity in KINDS or entity in own}


def _add(sheet: ScoreSheet, name: str, score: EntityScore) -> None:
    for metric, estimate in _metrics(score):
        _row(sheet, name, metric, estimate, score.entity)


def _add_benign(
    sheet: ScoreSheet, name: str, texts: Sequence[LabelledText], found: Sequence[Sequence[Span]], seed: int
) -> None:
    """Share of unlabelled texts that change, by all kinds and without names of persons."""
    patterns = [[span for span in spans if span[2] != "PERSON"] for spans in found]
    for slice_, spans in {"unlabelled texts": found, "unlabelled texts, persons aside": patterns}.items():
        _row(sheet, name, "benign_changed", changed_share(texts, spans, seed), slice_)


def _metrics(score: EntityScore) -> Iterator[tuple[str, Estimate]]:
    """Metric and estimate, counted in labels."""
    estimates = {"recall": score.recall, "precision": score.precision, "f2": score.f2, "whole": score.whole}
    yield from ((metric, replace(estimate, n=score.n)) for metric, estimate in estimates.items())


def _row(sheet: ScoreSheet, name: str, metric: str, estimate: Estimate, entity: str) -> None:
    sheet.add(MODEL, metric, estimate, slice_=f"{name}: {entity}", candidates=f"labelled:{name}", version=VERSION)
