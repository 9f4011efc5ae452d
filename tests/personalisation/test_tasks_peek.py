"""C43: a task is made of what the embedding has not seen; the check that proves it fails for broken twins."""

from collections.abc import Callable

import polars as pl
import pytest
from insight_platform import Platform, platform

from user_embeddings_dagster.personalisation import build as build_module
from user_embeddings_dagster.personalisation import koai_tasks, tasks, unseen
from user_embeddings_dagster.personalisation.build import KINDS, build_tasks
from user_embeddings_dagster.personalisation.tasks import OPTIONS
from user_embeddings_dagster.personalisation.unseen import unseen_turns
from user_embeddings_dagster.quality.insight_tasks import no_peeking


def build(data: Platform, per_user: int = 3) -> pl.DataFrame:
    snapshot, chunks, koais, vectors = data
    made = build_tasks(snapshot, chunks, koais, vectors, per_user=per_user, seed=0)
    return made.with_columns(status=pl.lit("kept"))


def seen_texts(made: pl.DataFrame, data: Platform) -> int:
    """Tasks of which a line of any answer stands in a chunk before it of the same user."""
    texts = {(f"u{name[1:].split('-')[0]}", int(name.split("-")[1])): text for name, text in data[1].select(
        "chunk_id", "text").iter_rows()}  # fmt: skip
    wrong = 0
    for task in made.iter_rows(named=True):
        before = "\n".join(texts[task["user_id"], n] for n in range(task["n_history"]))
        lines = [line for text in (*task["options"], task["reference"]) for line in text.split("\n")]
        wrong += any(line.removeprefix("<P1>: ") in before for line in lines)
    return wrong


def test_every_kind_is_made_of_what_is_new() -> None:
    """C43: chunks that repeat the end of the one before them: no answer holds any of that."""
    data = platform()
    made = build(data)
    assert set(made["kind"]) == set(KINDS)
    assert made.group_by("kind", "user_id").len()["len"].max() == 3
    assert seen_texts(made, data) == 0
    outcome = no_peeking(made, data[0], data[1])
    assert outcome.passed, outcome


def everything(snapshot: pl.DataFrame, chunks: pl.DataFrame) -> pl.DataFrame:
    """The broken twin of unseen_turns: all turns count as new."""
    texts = chunks.select("chunk_id", "speakers", "turns", "message_ids", messages="message_ids")
    numbers = pl.int_ranges(pl.col("turns").list.len())
    return snapshot.join(texts.with_columns(turn_numbers=numbers), on="chunk_id", maintain_order="left")


def test_the_check_catches_tasks_of_repeated_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """C43: a twin that takes whole chunks shows the embedding's own past; both the test's and the asset's check see."""
    for module in (tasks, koai_tasks):
        monkeypatch.setattr(module, "unseen_turns", everything)
    monkeypatch.setattr(build_module, "said_before", lambda tasks, *_: tasks.select("task_id").clear())
    data = platform()
    made = build(data)
    assert seen_texts(made, data) > 0
    outcome = no_peeking(made, data[0], data[1])
    assert not outcome.passed and outcome.metrics["references_seen"] > 0


def test_who_repeats_themselves_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """C43: a message that says again, word by word, what an earlier one said is another message, and no news."""
    snapshot, chunks, koais, vectors = platform(overlap=False)
    again, mine = "as I always say, the same words in every one of them", pl.col("chunk_id").str.contains("^c1-[345]")
    spoken = chunks.filter(mine).with_columns(
        pl.col("speakers", "message_ids").list.head(2),
        turns=pl.concat_list(pl.col("turns").list.first(), pl.lit(again)),
        text=pl.format("<P1>: {}\nSUBJECT: {}", pl.col("turns").list.first(), pl.lit(again)),
    )
    repeated = pl.concat([chunks.filter(~mine), spoken])
    data = snapshot, repeated, koais.filter(~mine), vectors
    assert set(build(data).filter(reference=again)["n_history"]) == {3}, "the first time is news"
    assert no_peeking(build(data), snapshot, repeated).passed
    monkeypatch.setattr(build_module, "said_before", lambda tasks, *_: tasks.select("task_id").clear())
    assert not no_peeking(build(data), snapshot, repeated).passed, "the control"


