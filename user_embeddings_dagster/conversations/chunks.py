"""Messages of one DataDAO to masked chunks: one row per window and SUBJECT (C4, C5, C9)."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import polars as pl

from user_embeddings_dagster.conversations.config import ChunkConfig
from user_embeddings_dagster.conversations.rendering import SUBJECT, collect_turns, render
from user_embeddings_dagster.conversations.thread import Thread, Window, threads
from user_embeddings_dagster.conversations.trees import grow, tree_windows
from user_embeddings_dagster.conversations.windows import linear_windows
from user_embeddings_dagster.keys import content_id
from user_embeddings_dagster.privacy.masking import ThreadNames, mask_messages, thread_names
from user_embeddings_dagster.privacy.ner import person_model
from user_embeddings_dagster.privacy.pii import mask_patterns
from user_embeddings_dagster.privacy.residual import check_residual_names
from user_embeddings_dagster.schema import MASKED_CHUNKS

VERSION = "chunks-9"  # changes whenever the same messages would give other chunks
Progress = Callable[[int, int], None]
_SUBREDDIT = "^[A-Za-z0-9][A-Za-z0-9_]{1,23}$"
_ORDER = ("raw_sha256", "raw_member", "raw_location", "message_id")
_COLUMNS = {
    "user_id": pl.String, "thread_id": pl.String, "window_id": pl.String, "started_at": pl.Int64,
    "ended_at": pl.Int64, "speakers": pl.List(pl.String), "turns": pl.List(pl.String), "text": pl.String,
    "message_ids": pl.List(pl.String), "n_subject_turns": pl.Int64, "n_masked": pl.Int64,
    "context_free": pl.Boolean, "community": pl.String,
}  # fmt: skip


@dataclass(frozen=True)
class ChunkResult:
    """`chunks` (MASKED_CHUNKS) and how many messages or chunks each rule touched, by name."""

    chunks: pl.DataFrame
    counts: dict[str, int]


def build_chunks(
    messages: pl.DataFrame,
    participants: pl.DataFrame,
    *,
    config: ChunkConfig | None = None,
    progress: Progress | None = None,
) -> ChunkResult:
    """Chunks of every contributor in `messages` (MESSAGES of one DataDAO; `participants`: PARTICIPANTS).

    `progress(steps done, steps)` counts each message twice: masked, then cut. Raises ResidualNameError if a
    participant's name survived, ValueError if `messages` holds several DataDAOs.
    """
    config = config or ChunkConfig()
    if messages["datadao"].n_unique() > 1:
        raise ValueError("build_chunks takes the messages of one DataDAO at a time")
    counts: Counter[str] = Counter()
    prepared = _prepared(messages, counts)
    if not prepared.height:
        return ChunkResult(MASKED_CHUNKS.empty(), dict(counts))
    names = thread_names(participants, prepared)
    steps = 2 * prepared.height
    report = progress and (lambda done, _: progress(done, steps))
    model = person_model(config.person_model)
    masked = mask_messages(prepared, names, report, persons=config.mask_persons, model=model)
    counts.update(masked.counts)
    text = masked.texts.str.replace_all(r"\s+", " ").str.strip_chars()
    prepared = prepared.with_columns(text=text, tokens=(text.str.len_bytes() + 3) // 4)
    rows: list[tuple] = []
    done = prepared.height
    for thread in threads(prepared):
        rows.extend(_thread_rows(thread, masked.people.get(thread.thread_id, {}), config, counts))
        done += len(thread.ids)
        if progress:
            progress(done, steps)
    chunks = _table(rows, str(messages["datadao"][0]))
    chunks = _selected(_nobodys(chunks, names), config, counts)
    check_residual_names(chunks, names)
    return ChunkResult(chunks, {name: int(counts[name]) for name in sorted(counts)})


def _prepared(messages: pl.DataFrame, counts: Counter[str]) -> pl.DataFrame:
    """Messages of threads that have a SUBJECT and a time, in canonical order, with `time` in microseconds."""
    subject = pl.col("is_subject") & (pl.col("role") == "user") & pl.col("author_id").is_not_null()
    frame = messages.with_columns(subject=subject, time=pl.col("created_at").dt.epoch("us"))
    counts["messages_without_subject"] = frame.filter(~pl.col("subject").any().over("thread_id")).height
    frame = frame.filter(pl.col("subject").any().over("thread_id"))
    counts["undated"] = frame.filter(pl.col("time").is_null().all().over("thread_id")).height
    frame = frame.filter(pl.col("time").is_not_null().any().over("thread_id"))
    filled = pl.col("time").forward_fill().over("thread_id").fill_null(pl.col("time").min().over("thread_id"))
    frame = frame.sort("thread_id", *_ORDER).with_columns(order=filled)
    linear = pl.col("thread_shape") == "linear"
    frame = frame.with_columns(time=pl.when(linear).then("order").otherwise("time"))
    return frame.sort("thread_id", "order", *_ORDER)


def _thread_rows(
    thread: Thread, people: dict[str, frozenset[str]], config: ChunkConfig, counts: Counter[str]
) -> Iterator[tuple]:
    counts["missing_parents"] += len(thread.orphaned)
    counts["self_replies"] += thread.self_replies
    by_subject: dict[str, list[int]] = defaultdict(list)
    for place, (author, subject) in enumerate(zip(thread.authors, thread.subjects, strict=True)):
        if subject and author is not None and thread.speaks(place):
            by_subject[author].append(place)
        counts["empty"] += subject and not thread.texts[place]
    if not thread.is_tree:
        for window in linear_windows(thread, config, counts):
            yield from _window_rows(thread, window, people, config)
        return
    tree = grow(thread, counts)
    counts["orphans"] += len(thread.orphaned)
    for subject, places in by_subject.items():
        for window in tree_windows(thread, tree, subject, places, config, counts):
            yield from _window_rows(thread, window, people, config, subject, tree.times)


def _window_rows(
    thread: Thread,
    window: Window,
    people: dict[str, frozenset[str]],
    config: ChunkConfig,
    only: str | None = None,
    times: list[int] | None = None,
) -> Iterator[tuple]:
    """One row per SUBJECT who wrote in the window (`only` that one in a tree)."""
    wrote: dict[str, list[int]] = defaultdict(list)
    for place in window.turns:
        author = thread.authors[place]
        if place in window.members and thread.subjects[place] and author is not None:
            wrote[author].append(place)
    subjects = [only] if only is not None else list(wrote)
    if not subjects:
        return
    turns = collect_turns(thread, window, config)
    ids = [thread.ids[place] for place in turns.places]
    window_id = content_id(*ids)
    clock = times or thread.times
    for subject in subjects:
        own = wrote[subject]
        rendered = render(turns, subject, people)
        yield (
            subject, thread.thread_id, window_id, clock[own[0]], clock[own[-1]], rendered.speakers,
            rendered.texts, rendered.text, ids, rendered.speakers.count(SUBJECT), turns.n_marks,
            thread.is_tree and any(place in thread.orphaned for place in own), thread.communities[own[0]],
        )  # fmt: skip


def _public(communities: pl.Series) -> pl.Series:
    """Communities; null where the name is none that a subreddit can have, or holds what masking replaces."""
    given = communities.drop_nulls().unique().sort()
    given = given.filter(given.str.contains(_SUBREDDIT))
    masked, _ = mask_patterns(given)
    return communities.set(~communities.is_in(given.filter(masked == given).implode()), None)


def _nobodys(chunks: pl.DataFrame, names: pl.DataFrame) -> pl.DataFrame:
    """`chunks` without the communities that are named after one of their thread's people: r/ann_lee."""
    places = chunks.select("thread_id", "community").unique().drop_nulls()
    known = names.join(places, on="thread_id")
    plain = [pl.col(text).str.to_lowercase().str.replace_all(r"[^\p{L}\p{N}]", "") for text in ("community", "name")]
    known = known.filter(plain[0].str.contains(plain[1], literal=True))
    named = [
        (thread, community)
        for (thread, community), frame in known.partition_by("thread_id", "community", as_dict=True).items()
        if ThreadNames(frame.select("author_id", "name", "name_kind").iter_rows()).mask(community) != community
    ]
    schema = {"thread_id": pl.String, "community": pl.String}
    theirs = pl.DataFrame(named, schema=schema, orient="row").with_columns(theirs=True)
    found = chunks.join(theirs, on=[*schema], how="left", maintain_order="left")["theirs"]
    return chunks.with_columns(community=chunks["community"].set(found.is_not_null(), None))


