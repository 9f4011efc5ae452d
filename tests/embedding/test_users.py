"""User embeddings as rows: advanced by new chunks, encoded anew on other changes, written once, stale ones removed."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from user_embeddings_dagster.embedding import users
from user_embeddings_dagster.embedding.users import TABLE, update_users
from user_embeddings_dagster.schema import MASKED_CHUNKS
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables
from user_embeddings_dagster.storage.user_memories import UserMemories

DAO = "dao"


@dataclass
class States:
    user_ids: np.ndarray
    state: np.ndarray
    projected: np.ndarray
    memory: np.ndarray


class Summing:
    """A sequence encoder whose state is the sum of (position + 1) · vector: order and every chunk matter."""

    def __init__(self, version="v1", dimension=4):
        self.version, self.dimension, self.item_dimension = version, dimension, 3
        self.encoded: list[str] = []
        self.steps = 0

    def advance(self, memory, vectors, contexts, ended):
        held = memory.copy().view(np.float32)
        n = held[:, :1] + 1
        assert np.array_equal(contexts, vectors + 1)
        state = held[:, 1:] + n * np.pad(vectors, ((0, 0), (0, self.dimension - vectors.shape[1])))
        self.steps += len(memory)
        assert np.all(ended > 0)
        return np.ascontiguousarray(np.hstack([n, state])).view(np.uint8), state.copy(), state[:, :3].copy()

    def encode_users(self, sequences):
        ids = sequences["user_id"].unique().sort().to_list()
        state, memory = np.zeros((len(ids), self.dimension), np.float32), []
        for row, user in enumerate(ids):
            held = np.zeros((1, 4 * (self.dimension + 1)), np.uint8)
            chunks = sequences.filter(user_id=user).sort("position")
            for vector, context in zip(chunks["vector"].to_list(), chunks["context"].to_list(), strict=True):
                pair = np.array([[vector], [context]], np.float32)
                held, one, _ = self.advance(held, *pair, np.ones(1))
                state[row] = one
            memory.append(held)
        self.encoded += ids
        self.steps = 0
        empty = np.zeros((0, 4 * (self.dimension + 1)), np.uint8)
        return States(np.array(ids, dtype=object), state, state[:, :3].copy(), np.concatenate([empty, *memory]))


class Platform:
    """One DataDAO's chunks, item vectors, user rows and memories."""

    def __init__(self, root):
        self.lake, self.lance = Lake(root), LanceTables(root / "lancedb")
        self.memories = UserMemories(root / "user_memories" / "dao.sqlite")

    def write(self, histories, contents=None, version="item"):
        """Chunks `{user: number of chunks}`; `contents` {(user, index): content} where it is not the default;
        `version` of the encoder of the item vectors."""
        rows = [(user, index) for user, n in histories.items() for index in range(n)]
        base = MASKED_CHUNKS.empty()
        start = datetime(2024, 1, 1, tzinfo=UTC)
        chunks = pl.DataFrame(
            {
                "chunk_id": [f"{user}-{index}" for user, index in rows],
                "user_id": [user for user, _ in rows],
                "started_at": [start + timedelta(hours=index) for _, index in rows],
                "ended_at": [start + timedelta(hours=index) for _, index in rows],
            }
        )
        others = {name: _filler(dtype) for name, dtype in base.schema.items() if name not in chunks.columns}
        chunks = chunks.with_columns(**others).select(base.columns).cast(dict(base.schema))
        self.lake.commit(MASKED_CHUNKS, chunks.sort("chunk_id"), DAO)
        content = [(contents or {}).get(row, "c") for row in rows]
        vectors = [
            np.random.default_rng(list(f"{row} {c}".encode())).standard_normal(3)
            for row, c in zip(rows, content, strict=True)
        ]
        items = pl.DataFrame({"id": chunks["chunk_id"], "content": content, "version": version}).with_columns(
            vector=pl.Series([v.tolist() for v in vectors], dtype=pl.List(pl.Float32))
        )
        contexts = items.with_columns(vector=pl.Series([(v.astype(np.float32) + 1).tolist() for v in vectors]))
        contexts = contexts.with_columns(pl.col("vector").cast(pl.List(pl.Float32)))
        for table, frame in (("item_embeddings", items), ("chunk_embeddings", contexts)):
            if self.lance.exists(DAO, table):
                self.lance.keep_only(DAO, table, frame["id"].to_list())
            self.lance.upsert(DAO, table, frame.sort("id"))

    def update(self, encoder):
        served = self.lake.read("masked_chunks", DAO)["user_id"]
        return update_users(self.lake, self.lance, self.memories, DAO, encoder, served)

    def vectors(self):
        return dict(zip(*self.lance.vectors(DAO, TABLE), strict=True))


def _filler(dtype):
    if isinstance(dtype, pl.List):
        return pl.lit([], dtype)
    return pl.lit("x" if dtype == pl.String else False if dtype == pl.Boolean else 0, dtype)


@pytest.fixture
def platform(tmp_path):
    return Platform(tmp_path)


def _counts(result):
    return result.unchanged, result.advanced, result.encoded


