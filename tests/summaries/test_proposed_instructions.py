"""What a model proposes as instructions carries nothing of what a person wrote."""

import pytest

from user_embeddings_dagster.summaries.proposed_instructions import Objection, Texts, strings
from user_embeddings_dagster.summaries.subject import summarise_subject

LEAKS: dict[str, Objection | None] = {
    "Write about someone who said the leaves of my fern are turning yellow and brown, and the like.": "verbatim",
    "LEAVES of my fern: are turning; yellow (and brown)!": "verbatim",
    "Say that the leaves of my fern are red.": "verbatim",
    "Say that leaves of my fern are red.": None,
    "Say 我昨天在花园里种了一棵树 if it fits.": "verbatim",
    "Write to ann.smith@example.org when unsure.": "identifier",
    "See https://example.org/u/ann for more.": "identifier",
    "  \n": "empty",
    "long " * 2_000: "too_long",
    "Summarise what SUBJECT contributed to this talk, in the third person and in its own words.": None,
    "Generalise: <P1> is someone, leaves of my fern are leaves.": None,
}


@pytest.mark.parametrize(("proposal", "objection"), LEAKS.items(), ids=range(len(LEAKS)))
def test_proposals_that_carry_personal_text_are_thrown_away(proposal: str, objection: Objection | None) -> None:
    """C24: no identifier and no run of six words of an example (of a script without spaces: six characters)."""
    said = [
        "The leaves of my fern are turning yellow and brown.",
        "我昨天在花园里种了一棵树",
        "Summarise what SUBJECT contributed to this talk",
    ]
    assert Texts(said, allowed=said[-1]).objection(proposal) == objection


def test_the_shipped_instructions_would_be_kept() -> None:
    assert Texts([]).objection(summarise_subject().instructions) is None


def test_strings_of_a_json_value() -> None:
    assert strings({"chunk": [{"turn": 3, "text": "one"}, {"text": None}], "more": ("two", ["three"])}) == [
        "one", "two", "three",
    ]  # fmt: skip
