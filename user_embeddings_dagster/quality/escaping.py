"""Text from outside (a job's log, a library's warning) as it may stand in metadata that a browser renders."""

import re
import unicodedata

_INVISIBLE = ("Cc", "Cf", "Cs")  # controls, format characters (bidi, zero width), surrogates


def printable(text: str) -> str:
    """The text with `\\xNN` or `\\uNNNN` in place of characters that steer a terminal or the order of reading."""
    return "".join(
        character
        if character in "\n\t" or unicodedata.category(character) not in _INVISIBLE
        else ascii(character)[1:-1]
        for character in text
    )


def code_block(text: str) -> str:
    """Markdown that shows the text and nothing of it as markup: its fence is longer than any in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{printable(text)}\n{fence}"
