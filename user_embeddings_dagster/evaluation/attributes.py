"""What is known of a person's chunks without any language model: the targets of the probes (C40).

Hours are UTC: where somebody lives and when they write are one thing here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.baselines import TrainStatistics
from user_embeddings_dagster.evaluation.histories import Histories
from user_embeddings_dagster.evaluation.splits import SUBJECT
from user_embeddings_dagster.evaluation.suites import DAY, HOUR
from user_embeddings_dagster.storage.lake import Lake

N_TOPICS = 16
TOPIC_ROUNDS = 25
HOUR_BLOCKS = ("0-6h", "6-12h", "12-18h", "18-24h")
WEEK = 7 * DAY


@dataclass(frozen=True)
class Attribute:
    """One attribute of each user: amounts [n_users, k], or the index of a class [n_users] with its `classes`."""

    name: str
    values: np.ndarray
    classes: tuple[str, ...] = ()

    def of(self, users: np.ndarray) -> "Attribute":
        """The same attribute of some of the users (a mask or rows)."""
        return replace(self, values=self.values[users])

    @property
    def targets(self) -> np.ndarray:
        """What a probe regresses on [n_users, k]: the amounts, or ±1 for each class."""
        return self.values if not self.classes else 2.0 * (self.values[:, None] == np.arange(len(self.classes))) - 1


def chunk_facts(lake: Lake, datadaos: Sequence[str]) -> pl.DataFrame:
    """One row per masked chunk: chunk_id, datadao, n_turns, n_subject_turns, n_tokens, opens (SUBJECT's turn is first).

    Of a chunk that two DataDAOs hold, the row of the first by name, as in the training snapshot.
    """
    speakers = pl.col("speakers")
    frames = [
        lake.scan("masked_chunks", name).select(
            "chunk_id",
            "datadao",
            "n_subject_turns",
            "n_tokens",
            opens=speakers.list.first() == SUBJECT,
            n_turns=speakers.list.len(),
        )
        for name in sorted(datadaos)
    ]
    return pl.concat(frames).collect().unique("chunk_id", keep="first", maintain_order=True)


def topics(vectors: np.ndarray, statistics: TrainStatistics, seed: int, n_topics: int = N_TOPICS) -> np.ndarray:
    """Topic directions [k, d] of training vectors: spherical k-means (Dhillon & Modha 2001) after centring.

    Started by k-means++; an empty topic keeps its direction.
    """
    rows = statistics.centred(vectors)
    rng = np.random.default_rng(seed)
    chosen = [int(rng.integers(len(rows)))]
    nearest = np.full(len(rows), np.inf)
    for _ in range(min(n_topics, len(rows)) - 1):
        nearest = np.minimum(nearest, np.maximum(1 - rows @ rows[chosen[-1]], 0)).astype(np.float64)
        if not nearest.any():
            break
        chosen.append(int(rng.choice(len(rows), p=nearest / nearest.sum())))
    directions = rows[chosen]
    for _ in range(TOPIC_ROUNDS):
        of_row = (rows @ directions.T).argmax(axis=1)
        members = of_row == np.arange(len(directions))[:, None]
        sums = members.astype(np.float32) @ rows
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        directions = np.where(norms > 0, sums / np.where(norms > 0, norms, 1), directions)
    return directions


def attributes_of(
    histories: Histories,
    facts: pl.DataFrame,
    statistics: TrainStatistics,
    directions: np.ndarray,
    datadaos: Sequence[str],
) -> dict[str, Attribute]:
    """Attributes by name of each user's chunks (one or more); `directions` [k, d] are `topics` of training users.

    Raises ValueError with the number of chunks that `facts` does not know.
    """
    chunks = pl.DataFrame({"chunk_id": histories.chunk_ids}, schema={"chunk_id": pl.String})
    known = chunks.join(facts, on="chunk_id", how="left", maintain_order="left")
    if missing := known["n_tokens"].null_count():
        raise ValueError(f"{missing} of {known.height} chunks are not in masked_chunks")
    owner, n = histories.history_of_row, np.maximum(histories.lengths, 1)

    def mean(rows: np.ndarray) -> np.ndarray:
        return np.stack([np.bincount(owner, column, histories.n_histories) for column in rows.T], axis=1) / n[:, None]

    def column(name: str) -> np.ndarray:
        return known[name].cast(pl.Float64).to_numpy()[:, None]

    hours = mean(np.eye(len(HOUR_BLOCKS))[histories.ended % DAY // (6 * HOUR)])
    topic = (statistics.centred(histories.vectors) @ directions.T).argmax(axis=1)
    span = histories.ended[histories.last_rows] - histories.started[histories.offsets[:-1]]
    weeks = np.maximum(span, DAY) / WEEK
    home = np.searchsorted(list(datadaos), known["datadao"].to_numpy()[histories.last_rows].astype(str))
    turns = mean(np.hstack([column("n_subject_turns"), column("n_turns")]))
    found = [
        Attribute("active_hours", hours),
        Attribute("dominant_hours", hours.argmax(axis=1), HOUR_BLOCKS),
        Attribute("datadao", home, tuple(datadaos)),
        Attribute("topic_shares", mean(np.eye(len(directions))[topic])),
        Attribute("opens_window", mean(column("opens"))),
        Attribute("subject_turn_share", turns[:, :1] / np.maximum(turns[:, 1:], 1e-9)),
        Attribute("chunks_per_week", np.log(histories.lengths / weeks)[:, None]),
        Attribute("chunk_tokens", np.log1p(mean(column("n_tokens")))),
    ]
    return {attribute.name: attribute for attribute in found}
