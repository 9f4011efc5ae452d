"""The last look before anything is written: does any participant's name survive in a rendered chunk? (C9)

Independent of the masker: it never tokenises and knows nothing of marks. Boundaries are written into the text
and the names, and an Aho-Corasick automaton (Polars, Rust) searches the finished text for plain substrings.
"""

from collections.abc import Callable

import polars as pl

from user_embeddings_dagster.privacy.names import is_ambiguous
from user_embeddings_dagster.privacy.normalise import UNSPACED_RANGES

_EDGE = "\x00"
_UNSPACED_EDGE = "\x03"
_TURN = "\x02"
_SPEAKER = r"(?m)^(?:SUBJECT|ASSISTANT|<P\d+>): "
_PLACEHOLDER = r"\bSUBJECT\b|<[A-Z][A-Z0-9_]*>"
_DASH = r"[\p{Pd}\u2212\u02D7\u2043]"
# Apostrophes, and letters that no decomposition takes apart, in lower case.
_PLAIN = dict.fromkeys("`\u2018\u2019\u201b\u2032\u02b9\u02bb\u02bc\u02bd\u02be\u02bf\ua78c\u055a\u05f3", "'") | {
    "ß": "ss", "æ": "ae", "œ": "oe", "þ": "th", "ł": "l", "ø": "o", "đ": "d", "ð": "d", "ı": "i", "ħ": "h", "ŧ": "t",
    "ŋ": "n", "ə": "e", "ς": "σ",
}  # fmt: skip
_WRITTEN_OUT = {"ä": "ae", "ö": "oe", "ü": "ue", "å": "aa", "ø": "oe"}


class ResidualNameError(Exception):
    """Names of participants survived masking. Holds chunk ids and counts, never a name."""

    def __init__(self, chunk_ids: list[str]) -> None:
        shown = ", ".join(chunk_ids[:5])
        super().__init__(f"{len(chunk_ids)} chunks still hold a participant's name: {shown}")
        self.chunk_ids = chunk_ids


def _folded(texts: pl.Series) -> pl.Series:
    texts = texts.str.replace_all("´", "'", literal=True)  # of which NFKC makes a space and an accent
    texts = texts.str.normalize("NFKC").str.to_lowercase().str.normalize("NFKD").str.replace_all(r"\p{M}", "")
    texts = texts.str.normalize("NFC").str.replace_all(_DASH, "-")
    return texts.str.replace_many(_PLAIN)


def _written_out(names: pl.Series) -> pl.Series:
    return names.str.normalize("NFKC").str.to_lowercase().str.replace_many(_WRITTEN_OUT)


def _edged(texts: pl.Series) -> pl.Series:
    """Edges around each word, other ones around runs of scripts without spaces between words."""
    texts = texts.str.replace_all(rf"([\p{{L}}\p{{N}}&&[{UNSPACED_RANGES}]]+)", f"{_UNSPACED_EDGE}$1{_UNSPACED_EDGE}")
    return texts.str.replace_all(rf"([\p{{L}}\p{{N}}&&[^{UNSPACED_RANGES}]]+)", f"{_EDGE}$1{_EDGE}")


def _patterns(names: pl.DataFrame) -> dict[str, list[str]]:
    """By thread, what must not occur: a name between edges, also with its umlauts written out, within a run of a script
    without spaces too; an ambiguous one only where somebody is addressed."""
    distinct = names["name"].unique(maintain_order=True)
    folded = _bare(distinct)
    patterns = [
        _addressed(edged) if is_ambiguous(name) else [edged.strip(_UNSPACED_EDGE), other.strip(_UNSPACED_EDGE)]
        for name, edged, other in zip(distinct, _edged(folded), _edged(_bare(_written_out(distinct))), strict=True)
    ]
    schema = {"name": pl.String, "pattern": pl.List(pl.String)}
    table = pl.DataFrame({"name": distinct, "pattern": patterns}, schema=schema).filter(folded != "")
    by_thread = (
        names.select("thread_id", "name")
        .join(table.explode("pattern"), on="name")
        .group_by("thread_id")
        .agg(pl.col("pattern").unique(maintain_order=True))
    )
    return dict(by_thread.iter_rows())


def _bare(names: pl.Series) -> pl.Series:
    names = names.str.replace_all(r"\s+", " ")  # as chunks have it
    return _folded(names).str.replace_all(r"^[^\p{L}\p{N}]+|[^\p{L}\p{N}]+$", "")


def _addressed(name: str) -> list[str]:
    return [f"{_TURN}{name}:", f"{_TURN}{name},", f"@{name}", f"{_EDGE}u{_EDGE}/{name}"]


def residual_chunks(
    chunks: pl.DataFrame, names: pl.DataFrame, progress: Callable[[int, int], None] | None = None
) -> list[str]:
    """Ids of `chunks` (chunk_id, thread_id, text) that hold one of their thread's `names` (same, name)."""
    bare = chunks["text"].str.replace_all(_SPEAKER, _TURN).str.replace_all(_PLACEHOLDER, " \x01 ")
    texts = chunks.select("chunk_id", "thread_id", _edged(_folded(bare)).alias("text"))
    patterns = _patterns(names)
    found: list[str] = []
    done = 0
    for (thread,), frame in texts.partition_by("thread_id", as_dict=True, maintain_order=True).items():
        if thread in patterns:
            held = frame["text"].str.contains_any(patterns[thread])
            found += frame["chunk_id"].filter(held).to_list()
        done += frame.height
        if progress:
            progress(done, chunks.height)
    return found


def check_residual_names(
    chunks: pl.DataFrame, names: pl.DataFrame, progress: Callable[[int, int], None] | None = None
) -> None:
    """Raise ResidualNameError if any chunk still holds a name; see `residual_chunks`."""
    found = residual_chunks(chunks, names, progress)
    if found:
        raise ResidualNameError(found)