def test_new_chunks_advance_a_user_and_leave_the_others(platform):
    """C39: a step a chunk, from the stored memory; the row equals that of a full encoding."""
    platform.write({"ann": 3, "bob": 2})
    assert _counts(platform.update(Summing())) == (0, 0, 2)
    platform.write({"ann": 6, "bob": 2, "cleo": 1})
    encoder = Summing()
    result = platform.update(encoder)
    assert (_counts(result), result.rows) == ((1, 1, 1), 3)
    assert encoder.encoded == ["cleo"] and encoder.steps == 3
    advanced, versions = platform.vectors(), platform.lance.read(DAO, TABLE, ["n_chunks", "last_chunk_at"])
    assert versions["n_chunks"].to_list() == [6, 2, 1]
    assert versions["last_chunk_at"][0] == datetime(2024, 1, 1, 5, tzinfo=UTC)
    platform.update(Summing("v2"))
    for user, vector in platform.vectors().items():
        np.testing.assert_allclose(advanced[user], vector, rtol=1e-6)


def test_users_with_different_numbers_of_new_chunks_advance_together(platform):
    platform.write({"ann": 1, "bob": 1, "cleo": 1})
    platform.update(Summing())
    platform.write({"ann": 5, "bob": 2, "cleo": 3})
    assert _counts(platform.update(Summing())) == (0, 3, 0)
    advanced = platform.vectors()
    platform.update(Summing("v2"))
    for user, vector in platform.vectors().items():
        np.testing.assert_allclose(advanced[user], vector, rtol=1e-6)


@pytest.mark.parametrize(
    ("histories", "contents"),
    [({"ann": 3}, {("ann", 1): "edited"}), ({"ann": 2}, None), ({"ann": 5}, {("ann", 0): "edited"})],
    ids=["an earlier chunk reads otherwise", "a chunk is gone", "both more and otherwise"],
)
def test_any_other_change_encodes_the_whole_history(platform, histories, contents):
    platform.write({"ann": 3})
    platform.update(Summing())
    platform.write(histories, contents)
    assert _counts(platform.update(Summing())) == (0, 0, 1)


def test_vectors_of_a_new_item_encoder_encode_the_whole_history(platform):
    """C60: the texts are the same, the space is not; it used to keep the state that the old vectors had given."""
    platform.write({"ann": 3})
    platform.update(Summing())
    platform.write({"ann": 3}, version="another")
    assert _counts(platform.update(Summing())) == (0, 0, 1)


def test_a_chunk_without_an_item_vector_is_an_error(platform):
    platform.write({"ann": 3})
    platform.lance.delete(DAO, "item_embeddings", ["ann-1"])
    with pytest.raises(ValueError, match="1 chunks have no item vector"):
        platform.update(Summing())


def test_a_second_run_writes_nothing_and_stale_users_go(platform):
    """C67."""
    platform.write({"ann": 3, "bob": 2})
    first = platform.update(Summing())
    again = platform.update(Summing())
    assert _counts(again) == (2, 0, 0) and again.content_hash == first.content_hash
    platform.write({"ann": 3})
    fewer = platform.update(Summing())
    assert (fewer.deleted, fewer.rows, platform.memories.content()[0]) == (1, 1, 1)


def test_another_encoder_reads_everything_again(platform):
    platform.write({"ann": 3})
    platform.update(Summing())
    assert _counts(platform.update(Summing("v2", dimension=6))) == (0, 0, 1)
    assert platform.lance.dimension(DAO, TABLE) == 6


def test_a_process_killed_between_table_and_memories_repeats_the_same_rows(platform, monkeypatch):
    """C67."""
    platform.write({"ann": 3})
    platform.update(Summing())
    platform.write({"ann": 5})

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(UserMemories, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            platform.update(Summing())
    written = platform.vectors()["ann"]
    assert _counts(platform.update(Summing())) == (0, 1, 0)
    assert np.array_equal(platform.vectors()["ann"], written)


def test_a_table_that_lost_its_rows_is_filled_again(platform):
    platform.write({"ann": 3})
    platform.update(Summing())
    platform.lance.drop(DAO, TABLE)
    assert _counts(platform.update(Summing())) == (0, 0, 1)
    assert list(platform.vectors()) == ["ann"]


def test_a_datadao_without_chunks_has_no_users_and_no_table(platform):
    platform.lake.commit(MASKED_CHUNKS, MASKED_CHUNKS.empty(), DAO)
    result = platform.update(Summing())
    assert (_counts(result), result.rows, platform.lance.exists(DAO, TABLE)) == ((0, 0, 0), 0, False)
    assert platform.lance.stored_vectors(DAO, TABLE).shape == (0, 0)


def test_the_plan_reads_prefixes():
    histories = pl.DataFrame({"user_id": ["a"] * 3, "chunk_id": ["x", "y", "z"], "content": ["1", "2", "3"]})
    nobody = pl.DataFrame(schema={"user_id": pl.String, "n_chunks": pl.Int64})
    known = users.plan(histories.head(2), nobody.with_columns(history_hash=pl.lit("")), nobody)
    known = known.select("user_id", "n_chunks", "history_hash")
    (row,) = users.plan(histories, known, nobody).iter_rows(named=True)
    assert (row["action"], row["n_read"], row["n_chunks"]) == ("advanced", 2, 3)
    swapped = histories.with_columns(chunk_id=pl.Series(["y", "x", "z"]))
    assert users.plan(swapped, known, nobody)["action"].to_list() == ["encoded"]
