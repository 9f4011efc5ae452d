"""Names of the erased as keyed hashes, by which they are found again in an older copy of what others wrote.

The person's own export, which told the names, is shredded by then. Like a tombstone, a hash tells nobody the name
without the platform's key; with it a name can be guessed, as an account can.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import polars as pl

from user_embeddings_dagster.keys import content_id, keyed_id
from user_embeddings_dagster.privacy.names import TOKEN, variants
from user_embeddings_dagster.privacy.normalise import UNSPACED, canonical, fold, fold_name
from user_embeddings_dagster.storage.durability import checked_json, read_json, write_json

_FOUND = "handle"  # the kind of a name that is found: it is looked for as it stands there


class HashedNames(msgspec.Struct):
    """What the file holds."""

    names: list[str]
    sizes: list[int]
    lengths: list[int]


@dataclass(frozen=True)
class ErasedNames:
    """Those of one platform. `sizes`: their numbers of words, `lengths`: of characters, where words are not spaced."""

    key: bytes
    names: frozenset[str] = frozenset()
    sizes: frozenset[int] = frozenset()
    lengths: frozenset[int] = frozenset()

    @classmethod
    def load(cls, path: Path, key: bytes) -> "ErasedNames":
        """The names at `path`; none if there is no file."""
        return cls._of(read_json(path, HashedNames), key) if path.exists() else cls(key)

    @classmethod
    def parsed(cls, content: bytes, key: bytes, what: str, remedy: str) -> "ErasedNames":
        """The names of a file's content. Raises Damaged, with `what` it is and a `remedy`."""
        return cls._of(checked_json(content, HashedNames, what, remedy), key)

    @classmethod
    def _of(cls, kept: HashedNames, key: bytes) -> "ErasedNames":
        return cls(key, frozenset(kept.names), frozenset(kept.sizes), frozenset(kept.lengths))

    def save(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(path, {part: sorted(getattr(self, part)) for part in ("names", "sizes", "lengths")})

    def with_names(self, names: Iterable[tuple[str, str]]) -> "ErasedNames":
        """These and every form of further names (name, kind) in which masking looks for them."""
        known = sorted({(name, kind) for name, kind in names if name.strip()})
        folded = canonical(pl.Series([name for name, _ in known], dtype=pl.String)).to_list()
        forms = [form for name, (_, kind) in zip(folded, known, strict=True) for form in variants(name, kind)]
        spaced = [form.tokens for form in forms if not form.unspaced]
        unspaced = [form.unspaced for form in forms if form.unspaced]
        return self | ErasedNames(
            self.key,
            frozenset([*(self._hash(" ".join(tokens)) for tokens in spaced), *map(self._hash, unspaced)]),
            frozenset(map(len, spaced)),
            frozenset(map(len, unspaced)),
        )

    def __or__(self, other: "ErasedNames") -> "ErasedNames":
        return ErasedNames(
            self.key, self.names | other.names, self.sizes | other.sizes, self.lengths | other.lengths
        )  # fmt: skip

    def found_in(self, texts: pl.Series) -> set[tuple[str, str]]:
        """(name, kind) of every one that stands in the texts, for a Redaction."""
        seen: dict[str, str] = {}  # as it stands there, and in the form that is hashed
        for text in canonical(texts.drop_nulls()):
            # Names that were hashed before apostrophes, dashes and letters like "ł" were folded are found as well.
            for folded in dict.fromkeys((fold(text), fold_name(text))):
                seen |= self._candidates(folded)
        return {(written, _FOUND) for written, form in seen.items() if self._hash(form) in self.names}

    @property
    def version(self) -> str:
        """Content hash: a table in which these names are replaced changes with it."""
        return content_id(*sorted(self.names))

    def _candidates(self, folded: str) -> dict[str, str]:
        places = list(TOKEN.finditer(folded))
        found: dict[str, str] = {}
        for size in self.sizes:
            for first, last in zip(places, places[size - 1 :], strict=False):
                written = folded[first.start() : last.end()]
                found[written] = " ".join(TOKEN.findall(written))
        for length in self.lengths if UNSPACED.search(folded) else ():
            parts = (folded[at : at + length] for at in range(len(folded) - length + 1))
            found |= {part: part for part in parts if UNSPACED.search(part)}
        return found

    def _hash(self, form: str) -> str:
        return keyed_id(self.key, "erased name", form)
