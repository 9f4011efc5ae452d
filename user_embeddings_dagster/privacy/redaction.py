"""An erased person's names in what others wrote: replaced for good, while the names are still known.

Once a person's rows are gone nothing is left to mask their name by, and "Alice said" in another's message would come
out of the masking as it is. In JSON a name may also be a key ({"reactions": {"alice": 3}}); a format's own fields stay,
or an erasure of somebody called "date" would leave records that no reader reads.
"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Container, Iterable
from functools import lru_cache, partial
from itertools import accumulate, count

import polars as pl

from user_embeddings_dagster.privacy.masking import NAME_MARK, ThreadNames
from user_embeddings_dagster.privacy.names import variants
from user_embeddings_dagster.privacy.normalise import PLAIN, canonical

PERSON = "<PERSON>"


class Redaction:
    """Replaces the names of people by `<PERSON>`, in the variants and by the rules of masking (privacy.masking)."""

    def __init__(self, names: Iterable[tuple[str, str]], fields: Container[str] = ()) -> None:
        """`names`: (name, kind) as in PARTICIPANTS. `fields`: keys of JSON that are a format's own."""
        self._fields = fields
        known = sorted({(name, kind) for name, kind in names if name.strip()})
        folded = canonical(pl.Series([name for name, _ in known], dtype=pl.String)).to_list()
        people = [("person", name, kind) for name, (_, kind) in zip(folded, known, strict=True)]
        self._names = ThreadNames(people)
        forms = (form for _, name, kind in people for form in variants(name, kind))
        # A text without any of these characters in a row has none of the names.
        self._needles = {token for form in forms for token in form.tokens}
        self._key = lru_cache(maxsize=4096)(self.text)  # every record has the same keys

    def __bool__(self) -> bool:
        return bool(self._needles)

    def text(self, text: str) -> str:
        """The text with the names replaced; exactly as it was if it holds none."""
        lower = text.lower()
        if PLAIN.fullmatch(text) and not any(needle in lower for needle in self._needles):
            return text
        return self._replaced(text, str(_canonical([text])[0]))

    def parts(self, texts: list[str]) -> list[str]:
        """The parts of one text with the names that stand in it: what replaces one is in the part where it begins.

        Each part is as it was if it holds nothing of a name.
        """
        whole = "".join(texts)
        if self.text(whole) == whole:
            return texts
        plain = _canonical(texts).to_list()
        pairs = zip(texts, plain, self._spread(plain), strict=True)
        return [text if redacted == before else redacted for text, before, redacted in pairs]

    def _spread(self, parts: list[str]) -> list[str]:
        whole, ends = "".join(parts), list(accumulate(map(len, parts)))
        pieces = NAME_MARK.split(self._names.mask(whole))
        written, done = [""] * len(parts), 0
        for left, piece in zip(reversed(range(len(pieces))), pieces, strict=True):
            # Between two names the first place will do: what is before it is a name's, wherever that ends.
            start = whole.index(piece, done) if left else len(whole) - len(piece)
            done = start + len(piece)
            for place in range(start, done):
                written[bisect_right(ends, place)] += whole[place]
            if left:
                written[bisect_right(ends, done)] += PERSON
                done += 1
        return written

    def _replaced(self, text: str, plain: str) -> str:
        masked = self._names.mask(plain)
        return text if masked == plain else NAME_MARK.sub(PERSON, masked)

    def texts(self, texts: pl.Series) -> pl.Series:
        """A column of them; nulls stay."""
        pairs = zip(texts, canonical(texts), strict=True)
        return pl.Series(texts.name, [text and self._replaced(text, plain) for text, plain in pairs], dtype=pl.String)

    def value(self, value: object) -> object:
        """JSON with the names in all its strings replaced, and in its keys."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            keys = self.keys(value)
            return {keys[key]: self.value(item) for key, item in value.items()}
        return value

    def keys(self, names: Collection[str], people: Container[str] = ()) -> dict[str, str]:
        """What takes the place of each key of an object; `people`: keys that are nothing but a person's account.

        No two become one: of {"alice": 1, "Alice": 2} the second is `<PERSON> 2`.
        """
        found = {name: PERSON if name in people else self._key(name) for name in names if name not in self._fields}
        changed = {name: now for name, now in found.items() if now != name}
        taken, numbers = {*names} - changed.keys(), defaultdict(partial(count, 2))
        for name, now in changed.items():
            free = now
            while free in taken:
                free = f"{now} {next(numbers[now])}"
            changed[name] = free
            taken.add(free)
        return {name: changed.get(name, name) for name in names}


def _canonical(texts: list[str]) -> pl.Series:
    # JSON may name half of a surrogate pair: it becomes "?".
    return canonical(pl.Series([text.encode("utf-8", "replace").decode() for text in texts], dtype=pl.String))
