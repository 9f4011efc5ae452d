"""Where canaries were found, by store; and where they may lawfully be, which is written down here and nowhere else."""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.leaks.planting import CLASSES, PEOPLE, Source
from benchmarks.leaks.search import Finder
from user_embeddings_dagster.keys import keyed_id
from user_embeddings_dagster.language_models.cache import _unsealed
from user_embeddings_dagster.privacy.audit.decoding import Undecoded, views
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake

# Store: the classes of fields whose canaries may stand in it. Everything else holds none of any class.
LAWFUL: dict[str, frozenset[str]] = {
    "landing": frozenset((*CLASSES, PEOPLE)),  # what people handed in
    "tables/messages": frozenset(
        {"spoken", PEOPLE, "named", "filed"}
    ),  # text before masking (ChatGPT's system names its user); raw_member
    "tables/participants": frozenset({"named", PEOPLE}),  # the names that masking looks for
    "tables/raw_files": frozenset({"filed", PEOPLE}),  # raw_file
    "tables/rejected_records": frozenset({"filed", PEOPLE}),  # raw_file, raw_member
}
# Where fragments are looked for too; models and vectors are numbers, in which they turn up by chance.
TEXT_STORES = ("tables/", "dagster", "cache", "output", "prompts", "home", "tmp", "erasures", "batches")
BATCH = 32 << 20  # bytes searched at once
_CONTROLS = bytes(range(9))
# A Unix time and a time of day, in whose digits half a coordinate turns up by chance ("21:42:55.034617").
_TIME = re.compile(rb"(?<![\d.])1[6-9]\d{8}\.\d{3,7}(?!\d)|(?<!\d)[0-2]\d:[0-5]\d:[0-5]\d\.\d{6}(?!\d)")
# A picture in base64, and the eight random letters of a step's log: five letters of a word turn up in them by chance.
_BLOB = re.compile(rb'[A-Za-z0-9+/=_-]{300,}|(?<="log_key": ")[a-z]{8}(?=")')


@dataclass
class Findings:
    """Hits by (store, format, class, kind), each a distinct canary of the class; files seen; what could not be read."""

    whole: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    parts: Counter[tuple[str, str, str, str]] = field(default_factory=Counter)
    files: Counter[str] = field(default_factory=Counter)
    bytes: Counter[str] = field(default_factory=Counter)
    undecoded: list[str] = field(default_factory=list)

    def unlawful(self) -> Counter[tuple[str, str, str, str]]:
        """Canaries where none of their class may be, whole or in part."""
        return Counter({key: n for key, n in (self.whole | self.parts).items() if key[2] not in LAWFUL.get(key[0], ())})


class Auditor:
    """Looks for the canaries of all sources."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._labels, canaries = [], []
        for source in sources:
            for of, planted in {**source.planted, PEOPLE: source.people}.items():
                for canary in planted:
                    self._labels.append((source.format, of, canary.kind))
                    canaries.append(canary)
        self._finder = Finder(canaries)

    @property
    def planted(self) -> Counter[tuple[str, str, str]]:
        """Canaries by (format, class, kind)."""
        return Counter(self._labels)

    def scan(self, root: Path) -> Findings:
        """Every file below `root`, decoded: names of files and all that a reader of their format would see."""
        found, whole, parts = Findings(), Counter(), Counter()
        seen: dict[str, tuple[set[int], set[int]]] = {}
        for store, raw, text in _batches(root, found):
            held = _TIME.sub(b" ", raw)
            text = text and store.startswith(TEXT_STORES) and store not in LAWFUL
            in_whole, in_parts = seen.setdefault(store, (set(), set()))
            in_whole.update(self._finder.whole(held))
            if text:
                in_parts.update(self._finder.parts(_BLOB.sub(b" ", held)))
        for store, (in_whole, in_parts) in seen.items():
            whole.update((store, *self._labels[place]) for place in in_whole)
            parts.update((store, *self._labels[place]) for place in in_parts)
        found.whole, found.parts = whole, parts
        return found


def store_of(root: Path, path: Path) -> str:
    """The store that a file below `root` belongs to: data/tables/<table>, data/<store>, or a redirected folder."""
    first, *rest = path.relative_to(root).parts
    if first != "data":
        return first
    return f"tables/{rest[1]}" if rest[0] == "tables" and len(rest) > 2 else rest[0]


def _batches(root: Path, found: Findings) -> Iterator[tuple[str, bytes, bool]]:
    """(store, bytes, whether they are text) of all files, up to BATCH together; the answers in the cache opened."""
    by_store: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            by_store.setdefault(store_of(root, path), []).append(path)
    for store, paths in by_store.items():
        held: dict[bool, list[bytes]] = {True: [], False: []}
        for data in _views(root, store, paths, found):
            found.bytes[store] += len(data)
            kept = held[_is_text(data)]
            kept.append(data)
            if sum(map(len, kept)) >= BATCH:
                yield store, b"\n".join(kept), kept is held[True]
                kept.clear()
        for text, kept in held.items():
            yield store, b"\n".join(kept), text
    for answer in opened_answers(Layout(root / "data")):
        found.files["cache, opened"] += 1
        found.bytes["cache, opened"] += len(answer)
        yield "cache, opened", answer, True


def _views(root: Path, store: str, paths: Iterable[Path], found: Findings) -> Iterator[bytes]:
    for path in paths:
        found.files[store] += 1
        yield str(path.relative_to(root)).encode("utf-8", "surrogateescape")
        try:
            yield from (data for _, data in views(path))
        except Undecoded as error:
            found.undecoded.append(f"{store}: {error}")


def _is_text(data: bytes) -> bool:
    """Not compressed, no numbers as bytes: hardly any control characters."""
    start = data[: 1 << 20]
    return len(start.translate(None, _CONTROLS)) >= 0.995 * len(start)


def opened_answers(layout: Layout) -> Iterator[bytes]:
    """Every answer in the private cache, decrypted with the contributors' keys: all that a thief of both would read."""
    if not layout.language_model_cache.is_file():
        return
    lake, by_owner = Lake(layout.root), {}
    with ContributorKeys.of(layout) as keys:
        index = keys.derived("language model cache: entries")
        for datadao in lake.partitions("masked_chunks"):
            for owner in lake.read("masked_chunks", datadao)["user_id"].unique():
                by_owner[bytes.fromhex(keyed_id(index, "owner", owner))] = keys.existing(owner)
    with closing(sqlite3.connect(f"file:{layout.language_model_cache}?mode=ro", uri=True)) as stored:
        for key, sealed in stored.execute("SELECT key, value FROM entries"):
            owner = next(prefix for prefix in by_owner if key.startswith(prefix))
            secret = by_owner[owner]
            if secret is None or (entry := _unsealed(secret, key, sealed)) is None:
                raise ValueError("an answer in the cache cannot be opened")
            yield json.dumps(json.loads(entry.value), ensure_ascii=False).encode()