def _table(rows: list[tuple], datadao: str) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=_COLUMNS, orient="row").with_columns(pl.col("community").map_batches(_public))
    ids = [content_id(*parts) for parts in frame.select("user_id", "window_id", "text").iter_rows()]
    frame = frame.with_columns(
        pl.Series("chunk_id", ids, dtype=pl.String),
        pl.lit(datadao).alias("datadao"),
        pl.from_epoch("started_at", "us").dt.replace_time_zone("UTC"),
        pl.from_epoch("ended_at", "us").dt.replace_time_zone("UTC"),
        n_tokens=(pl.col("text").str.len_bytes() + 3) // 4,
    )
    return MASKED_CHUNKS.conform(frame)


def _selected(chunks: pl.DataFrame, config: ChunkConfig, counts: Counter[str]) -> pl.DataFrame:
    """Without chunks where SUBJECT said next to nothing, a user's repeated texts, and those over the cap."""
    turns = chunks.select("chunk_id", "speakers", "turns").explode("speakers", "turns")
    said = pl.col("turns").str.replace_all(r"<[A-Z][A-Z0-9_]*>|^\[[^\]]*\]$|[^\p{L}\p{N}]", "").str.len_bytes()
    enough = (
        turns.filter(pl.col("speakers") == SUBJECT)
        .group_by("chunk_id").agg(said.sum().alias("said"))
        .filter(pl.col("said") >= config.min_subject_characters)
    )  # fmt: skip
    kept = chunks.join(enough, on="chunk_id", how="semi").sort("user_id", "ended_at", "chunk_id")
    counts["too_little_said"] = chunks.height - kept.height
    unique = kept.unique(["user_id", "text"], keep="first", maintain_order=True)
    counts["duplicate_chunks"] = kept.height - unique.height
    if config.max_chunks_per_user is not None:
        newer = pl.len().over("user_id") - 1 - pl.int_range(pl.len()).over("user_id")
        unique = unique.filter(newer < config.max_chunks_per_user)
    counts["capped_chunks"] = kept.height - counts["duplicate_chunks"] - unique.height
    often = unique.filter(pl.len().over("user_id") >= config.min_chunks_per_user)
    counts["rare_user_chunks"] = unique.height - often.height
    if config.max_users is not None:  # ids are keyed hashes: the first of them are a random sample
        sample = often["user_id"].unique().sort().head(config.max_users)
        counts["unsampled_user_chunks"] = often.filter(~pl.col("user_id").is_in(sample.implode())).height
        often = often.filter(pl.col("user_id").is_in(sample.implode()))
    unique = often
    counts["context_free"] = int(unique["context_free"].sum())
    return unique
