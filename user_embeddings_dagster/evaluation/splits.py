"""The training snapshot: which chunks training and evaluation may use, split by user.

A user's split comes from a keyed hash of their id alone, so it never changes as data grows and is the same in
every DataDAO. A user's words also stand in other people's chunks (a chat window holds several speakers), so
train and valid chunks in which any message is by a test user are left out. Every user whose hash says "test" is
protected, also those with too few chunks to be evaluated: a later snapshot may evaluate them.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from user_embeddings_dagster.schema import TRAINING_SNAPSHOT
from user_embeddings_dagster.storage.lake import Lake

VERSION = "2"
"""Changes when the same chunks would give another snapshot."""
SPLITS = ("train", "valid", "test")
SHARES = (0.7, 0.1, 0.2)
TRAINED_SPLITS = ("train", "valid")
SUBJECT = "SUBJECT"
_HISTORY = ("datadao", "user_id")
_COLUMNS = (
    "chunk_id", "datadao", "user_id", "window_id", "thread_id", "started_at", "ended_at", "speakers", "message_ids",
)  # fmt: skip

Frame = pl.DataFrame | pl.LazyFrame


@dataclass(frozen=True)
class SnapshotResult:
    """The snapshot, the hash of its (chunk, split) pairs, and how many chunks and users each rule kept or left out."""

    snapshot: pl.DataFrame
    split_hash: str
    counts: dict[str, int]


@dataclass(frozen=True)
class LeakageReport:
    """Counts of text that crosses the split; the first two must be 0, the others are context for the reader."""

    users_in_two_splits: int
    trained_chunks_with_test_text: int
    train_chunks_with_valid_text: int
    test_chunks_sharing_context_with_trained: int

    @property
    def clean(self) -> bool:
        """No test user is trained on and no test user's message is in a trained chunk."""
        return self.users_in_two_splits == 0 and self.trained_chunks_with_test_text == 0


def split_of(user_id: str, key: bytes, salt: str = "split", shares: Sequence[float] = SHARES) -> str:
    """Split of one user: the first 52 bits of HMAC-SHA-256(key, salt ‖ user), as a fraction, against the shares."""
    if abs(sum(shares) - 1.0) > 1e-9 or min(shares) < 0 or len(shares) != len(SPLITS):
        raise ValueError(f"shares of {SPLITS} must be non-negative and sum to 1, got {tuple(shares)}")
    digest = hmac.digest(key, f"{len(salt)}:{salt}{user_id}".encode(), "sha256")
    fraction = (int.from_bytes(digest[:8], "big") >> 12) / 2**52
    if fraction < shares[0]:
        return SPLITS[0]
    return SPLITS[1] if fraction < shares[0] + shares[1] else SPLITS[2]


def user_splits(users: pl.Series, key: bytes, salt: str = "split", shares: Sequence[float] = SHARES) -> pl.DataFrame:
    """`user_id`, `split`: one row per distinct user, sorted. Hashes each user once, whatever the number of rows."""
    distinct = users.unique().sort().to_list()
    splits = [split_of(user, key, salt, shares) for user in distinct]
    return pl.DataFrame({"user_id": distinct, "split": splits}, schema={"user_id": pl.String, "split": pl.String})


def build_snapshot(
    chunks: Frame | Sequence[Frame],
    *,
    key: bytes,
    min_chunks_per_user: int,
    max_chunks_per_user: int | None,
    authors: Frame | None = None,
    unsummarised: pl.DataFrame | None = None,
    salt: str = "split",
    shares: Sequence[float] = SHARES,
) -> SnapshotResult:
    """Snapshot of the MASKED_CHUNKS of all DataDAOs (one frame of each, or one of all; lazy frames load no text).

    `authors` (`message_id`, `author_id`; the messages tables) also protects what a test user wrote where they
    have no chunk of their own; without it their messages are those of their own chunks. Chunks of `unsummarised`
    (as `without_summary` gives them) are left out: a pair is a chunk and its summary. The minimum and the cap
    hold per user and DataDAO, after those and leaking chunks are out; the cap keeps the latest chunks. A chunk that
    two DataDAOs hold (a public dump and a contributor's export) stays with the first by name.
    """
    rows = _rows(chunks)
    counts = {"chunks": rows.height}
    if unsummarised is not None:
        rows = rows.join(unsummarised, on=["datadao", "chunk_id"], how="anti")
        counts["without_summary"] = counts["chunks"] - rows.height
    n_chunks = rows.height
    rows = rows.sort("chunk_id", "datadao").unique("chunk_id", keep="first", maintain_order=True)
    counts["duplicates_across_datadaos"] = n_chunks - rows.height
    authors = None if authors is None else authors.lazy().select("message_id", "author_id").drop_nulls().collect()
    people = rows["user_id"] if authors is None else pl.concat([rows["user_id"], authors["author_id"]])
    rows = rows.join(user_splits(people, key, salt, shares), on="user_id", how="left")
    leaking = _chunks_with(rows, TRAINED_SPLITS, _messages_by(rows, "test", authors, key, salt, shares))
    counts |= {f"leaking_{split}": leaking.filter(split=split).height for split in TRAINED_SPLITS}
    rows = rows.join(leaking.select("chunk_id"), on="chunk_id", how="anti").drop("speakers", "message_ids")
    enough = rows.filter(pl.len().over(_HISTORY) >= min_chunks_per_user)
    counts["too_few_chunks"] = rows.height - enough.height
    order = ["ended_at", "started_at", "chunk_id"]
    kept = enough.sort(*_HISTORY, *order)
    if max_chunks_per_user is not None:
        kept = kept.filter(pl.int_range(pl.len()).reverse().over(_HISTORY) < max_chunks_per_user)
    counts["over_cap"] = enough.height - kept.height
    kept = TRAINING_SNAPSHOT.conform(kept.with_columns(position=pl.int_range(pl.len()).over(_HISTORY)))
    for split in SPLITS:
        part = kept.filter(split=split)
        counts |= {f"{split}_chunks": part.height, f"{split}_users": part["user_id"].n_unique()}
    return SnapshotResult(kept, split_hash(kept), counts)


