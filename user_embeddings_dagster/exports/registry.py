"""Every export format the platform reads, and the choice among them by content."""

from user_embeddings_dagster.exports import chatgpt, dfusion, pushshift, reddit, telegram
from user_embeddings_dagster.exports.reader import ForeignLink, Format, RawFile
from user_embeddings_dagster.privacy.sealed_format import NotOurs

_MODULES = (reddit, pushshift, telegram, dfusion, chatgpt)
FORMATS: dict[str, Format] = {format.name: format for module in _MODULES for format in module.FORMATS}


def detect(file: RawFile) -> Format | None:
    """The first format whose content test the file passes. A file that cannot be opened raises OSError.

    None if it passes none, is a link that is not followed, or begins as a sealed file and is none of this platform's.
    """
    if isinstance(file, ForeignLink):
        return None
    try:
        return next((format for format in FORMATS.values() if format.matches(file)), None)
    except NotOurs:
        return None
