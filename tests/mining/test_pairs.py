"""What a training reads of a snapshot: each chunk from its own DataDAO, vectors of one encoder, nobody who withdrew."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from user_embeddings_dagster.evaluation.histories import histories_of
from user_embeddings_dagster.mining.pairs import (
    ranking_texts,
    sequences,
    training_pairs,
    vector_frame,
    with_negatives,
)
from user_embeddings_dagster.schema import CHUNK_SUMMARIES, MASKED_CHUNKS
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables, StaleVectors

START = datetime(2024, 1, 1, tzinfo=UTC)
HELD = {"pushshift": ["a-0", "a-1", "b-0"], "reddit": ["a-0", "a-1", "c-0"]}  # a's chunks are in both
VECTORS = "item_embeddings", "chunk_embeddings", "summary_embeddings"


class Platform:
    """Two DataDAOs that hold the same two chunks, each with vectors of its own."""

    def __init__(self, root) -> None:
        self.lake, self.lance = Lake(root), LanceTables(root / "lancedb")
        for number, (name, ids) in enumerate(HELD.items()):
            self._texts(name, ids)
            for table in VECTORS:
                self.vectors(name, table, ids, float(number))

    def _texts(self, name: str, ids: list[str]) -> None:
        users = [chunk[0] for chunk in ids]
        columns = {
            "chunk_id": ids,
            "summary_id": ids,
            "user_id": users,
            "text": [f"{chunk} in {name}" for chunk in ids],
        }
        told = pl.DataFrame(columns | {"datadao": [name] * len(ids)})
        for table in (MASKED_CHUNKS, CHUNK_SUMMARIES):
            known = [column for column in told.columns if column in table.empty().columns]
            rows = pl.concat([table.empty(), told.select(known)], how="diagonal_relaxed")
            empty = {column: _empty(dtype) for column, dtype in rows.schema.items() if column not in known}
            self.lake.commit(table, rows.with_columns(**empty), name)

    def vectors(self, name: str, table: str, ids: list[str], first: float, version: str = "v1") -> None:
        """Vectors that begin with `first`."""
        rows = pl.DataFrame({"id": ids, "user_id": [chunk[0] for chunk in ids], "version": [version] * len(ids)})
        values = np.array([[first, *np.eye(4)[place]] for place in range(len(ids))], np.float32)
        content = rows.with_columns(content=pl.col("id"), ended_at=pl.lit(START))
        self.lance.upsert(name, table, content.with_columns(vector=pl.Series(values)))

    def snapshot(self) -> pl.DataFrame:
        """Every chunk once: a's are pushshift's."""
        rows = [("pushshift", chunk) for chunk in HELD["pushshift"]] + [("reddit", "c-0")]
        return pl.DataFrame(
            {
                "chunk_id": [chunk for _, chunk in rows],
                "datadao": [name for name, _ in rows],
                "user_id": [chunk[0] for _, chunk in rows],
                "position": [int(chunk[2]) for _, chunk in rows],
                "split": ["train"] * len(rows),
                "window_id": [chunk for _, chunk in rows],
                "thread_id": [chunk for _, chunk in rows],
                "started_at": [START] * len(rows),
                "ended_at": [START + timedelta(hours=int(chunk[2])) for _, chunk in rows],
            }
        )


def _empty(dtype: pl.DataType | type[pl.DataType]) -> pl.Expr:
    """A value that no column refuses."""
    if isinstance(dtype, pl.List):
        return pl.lit([], dtype)
    if dtype == pl.Boolean:
        return pl.lit(False)
    return pl.lit(START).cast(dtype) if dtype.is_temporal() else pl.lit("" if dtype == pl.String else 0).cast(dtype)


@pytest.fixture
def platform(tmp_path) -> Platform:
    return Platform(tmp_path)


def test_a_chunk_of_two_datadaos_is_read_once_from_its_own(platform: Platform):
    """It used to stop the training, and to double a person's history in the evaluation without a word."""
    snapshot = platform.snapshot()
    frame = vector_frame(platform.lance, "item_embeddings", snapshot)
    assert frame["chunk_id"].to_list() == ["a-0", "a-1", "b-0", "c-0"]
    assert frame["vector"].list.first().to_list() == [0.0, 0.0, 0.0, 1.0]
    pairs = training_pairs(snapshot, platform.lake, platform.lance)
    expected = ["a-0 in pushshift", "a-1 in pushshift", "b-0 in pushshift", "c-0 in reddit"]
    assert pairs["text"].to_list() == expected
    assert ranking_texts(snapshot, platform.lake)["summary"].to_list() == expected
    assert sequences(snapshot, platform.lance)["chunk_id"].to_list() == ["a-0", "a-1", "b-0", "c-0"]
    vectors = np.array(frame["vector"].to_list(), np.float32)
    assert len(histories_of(snapshot, frame["chunk_id"], vectors).vectors) == snapshot.height


def test_vectors_of_two_encoders_are_refused(platform: Platform):
    """C60: one DataDAO was embedded again by a new encoder, the other was not."""
    platform.vectors("reddit", "item_embeddings", HELD["reddit"], 1.0, "v2")
    with pytest.raises(StaleVectors, match="by 2 encoders"):
        sequences(platform.snapshot(), platform.lance)
    platform.lance.require_version("reddit", "item_embeddings", "v2")
    with pytest.raises(StaleVectors, match="pushshift: 3 of 3 item_embeddings"):
        platform.lance.require_version("pushshift", "item_embeddings", "v2")


def test_a_chunk_without_a_vector_is_an_error(platform: Platform):
    platform.lance.delete("pushshift", "item_embeddings", ["a-1"])
    with pytest.raises(ValueError, match="1 chunks of the snapshot are not in item_embeddings"):
        sequences(platform.snapshot(), platform.lance)


def test_what_was_mined_of_people_who_withdrew_is_left_out(platform: Platform):
    """C14: the item encoder can be trained again at once, without mining again."""
    pairs = training_pairs(platform.snapshot().filter(pl.col("user_id") != "b"), platform.lake, platform.lance)
    mined = pl.DataFrame(
        {
            "chunk_id": ["a-0", "a-0", "a-1", "b-0"],
            "rank": [1, 2, 1, 1],
            "negative_chunk_id": ["b-0", "c-0", "b-0", "c-0"],
        }
    )
    rows = with_negatives(pairs, mined).sort("chunk_id")
    assert dict(rows.select("chunk_id", "negatives").iter_rows()) == {"a-0": ["c-0"], "a-1": [], "c-0": []}
    chosen = pl.DataFrame(
        {
            "chunk_id": ["a-0", "a-1", "b-0"],
            "positive_chunk_id": ["b-0", "a-1", "b-0"],
            "negative_chunk_id": ["c-0", "b-0", "c-0"],
        }
    )
    rows = with_negatives(pairs, mined, chosen).sort("chunk_id")
    assert rows["positive"].to_list() == [None, "a-1", None]
    assert rows["negatives"].to_list() == [["c-0"], [], []]


def test_a_snapshot_of_nobody_says_so(platform: Platform):
    nobody = platform.snapshot().clear()
    with pytest.raises(ValueError, match="nobody who has consented"):
        training_pairs(nobody, platform.lake, platform.lance)
    assert ranking_texts(nobody, platform.lake).is_empty() and sequences(nobody, platform.lance).is_empty()