def without_summary(lake: Lake) -> pl.DataFrame:
    """`datadao`, `chunk_id` of the masked chunks without a row in chunk_summaries, of DataDAOs that were summarised.

    SUBJECT contributed nothing, the language model gave no valid answer, or summaries are kept for a shorter time.
    """
    found = [pl.DataFrame(schema={"datadao": pl.String, "chunk_id": pl.String})]
    for name in sorted({*lake.partitions("masked_chunks")} & {*lake.partitions("chunk_summaries")}):
        chunks = lake.scan("masked_chunks", name).select(pl.lit(name).alias("datadao"), "chunk_id")
        found.append(chunks.join(lake.scan("chunk_summaries", name), on="chunk_id", how="anti").collect())
    return pl.concat(found)


def split_hash(snapshot: pl.DataFrame) -> str:
    """Hash of which chunk is in which split, 32 hex digits: equal exactly when training and evaluation saw the same."""
    rows = snapshot.select("chunk_id", "split").sort("chunk_id")
    digest = hashlib.sha256()
    for column in rows.columns:
        digest.update("\n".join(rows[column]).encode() + b"\0")
    return digest.hexdigest()[:32]


def leakage_check(
    snapshot: pl.DataFrame, chunks: Frame | Sequence[Frame], authors: Frame | None = None
) -> LeakageReport:
    """What crosses the split of `snapshot`, found from the messages of `chunks` (and of `authors`, if given)."""
    splits = snapshot.select("user_id", "split").unique()
    rows = _rows(chunks).unique("chunk_id", keep="first")
    of_user = splits.unique("user_id", keep="first")
    owned = rows.join(of_user, on="user_id").select("split", "speakers", "message_ids")
    own = {split: _own_messages(owned.filter(split=split)) for split in SPLITS}
    if authors is not None:
        tagged = authors.lazy().rename({"author_id": "user_id"}).join(of_user.lazy(), on="user_id").collect()
        own = {split: pl.concat([own[split], tagged.filter(split=split)["message_id"]]) for split in SPLITS}
    in_snapshot = rows.join(snapshot.select("chunk_id", "split"), on="chunk_id")
    trained = in_snapshot.filter(pl.col("split").is_in(TRAINED_SPLITS))["message_ids"].explode()
    return LeakageReport(
        users_in_two_splits=splits.height - of_user.height,
        trained_chunks_with_test_text=_chunks_with(in_snapshot, TRAINED_SPLITS, own["test"]).height,
        train_chunks_with_valid_text=_chunks_with(in_snapshot, ("train",), own["valid"]).height,
        test_chunks_sharing_context_with_trained=_chunks_with(in_snapshot, ("test",), trained).height,
    )


def _rows(chunks: Frame | Sequence[Frame]) -> pl.DataFrame:
    """The columns that are needed, so that lazy frames never load the text."""
    frames = [chunks] if isinstance(chunks, pl.DataFrame | pl.LazyFrame) else chunks
    return pl.concat([frame.lazy().select(_COLUMNS) for frame in frames]).collect()


def _own_messages(rows: pl.DataFrame) -> pl.Series:
    """Messages that the SUBJECT of these chunks wrote."""
    turns = rows.select("speakers", "message_ids").explode("speakers", "message_ids")
    return turns.filter(pl.col("speakers") == SUBJECT)["message_ids"]


def _messages_by(
    rows: pl.DataFrame, split: str, authors: pl.DataFrame | None, key: bytes, salt: str, shares: Sequence[float]
) -> pl.Series:
    own = _own_messages(rows.filter(split=split))
    if authors is None:
        return own
    people = user_splits(authors["author_id"], key, salt, shares).filter(split=split)
    return pl.concat([own, authors.join(people, left_on="author_id", right_on="user_id", how="semi")["message_id"]])


def _chunks_with(rows: pl.DataFrame, splits: Sequence[str], messages: pl.Series) -> pl.DataFrame:
    """`chunk_id`, `split` of the chunks of `splits` that hold one of `messages`."""
    wanted = messages.unique().rename("message_ids").to_frame()
    part = rows.filter(pl.col("split").is_in(splits)).select("chunk_id", "split", "message_ids")
    return part.explode("message_ids").join(wanted, on="message_ids", how="semi").select("chunk_id", "split").unique()
