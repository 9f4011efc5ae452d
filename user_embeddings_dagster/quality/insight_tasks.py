"""Domain checks on insight tasks. Each returns one `CheckOutcome`."""

import polars as pl

from user_embeddings_dagster.quality.outcome import ERROR, WARNING, CheckOutcome

PLACES = 4
MAX_DEVIATIONS = 5.0  # standard deviations that the count of a place may be off
SEEN_CHARACTERS = 40  # a shorter text may be said twice by anybody


def answers_balanced(tasks: pl.DataFrame) -> CheckOutcome:
    """The right option is at each of the four places equally often: within 5 standard deviations of a fair draw."""
    choices = tasks.filter(pl.col("answer") >= 0)
    n, counts = choices.height, [choices.filter(answer=place).height for place in range(PLACES)]
    deviation = (n * (1 / PLACES) * (1 - 1 / PLACES)) ** 0.5
    worst = max((abs(count - n / PLACES) / max(deviation, 1.0) for count in counts), default=0.0)
    elsewhere = n - sum(counts)
    metrics = {"n": float(n), "largest_deviation": worst, "elsewhere": float(elsewhere)}
    return CheckOutcome("answers_balanced", worst <= MAX_DEVIATIONS and elsewhere == 0, ERROR, metrics)


def no_peeking(tasks: pl.DataFrame, snapshot: pl.DataFrame, chunks: pl.DataFrame) -> CheckOutcome:
    """No task shows what the embedding that answers it has seen (C43).

    A task is about the chunk at position n_history of its user's history; the right option is of that chunk, no other
    option is of a chunk of the user, or of one that holds a message of any of the user's chunks; no long reference
    stands in an earlier chunk of the user. `snapshot`: TRAINING_SNAPSHOT; `chunks`: chunk_id, text, message_ids.
    """
    mine = snapshot.select("datadao", "user_id", "position", "chunk_id").join(
        chunks.select("chunk_id", "text", "message_ids"), on="chunk_id"
    )
    placed = tasks.join(mine.select("chunk_id", "position", owner="user_id"), on="chunk_id", how="left")
    wrong_place = (placed["position"] != placed["n_history"]).fill_null(True) | (
        placed["owner"] != placed["user_id"]
    ).fill_null(True)
    offered = tasks.filter(pl.col("answer") >= 0).select(
        "task_id", "datadao", "user_id", "chunk_id", "answer",
        option="option_chunk_ids", place=pl.int_ranges(pl.col("option_chunk_ids").list.len()),
    ).explode("option", "place")  # fmt: skip
    gold, others = (offered.filter((pl.col("place") == pl.col("answer")) == right) for right in (True, False))
    heard = mine.select("datadao", "user_id", message="message_ids").explode("message").unique()
    said = mine.select(option="chunk_id", message="message_ids").explode("message")
    shared = others.join(said, on="option").join(heard, on=["datadao", "user_id", "message"], how="semi")
    metrics = {
        "n": float(tasks.height),
        "wrong_position": float(wrong_place.sum()),
        "wrong_gold": float((gold["option"] != gold["chunk_id"]).sum()),
        "options_heard": float(shared["task_id"].n_unique()),
        "references_seen": float(_seen(tasks, mine)),
    }
    wrong = ("wrong_position", "wrong_gold", "options_heard", "references_seen")
    return CheckOutcome("no_peeking", not any(metrics[name] for name in wrong), ERROR, metrics)


def _seen(tasks: pl.DataFrame, mine: pl.DataFrame) -> int:
    """Tasks whose reference stands word by word in an earlier chunk."""
    long = tasks.filter(pl.col("reference").str.len_chars() >= SEEN_CHARACTERS)
    earlier = long.select("task_id", "datadao", "user_id", "n_history", "reference").join(
        mine.select("datadao", "user_id", "position", "text"), on=["datadao", "user_id"]
    )
    earlier = earlier.filter(pl.col("position") < pl.col("n_history"))
    return earlier.filter(pl.col("text").str.contains(pl.col("reference"), literal=True))["task_id"].n_unique()


def options_distinct(tasks: pl.DataFrame) -> CheckOutcome:
    """Choices have four different options that are not blank, the reference at the right place; free-form has none."""
    choices, free = tasks.filter(pl.col("answer") >= 0), tasks.filter(pl.col("answer") < 0)
    plain = pl.element().str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
    read = choices.select(
        different=pl.col("options").list.eval(plain.filter(plain != "")).list.n_unique() == PLACES,
        right=pl.col("options").list.get(pl.col("answer"), null_on_oob=True).eq_missing(pl.col("reference")),
        chunks=pl.col("option_chunk_ids").list.n_unique() == PLACES,
    )
    metrics = {
        "n": float(choices.height),
        "same_or_blank": float((~read["different"]).sum()),
        "wrong_reference": float((~read["right"]).sum()),
        "same_chunk": float((~read["chunks"]).sum()),
        "free_with_options": float(free.filter(pl.col("options").list.len() > 0).height),
        "blank_reference": float(tasks.filter(pl.col("reference").str.strip_chars() == "").height),
    }
    passed = not any(count for name, count in metrics.items() if name != "n")
    return CheckOutcome("options_distinct", passed, ERROR, metrics)


def questions_tell_nothing(tasks: pl.DataFrame) -> CheckOutcome:
    """Choices of one kind all ask the same; no kept free-form question holds its reference."""
    questions = tasks.filter(pl.col("answer") >= 0).group_by("kind").agg(pl.col("question").n_unique())
    free = tasks.filter(pl.col("answer") < 0, pl.col("status") == "kept")
    told = free.filter(pl.col("question").str.contains(pl.col("reference"), literal=True)).height
    several = questions.filter(pl.col("question") > 1).height
    metrics = {"kinds": float(questions.height), "kinds_with_several_questions": float(several), "told": float(told)}
    return CheckOutcome("questions_tell_nothing", several == 0 and told == 0, ERROR, metrics)


def some_tasks_kept(tasks: pl.DataFrame) -> CheckOutcome:
    """Validation keeps tasks of every kind that there are."""
    kept = tasks.filter(status="kept")["kind"].n_unique()
    kinds = tasks["kind"].n_unique()
    return CheckOutcome("some_tasks_kept", kept == kinds, WARNING, {"kinds": float(kinds), "kinds_kept": float(kept)})
