"""Every export format the platform reads, and the choice among them by content."""

from importlib import import_module
from importlib.util import find_spec

from user_embeddings_dagster.exports import pushshift, reddit
from user_embeddings_dagster.exports.reader import Format, RawFile

_MODULES = [reddit, pushshift] + [
    import_module(name)
    for part in ("telegram", "chatgpt", "dfusion")
    if find_spec(name := f"user_embeddings_dagster.exports.{part}")
]
FORMATS: dict[str, Format] = {format.name: format for module in _MODULES for format in module.FORMATS}


def detect(file: RawFile) -> Format | None:
    """The first format whose content test the file passes, or None; a file that cannot be opened raises OSError."""
    return next((format for format in FORMATS.values() if format.matches(file)), None)
