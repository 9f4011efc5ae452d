"""User embeddings: from every chunk of a user to one row, and a memory from which it advances chunk by chunk."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

import numpy as np
import polars as pl

from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables, stacked
from user_embeddings_dagster.storage.user_memories import UserMemories

TABLE = "user_embeddings"
UNCHANGED, ADVANCED, ENCODED = "unchanged", "advanced", "encoded"


class States(Protocol):
    """What the sequence encoder says of each user (training.sequence_inference.UserStates)."""

    @property
    def user_ids(self) -> np.ndarray:
        """[n], sorted"""
        ...

    @property
    def state(self) -> np.ndarray:
        """[n, dimension] float32"""
        ...

    @property
    def projected(self) -> np.ndarray:
        """[n, D] float32, in the item space"""
        ...

    @property
    def memory(self) -> np.ndarray:
        """[n, size] uint8"""
        ...


class Encoder(Protocol):
    """A trained sequence encoder (training.sequence_inference.SequenceEncoder)."""

    version: str

    @property
    def dimension(self) -> int:
        """Of the user state."""
        ...

    @property
    def item_dimension(self) -> int:
        """Of the projections."""
        ...

    def encode_users(self, sequences: pl.DataFrame) -> States:
        """States of whole histories (user_id, position, ended_at, vector, context)."""
        ...

    def advance(
        self, memory: np.ndarray, vectors: np.ndarray, contexts: np.ndarray, ended: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Memories, states and projections after one more chunk of each user."""
        ...


@dataclass(frozen=True)
class UserRows:
    """Users whose row was left, advanced from its memory, or encoded from the whole history; rows deleted, rows in
    the table now, content hash of the table."""

    unchanged: int
    advanced: int
    encoded: int
    deleted: int
    rows: int
    content_hash: str


def user_histories(lake: Lake, lance: LanceTables, datadao: str, users: pl.Series) -> pl.DataFrame:
    """Every chunk of these users of a DataDAO in time order: user_id, position, chunk_id, ended_at, content.

    `content` is the hash of what the chunk's item vector was made from: text and encoder. Raises ValueError with the
    number of chunks that have none.
    """
    order = ["ended_at", "started_at", "chunk_id"]
    rows = lake.scan("masked_chunks", datadao).filter(pl.col("user_id").is_in(users.implode()))
    chunks = rows.select("user_id", *order).collect().sort("user_id", *order)
    if chunks.is_empty():  # a DataDAO without chunks has no vector table
        items = pl.DataFrame(schema={"chunk_id": pl.String, "content": pl.String})
    else:
        items = lance.read(datadao, "item_embeddings", ["id", "content", "version"]).select(
            chunk_id="id", content=pl.col("content") + pl.col("version")
        )
    found = chunks.join(items, on="chunk_id", how="inner", validate="1:1", maintain_order="left")
    if missing := chunks.height - found.height:
        raise ValueError(f"{datadao}: {missing} chunks have no item vector: materialise item_embeddings")
    return found.select(
        "user_id", pl.int_range(pl.len()).over("user_id").alias("position"), "chunk_id", "ended_at", "content"
    )