Spoiling = Callable[[pl.DataFrame], pl.DataFrame]
TWINS: dict[str, tuple[str, Spoiling]] = {
    "about an earlier chunk": ("wrong_position", lambda rows: rows.with_columns(pl.col("n_history") + 1)),
    "about somebody else": (
        "wrong_position",
        lambda rows: rows.with_columns(user_id=pl.col("user_id").replace("u1", "u3")),
    ),
    "with the gold elsewhere": (
        "wrong_gold",
        lambda rows: rows.with_columns(
            answer=pl.when(pl.col("answer") >= 0).then((pl.col("answer") + 1) % OPTIONS).otherwise(-1)
        ),
    ),
    "with an option of their own": (
        "options_heard",
        lambda rows: rows.with_columns(
            option_chunk_ids=pl.col("option_chunk_ids").list.eval(pl.element().str.replace("^c.", "c1"))
        ),
    ),
}


@pytest.mark.parametrize("twin", TWINS)
def test_the_check_catches_a_broken_builder(twin: str) -> None:
    data = platform()
    metric, spoil = TWINS[twin]
    outcome = no_peeking(spoil(build(data)), data[0], data[1])
    assert not outcome.passed and outcome.metrics[metric] > 0


def test_new_turns_are_those_of_no_earlier_chunk() -> None:
    snapshot, chunks, _, _ = platform()
    rows = unseen_turns(snapshot, chunks).filter(user_id="u0").sort("position")
    assert rows["message_ids"].to_list()[1] == ["q0-1", "a0-1", "t0-1"]
    assert rows["turn_numbers"].to_list()[:2] == [[0, 1, 2], [2, 3, 4]]
    assert rows["messages"].to_list()[1] == ["a0-0", "t0-0", "q0-1", "a0-1", "t0-1"]
    assert unseen.heard_by(rows)["u0"] >= {"q0-0", "t0-5"}
    with pytest.raises(ValueError, match="1 chunks"):
        unseen_turns(snapshot, chunks.tail(-1))


def test_a_chunk_in_which_nothing_is_new_makes_no_task() -> None:
    snapshot, chunks, koais, vectors = platform(overlap=False)
    again = chunks.filter(chunk_id="c1-4")["message_ids"][0].to_list()
    names = pl.when(chunk_id="c1-5").then(pl.lit(again, pl.List(pl.String))).otherwise("message_ids")
    made = build((snapshot, chunks.with_columns(message_ids=names), koais, vectors))
    assert "c1-5" not in set(made["chunk_id"]) and "c1-4" in set(made["chunk_id"])


def test_no_distractor_was_heard_by_the_user() -> None:
    """A message of another person that stands in any of the user's chunks is no option, whichever its window."""
    snapshot, chunks, koais, vectors = platform(overlap=False)
    heard = pl.col("chunk_id").is_in(["c1-0", "c3-5"])
    names = pl.when(heard).then(pl.concat_list(pl.lit("shared"), pl.col("message_ids").list.tail(2)))
    made = build((snapshot, chunks.with_columns(message_ids=names.otherwise("message_ids")), koais, vectors))
    offered = made.filter(user_id="u1")["option_chunk_ids"].explode().drop_nulls()
    assert "c3-5" not in set(offered) and any(name.startswith("c3") for name in offered)


def test_equal_texts_are_never_beside_each_other() -> None:
    snapshot, chunks, koais, vectors = platform(overlap=False)
    same = pl.when(pl.col("chunk_id").str.ends_with("-5")).then(pl.lit(["hi", "Thank  you", "all"]))
    made = build((snapshot, chunks.with_columns(turns=same.otherwise("turns")), koais, vectors)).filter(
        pl.col("answer") >= 0, kind="next_contribution"
    )
    for options in made["options"]:
        assert len({" ".join(option.casefold().split()) for option in options}) == OPTIONS


def test_statements_are_of_one_kind_and_free_form_has_no_options() -> None:
    made = build(platform(overlap=False))
    stance = made.filter(kind="stance")
    assert stance["question"].n_unique() == 1
    assert all(option.startswith("I think") for option in stance["options"].explode())
    free = made.filter(kind="answer_as_subject")
    assert free["answer"].unique().to_list() == [-1] and free["options"].list.len().max() == 0
    assert free.filter(pl.col("question").str.contains("<P1>: question")).height == free.height
    assert all(row.startswith("answer") for row in free["reference"])


def test_tasks_are_the_same_in_any_order_of_the_rows() -> None:
    data = platform()
    shuffled = tuple(frame.sample(fraction=1.0, shuffle=True, seed=3) for frame in data)
    assert build(shuffled).equals(build(data))  # pyright: ignore[reportArgumentType]
