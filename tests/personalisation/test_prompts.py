"""What a decoder reads before an answer."""

import pytest

from user_embeddings_dagster.personalisation.koai_tasks import ANSWER, KNOWLEDGE, STANCE
from user_embeddings_dagster.personalisation.prompts import SPEAKER, answer, prompt, speaks
from user_embeddings_dagster.personalisation.tasks import CONTRIBUTION, THREAD


@pytest.mark.parametrize(
    ("kind", "own"), [(CONTRIBUTION, True), (ANSWER, True), (THREAD, False), (STANCE, False), (KNOWLEDGE, False)]
)
def test_only_subjects_own_words_follow_subjects_name(kind: str, own: bool) -> None:
    assert speaks(kind) is own
    assert prompt(kind, "What now?") == ("What now?\nSUBJECT:" if own else "What now?\n")


def test_an_answer_follows_as_the_chat_goes_on() -> None:
    """No lone space is a token of its own: the decoder has read none in its training."""
    whole = prompt(CONTRIBUTION, "What now?") + answer(CONTRIBUTION, "the first")
    assert whole == "What now?\nSUBJECT: the first"
    assert not prompt(CONTRIBUTION, "What now?").endswith(" ")
    assert answer(STANCE, "the first") == "the first"


def test_what_was_said_comes_first_and_oldest_first() -> None:
    told = prompt(CONTRIBUTION, "What now?", ["the first", "the second"])
    assert told == f"{SPEAKER} the first\n{SPEAKER} the second\nWhat now?\n{SPEAKER}"
