"""Neutral questions: right whoever asks, and the same for everybody."""

import re

import polars as pl
import pytest

from user_embeddings_dagster.personalisation.neutral import KINDS, OPTIONS, SERIES, VERBS, neutral_questions

PER_KIND = 40


@pytest.fixture(scope="module")
def questions() -> pl.DataFrame:
    return neutral_questions(PER_KIND, seed=0)


def solved(kind: str, question: str) -> str:
    """The answer, from what the question says alone."""
    if kind == "arithmetic":
        a, sign, b = re.fullmatch(r"(\d+) ([-+*]) (\d+) =", question).groups()
        return str({"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign])
    if kind == "repetition":
        words = question.split()
        period = next(n for n in range(1, len(words)) if all(w == words[i - n] for i, w in enumerate(words) if i >= n))
        return words[len(words) - period]
    if kind == "logic":
        return deduced(question)
    return ordered(question)


def deduced(question: str) -> str:
    if every := re.match(r"Every (\w+) is (\w+)\. This is a (\w+)\.", question):
        assert every[1] == every[3]
        return every[2]
    if inside := re.match(r"The (\w+) is in the (\w+)\. The (\w+) is in the (\w+)\. So the (\w+)", question):
        assert (inside[2], inside[1]) == (inside[3], inside[5])
        return inside[4]
    named = re.match(r"It is the (\w+) or the (\w+) or the (\w+)\.", question).groups()
    return next(thing for thing in named if f"not the {thing}" not in question)


def ordered(question: str) -> str:
    if question.startswith("Of "):
        return str(max(map(int, re.findall(r"\d+", question))))
    if "is before" in question:
        pairs = re.findall(r"(\w) is before (\w)", question)
        return next(after for _, after in pairs if after not in {before for before, _ in pairs})
    series = next(s for s in SERIES if set(question.split()) <= set(s))
    return series[series.index(question.split()[-1]) + 1]


def test_the_answer_follows_from_the_question(questions):
    """C47: every question but those of grammar is solved again, by other code."""
    for row in questions.filter(pl.col("kind") != "grammar").iter_rows(named=True):
        assert row["options"][row["answer"]] == solved(row["kind"], row["question"]), row
        assert len(set(row["options"])) == OPTIONS, row


def test_a_form_of_a_verb_fits_what_is_before_it(questions):
    """Base form after modals and "to", participle after "have", -ing after "be"."""
    for row in questions.filter(kind="grammar").iter_rows(named=True):
        verb = next(verb for verb in VERBS if set(verb) == set(row["options"]))
        words = row["question"].split()
        place = 3 if {"am", "are"} & set(words) else 2 if {"have", "haven't", "had"} & set(words[:-1]) else 0
        place = 0 if words[-1] == "to" else 2 if "haven't" in words else place
        assert row["options"][row["answer"]] == verb[place], row


def test_kinds_and_places_are_balanced_and_nothing_is_asked_twice(questions):
    assert questions.group_by("kind").len().sort("kind").rows() == [(kind, PER_KIND) for kind in sorted(KINDS)]
    assert questions.group_by("answer").len()["len"].to_list() == [PER_KIND * len(KINDS) // OPTIONS] * OPTIONS
    asked = questions.with_columns(right=pl.col("options").list.get(pl.col("answer")))
    assert not asked.select("kind", "question", "right").is_duplicated().any()


def test_a_seed_gives_the_same_questions_and_more_of_them_begin_with_those(questions):
    assert neutral_questions(PER_KIND, seed=0).equals(questions)
    assert not neutral_questions(PER_KIND, seed=1).equals(questions)
    few = neutral_questions(5, seed=0)
    for kind in KINDS:
        assert few.filter(kind=kind).equals(questions.filter(kind=kind).head(5))


def test_more_questions_than_there_are_is_refused():
    with pytest.raises(ValueError, match="different questions"):
        neutral_questions(110, seed=0)