def _prefix_hashes(contents: Sequence[str], *lengths: int) -> list[str]:
    """Hash of the first n contents, for each n."""
    digests = list(accumulate(contents, lambda digest, content: _hash(digest + content), initial=""))
    return [digests[n] for n in lengths]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def plan(histories: pl.DataFrame, known: pl.DataFrame, present: pl.DataFrame) -> pl.DataFrame:
    """One row per user: user_id, n_chunks, history_hash, n_read, action.

    `known`: the memories (user_id, n_chunks, history_hash); `present`: the table's rows (user_id, n_chunks); both of
    the current encoder version. A user whose stored history is a prefix of the present one is advanced from
    `n_read` chunks on; any other change (an earlier chunk that is gone or reads otherwise) means encoding it whole.
    """
    users = (
        histories.group_by("user_id", maintain_order=True)
        .agg(pl.col("chunk_id") + pl.col("content"))
        .join(known.rename({"n_chunks": "n_read", "history_hash": "read_hash"}), on="user_id", how="left")
        .join(present.rename({"n_chunks": "n_present"}), on="user_id", how="left")
        .sort("user_id")
    )
    rows = []
    for user, contents, n_read, read_hash, n_present in users.iter_rows():
        n = len(contents)
        read = 0 if n_read is None or n_read > n else n_read
        whole, prefix = _prefix_hashes(contents, n, read)
        if read == 0 or prefix != read_hash:
            action = ENCODED
        else:
            action = ADVANCED if read < n else UNCHANGED if n_present == n else ENCODED
        rows.append((user, n, whole, 0 if action == ENCODED else read, action))
    schema = {
        "user_id": pl.String, "n_chunks": pl.Int64, "history_hash": pl.String, "n_read": pl.Int64, "action": pl.String,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row")


def update_users(
    lake: Lake, lance: LanceTables, memories: UserMemories, datadao: str, encoder: Encoder, served: pl.Series
) -> UserRows:
    """Make table and memories hold exactly the `served` users of a DataDAO, after their last chunk.

    The table is written before the memories: a process killed in between finds the older memories and writes the
    same rows again.
    """
    histories = user_histories(lake, lance, datadao, served)
    widths = lance.dimension(datadao, TABLE), lance.dimension(datadao, TABLE, "projected")
    if widths not in ((None, None), (encoder.dimension, encoder.item_dimension)):
        lance.drop(datadao, TABLE)
    users = plan(histories, memories.known(encoder.version), _present(lance, datadao, encoder.version))
    parts = [_encode(encoder, lance, datadao, histories, users.filter(action=ENCODED))]
    if not (advancing := users.filter(action=ADVANCED)).is_empty():
        parts.append(_advance(encoder, lance, memories, datadao, histories, advancing))
    last = histories.group_by("user_id").agg(pl.col("ended_at").last())
    changed = users.filter(pl.col("action") != UNCHANGED)
    rows = pl.concat([part for part, _ in parts]).join(changed.select("user_id", "n_chunks"), on="user_id")
    deleted = lance.keep_only(datadao, TABLE, users["user_id"].to_list()) if lance.exists(datadao, TABLE) else 0
    wanted = rows.join(last, on="user_id").select(
        pl.col("user_id").alias("id"),
        "n_chunks",
        pl.col("ended_at").alias("last_chunk_at"),
        pl.lit(encoder.version).alias("version"),
        "vector",
        "projected",
    )
    written = lance.upsert(datadao, TABLE, wanted.sort("id"))
    if written or deleted:
        lance.compact(datadao, TABLE)
        lance.ensure_indices(datadao, TABLE)
    noted = changed.select("user_id", pl.lit(encoder.version), "n_chunks", "history_hash")
    by_user = {row[0]: row for row in noted.iter_rows()}
    for part, memory in parts:
        memories.write([by_user[user] for user in part["user_id"]], memory)
    memories.keep_only(users["user_id"])
    counts = dict(users["action"].value_counts().iter_rows())
    return UserRows(
        counts.get(UNCHANGED, 0), counts.get(ADVANCED, 0), counts.get(ENCODED, 0), deleted, users.height,
        lance.content_hash(datadao, TABLE),
    )  # fmt: skip


def _present(lance: LanceTables, datadao: str, version: str) -> pl.DataFrame:
    """`user_id`, `n_chunks` of the table's rows of one encoder version."""
    if not lance.exists(datadao, TABLE):
        return pl.DataFrame(schema={"user_id": pl.String, "n_chunks": pl.Int64})
    rows = lance.read(datadao, TABLE, ["id", "n_chunks", "version"]).filter(version=version)
    return rows.select(pl.col("id").alias("user_id"), "n_chunks")


def _rows(users: Sequence[str] | np.ndarray, state: np.ndarray, projected: np.ndarray) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "user_id": pl.Series(users, dtype=pl.String),
            "vector": pl.Series(state, dtype=pl.Array(pl.Float32, state.shape[1])),
            "projected": pl.Series(projected, dtype=pl.Array(pl.Float32, projected.shape[1])),
        }
    )


def _with_vectors(lance: LanceTables, datadao: str, histories: pl.DataFrame) -> pl.DataFrame:
    """The chunks with item vector and context. Raises ValueError with the number of those that have none."""
    chunks = histories
    for column, table in (("vector", "item_embeddings"), ("context", "chunk_embeddings")):
        if histories.is_empty():
            chunks = chunks.with_columns(pl.lit(None, pl.List(pl.Float32)).alias(column))
            continue
        ids, vectors = lance.vectors(datadao, table, histories["chunk_id"].to_list())
        frame = pl.DataFrame({"chunk_id": ids, column: pl.Series(vectors).cast(pl.List(pl.Float32))})
        chunks = chunks.join(frame, on="chunk_id", how="inner", validate="1:1", maintain_order="left")
    if missing := histories.height - chunks.height:
        raise ValueError(f"{datadao}: {missing} chunks have no vector")
    return chunks


def _encode(
    encoder: Encoder, lance: LanceTables, datadao: str, histories: pl.DataFrame, users: pl.DataFrame
) -> tuple[pl.DataFrame, np.ndarray]:
    """Rows and memories of users whose whole history is read."""
    mine = histories.join(users.select("user_id"), on="user_id", how="semi")
    states = encoder.encode_users(_with_vectors(lance, datadao, mine))
    return _rows(states.user_ids, states.state, states.projected), states.memory


def _advance(
    encoder: Encoder, lance: LanceTables, memories: UserMemories, datadao: str, histories: pl.DataFrame,
    users: pl.DataFrame,
) -> tuple[pl.DataFrame, np.ndarray]:  # fmt: skip
    """Rows and memories of users whose memory is advanced, one new chunk of everyone at a time."""
    ids = users["user_id"].to_numpy()
    _, memory = memories.read(users["user_id"].to_list())
    new = histories.join(users.select("user_id", "n_read"), on="user_id").filter(pl.col("position") >= pl.col("n_read"))
    new = _with_vectors(lance, datadao, new.with_columns(step=pl.col("position") - pl.col("n_read")))
    first, *later = new.sort("step", "user_id").partition_by("step", maintain_order=True)
    memory, state, projected = encoder.advance(memory, *_arrays(first))
    for part in later:
        rows = np.searchsorted(ids, part["user_id"].to_numpy())
        memory[rows], state[rows], projected[rows] = encoder.advance(memory[rows], *_arrays(part))
    return _rows(ids, state, projected), memory


def _arrays(chunks: pl.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Item vectors [n, D], contexts [n, C] and end times [n], seconds since 1970."""
    return stacked(chunks["vector"]), stacked(chunks["context"]), chunks["ended_at"].dt.epoch("s").to_numpy()
