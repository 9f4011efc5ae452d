"""What the decoder reads before an answer: the question, and what is told about SUBJECT in words, if anything."""

from collections.abc import Sequence

from user_embeddings_dagster.personalisation.koai_tasks import ANSWER
from user_embeddings_dagster.personalisation.tasks import CONTRIBUTION

SPEAKER = "SUBJECT:"


def prompt(kind: str, question: str, past: Sequence[str] = ()) -> str:
    """The question after SUBJECT's `past` contributions, oldest first, as the chat that a decoder continues."""
    told = "".join(f"{SPEAKER} {text}\n" for text in past)
    return f"{told}{question}\n{SPEAKER if speaks(kind) else ''}"


def answer(kind: str, text: str) -> str:
    """A text as it follows the prompt: the space before it is its own, as a byte-level BPE cuts words."""
    return f" {text}" if speaks(kind) else text


def speaks(kind: str) -> bool:
    """Whether an answer of that kind is SUBJECT's own words, rather than words about SUBJECT or of others."""
    return kind in (CONTRIBUTION, ANSWER)
