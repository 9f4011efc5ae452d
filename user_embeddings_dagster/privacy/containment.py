"""Errors without the data that they may quote.

A library's error often quotes what it choked on: a value that does not parse, a key that is not there, a file named
like its owner. What our own code raises by a `raise` statement says what it was written to say, without any content.
So the text of an error stays only if one of our `raise` statements made it; of any other, its type, its place and, of
the operating system's, the number remain. Causes, contexts and notes never do.
"""

import dis
from pathlib import Path
from types import TracebackType

_ROOT = Path(__file__).resolve().parents[2]
OURS = tuple(f"{_ROOT / package}/" for package in ("user_embeddings_dagster", "assets", "resources", "training"))


class ContainedError(Exception):
    """An error of a library, without its text. It keeps the traceback, which quotes code and no values."""


def contained(error: Exception) -> Exception:
    """The error itself, stripped of what is chained to it, if one of our `raise` statements made it; else a
    ContainedError that says what it was and where."""
    error.__cause__ = error.__context__ = None
    error.__suppress_context__ = True
    error.__notes__ = []
    last = _last(error.__traceback__)
    if last is None or _raised_by_us(last):
        return error
    code = last.tb_frame.f_code
    place = f"{Path(code.co_filename).name}, line {last.tb_lineno}, in {code.co_name}"
    number = f", errno {error.errno}" if isinstance(error, OSError) and error.errno else ""
    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    text = f"{kind}{number} at {place}; its text is withheld, because it may quote what was read"
    return ContainedError(text).with_traceback(error.__traceback__)


def _last(traceback: TracebackType | None) -> TracebackType | None:
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback


def _raised_by_us(last: TracebackType) -> bool:
    """Whether it was made where it was raised: by a statement, not inside of a call, a subscript or an operator."""
    code = last.tb_frame.f_code
    return code.co_filename.startswith(OURS) and dis.opname[code.co_code[last.tb_lasti]] == "RAISE_VARARGS"
