"""Whether instructions that a model proposed may be kept: a program file must carry nothing of what a person wrote.

The model that proposes them has read chunks and summaries. What is checked: a proposal that holds an identifier by
the patterns of `privacy.patterns`, or RUN consecutive words of one of the texts (what the constraints on summaries
call a quotation) that are not in the first instructions, is thrown away, never repaired. Fewer words, other words for
the same, and names without an identifier's form are not looked for.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from user_embeddings_dagster.privacy.normalise import UNSPACED, fold
from user_embeddings_dagster.privacy.patterns import HANDLES
from user_embeddings_dagster.privacy.pii import IDENTIFIERS
from user_embeddings_dagster.summaries.chunk_words import RUN

MAX_CHARACTERS = 6_000
Objection = Literal["empty", "too_long", "identifier", "verbatim"]
# In a script without spaces between words its characters count as words.
_WORD = re.compile(rf"{UNSPACED.pattern}|[^\W_]+")


class Texts:
    """The runs of `RUN` words of texts that instructions must not repeat, but for those in `allowed`."""

    def __init__(self, texts: Iterable[str], allowed: str = "") -> None:
        self._runs = {run for text in texts for run in _runs(text)} - set(_runs(allowed))

    def objection(self, instructions: str) -> Objection | None:
        """Why `instructions` may not be kept; None if they may."""
        if not instructions.strip():
            return "empty"
        if len(instructions) > MAX_CHARACTERS:
            return "too_long"
        if _identifier(instructions):
            return "identifier"
        return "verbatim" if any(run in self._runs for run in _runs(instructions)) else None


def _identifier(text: str) -> bool:
    """Whether a pattern of `privacy.patterns` finds an e-mail address, phone number, link, key, … in `text`.

    `privacy.pii` looks for the same in whole columns; for one text that takes a hundred times as long.
    """
    plain = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return any(kind.spans(plain) for kind in (*IDENTIFIERS, *HANDLES))


def strings(value: Any) -> list[str]:
    """Every string in a JSON value, keys left out."""
    if isinstance(value, str):
        return [value]
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return [text for item in items for text in strings(item)]


def _runs(text: str) -> Iterable[int]:
    """Hashes of the runs of `RUN` words: texts are many, and none need be kept."""
    words = _WORD.findall(fold(text))
    for start in range(len(words) - RUN + 1):
        yield hash(tuple(words[start : start + RUN]))
