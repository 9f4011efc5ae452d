"""Text from outside (a job's log, a library's warning) as it may stand in metadata that a browser renders."""

import re
import unicodedata

_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, format (bidi, zero width), surrogates, separators of lines

_PLAIN = re.compile(r"[\w .,:@+%=±/<>()-]*")
# A `_` emphasises unless it stands inside a word (CommonMark 0.31, 6.2).
_LIVE = re.compile(r"://|www\.|@|<|\]\(|^\s*[-+>]\s|(?<![^\W_])_|_(?![^\W_])|mailto:|javascript:", re.IGNORECASE)
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\0", "\\x00", "\\r", "\\t", "|", "%", "＝", "＋", "－", "＠")


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


def line(text: str) -> str:
    """One line that a terminal shows as it stands: what would begin another, or steer the cursor, is written out."""
    return printable(text).replace("\n", "\\n").replace("\t", " ")


def cell(text: str) -> str:
    """A cell of a Markdown table: plain words stay, anything that could be markup, a link or HTML is shown as code."""
    shown = line(text)
    if _PLAIN.fullmatch(shown) and not _LIVE.search(shown):
        return shown
    return "`" + shown.replace("`", "'").replace("\\", "\\\\").replace("|", "\\|") + "`"


def csv_cell(text: str) -> str:
    """A cell of a CSV file that no spreadsheet takes for a formula (OWASP ASVS 5.0, 1.2.10): a quote before it."""
    shown = line(text)
    return f"'{shown}" if shown.lstrip(" '\"").startswith(_FORMULA) else shown


def label(text: str) -> str:
    """Text in a plot: no mathematics."""
    return line(text).replace("$", "\\$")
