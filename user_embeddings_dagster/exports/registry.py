"""Every export format the platform reads, and the choice among them by content."""

from user_embeddings_dagster.exports import chatgpt, dfusion, pushshift, reddit, telegram
from user_embeddings_dagster.exports.reader import Format, RawFile

_MODULES = (reddit, pushshift, telegram, dfusion, chatgpt)
FORMATS: dict[str, Format] = {format.name: format for module in _MODULES for format in module.FORMATS}


def detect(file: RawFile) -> Format | None:
    """The first format whose content test the file passes, or None; a file that cannot be opened raises OSError."""
    return next((format for format in FORMATS.values() if format.matches(file)), None)
