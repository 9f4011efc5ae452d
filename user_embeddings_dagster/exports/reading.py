"""The reading half of a build: every raw file through its reader, hashed, filtered, staged and counted."""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from user_embeddings_dagster.exports.bounds import bounded
from user_embeddings_dagster.exports.fingerprints import FINGERPRINTS, fingerprints
from user_embeddings_dagster.exports.minimisation import Survey, survey
from user_embeddings_dagster.exports.normalise import STAGED, Normaliser
from user_embeddings_dagster.exports.reader import Batch, ForeignLink, Format, RawFile, Rejected
from user_embeddings_dagster.exports.registry import detect
from user_embeddings_dagster.exports.staging import Part, row_groups
from user_embeddings_dagster.privacy.erased_names import ErasedNames
from user_embeddings_dagster.privacy.redaction import Redaction
from user_embeddings_dagster.privacy.retention.windows import Horizons
from user_embeddings_dagster.privacy.sealed_format import NotOurs
from user_embeddings_dagster.privacy.tombstones import Tombstones
from user_embeddings_dagster.schema import DROPPED_MESSAGES, PARTICIPANTS, RAW_FILES, REJECTED_RECORDS

Progress = Callable[[str, dict[str, Any]], None]
# `seq` numbers the staged rows of a build; `part` is the index of the raw file in reading order.
PARTS = {
    "messages": pl.Schema({**STAGED, **FINGERPRINTS, "seq": pl.Int64(), "part": pl.Int32()}),
    "names": PARTICIPANTS.schema,
    "rejected": REJECTED_RECORDS.schema,
}
_MOST_FRAMES = 256  # in one file, as its writer holds something of each


class Reading:
    """Reads the raw files of one DataDAO into staged parts.

    After `read`: `owners` are the author ids of contributors, `n_read` counts messages as the readers gave
    them, `n_staged` those that went on. What the `erased` wrote, and exports of theirs, are left out; their names in
    what others wrote, and names that are `known` of any of them, are replaced in a DataDAO in which one is found. What
    was written before the `horizons` is left out too.
    """

    def __init__(
        self,
        datadao: str,
        stage: Path,
        normaliser: Normaliser,
        progress: Progress,
        erased: Tombstones,
        known: ErasedNames,
        horizons: Horizons | None = None,
    ) -> None:
        self.datadao, self.stage, self.progress = datadao, stage, progress
        self._normaliser, self._erased, self._known, self._horizons = normaliser, erased, known, horizons or Horizons()
        self._erased_names: set[tuple[str, str]] = set()
        self.owners: set[str] = set()
        self.owners_of: dict[str, set[str]] = {}  # by name of the raw file: whose own export it is
        self.n_read = self.n_staged = self.n_rejected = 0
        self._threads: dict[str, set[str]] = {}  # platform → native threads in which an owner wrote
        self._dropped: Counter[tuple[int, str]] = Counter()
        self._files: list[tuple[RawFile, str, int, int]] = []
        self._surveys: list[Survey] = []
        self._parts: dict[str, Part] = {}
        self._n_parts = 0

    def read(self, files: list[RawFile]) -> None:
        """Read all files, contributors' own exports before public dumps; the same bytes are read once."""
        formats = [(file, detect(file)) for file in files]
        formats.sort(key=lambda pair: (pair[1] is not None and pair[1].is_public, pair[0].name))
        clock = _Clock(self.progress, formats)
        seen: set[str] = set()
        if not formats:  # the merge expects a part of each kind
            self._open_parts()
            self._close_parts()
        for index, (file, format) in enumerate(formats):
            self._open_parts()
            before = self.n_read, self.n_rejected
            try:
                if format is None:
                    self._reject(file, (_unknown(file),))
                elif file.sha256 not in seen:
                    self._surveys.append(survey(file, format))
                    self.owners_of[file.name] = set()
                    with closing(bounded(format.read(file))) as batches:
                        for batch in batches:
                            self._take(index, file, format, batch)
                            clock.tick(index, self.n_read, batch.bytes_read)
            finally:
                self._close_parts()
            seen.add(file.sha256)
            name = format.name if format else "unknown"
            self._files.append((file, name, self.n_read - before[0], self.n_rejected - before[1]))
            clock.end(index, self.n_read)
        if self._erased_names:
            self._redact()

    def _redact(self) -> None:
        """Replace the names of the erased in all that is staged: only the end of the last file has told all of them.

        Staged texts are read twice more and written once more, a row group at a time; where none of the erased was
        found, not at all. There no other name is looked for either: most people are called as somebody else is.
        """
        parts = sorted(self.stage.glob("messages-*.parquet"))
        for part in parts:
            for frame in row_groups(part):
                self._erased_names |= self._known.found_in(frame["text"])
        redaction = Redaction(self._erased_names)
        for part in parts:
            redacted = Part(part.with_suffix(".redacted"), PARTS["messages"])
            for frame in row_groups(part):
                redacted.append(fingerprints(frame.with_columns(redaction.texts(frame["text"]))))
            redacted.close()
            part.with_suffix(".redacted").replace(part)

    def _open_parts(self) -> None:
        number, self._n_parts = self._n_parts, self._n_parts + 1
        self._parts = {kind: Part(self.stage / f"{kind}-{number:06}.parquet", schema) for kind, schema in PARTS.items()}

    def _close_parts(self) -> None:
        for part in self._parts.values():
            part.close()

    def _take(self, index: int, file: RawFile, format: Format, batch: Batch) -> None:
        if max(part.frames for part in self._parts.values()) >= _MOST_FRAMES:
            self._close_parts()
            self._open_parts()
        self._reject(file, batch.rejected)
        messages, names = batch.messages, batch.names
        self.n_read += messages.height + sum(batch.skipped.values())
        for reason, n in batch.skipped.items():
            self._drop(index, reason, n)
        if not format.is_public:
            accounts = messages.filter("is_owner")["native_author"].drop_nulls().unique()
            self.owners_of[file.name].update(self._normaliser.author(format.platform, account) for account in accounts)
        if self._erased:
            messages, names = self._without_erased(index, format, messages, names)
        if self._horizons:
            n_before = messages.height
            messages = messages.filter(~self._horizons.past("messages", "created_at"))
            self._drop(index, "past_retention", n_before - messages.height)
        owned = messages.filter("is_owner")
        if owned.height:
            self._threads.setdefault(format.platform, set()).update(owned["native_thread"].unique())
            accounts = owned["native_author"].drop_nulls().unique()
            self.owners.update(self._normaliser.author(format.platform, account) for account in accounts)
        if format.is_public and self.owners:
            wanted = self._threads.get(format.platform, set())
            inside = pl.col("native_thread").is_in(list(wanted))
            n_before = messages.height
            messages, names = messages.filter(inside), names.filter(inside)
            self._drop(index, "not_in_contributor_thread", n_before - messages.height)
        staged = self._normaliser.messages(messages, format.platform)
        n_before = staged.height
        staged = staged.filter(pl.col("role") != "bot")
        self._drop(index, "bot", n_before - staged.height)
        seq = pl.int_range(self.n_staged, self.n_staged + staged.height, dtype=pl.Int64)
        self._parts["messages"].append(fingerprints(staged).with_columns(seq=seq, part=pl.lit(index, pl.Int32)))
        self._parts["names"].append(self._normaliser.participants(names, format.platform))
        self.n_staged += staged.height
        pa.default_memory_pool().release_unused()  # malloc's, which keeps what long texts leave

    def _without_erased(
        self, index: int, format: Format, messages: pl.DataFrame, names: pl.DataFrame
    ) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Messages and names of a batch without those of the erased; nothing of a batch of their own export."""
        accounts = pl.concat([messages["native_author"], names["native_author"]]).drop_nulls().unique().sort()
        gone = [account for account in accounts if self._normaliser.author(format.platform, account) in self._erased]
        theirs = pl.col("native_author").is_in(pl.Series(gone, dtype=pl.String).implode()).fill_null(False)
        self._erased_names.update(names.filter(theirs).select("name", "name_kind").iter_rows())
        self._erased_names.update((account, "native_id") for account in gone)
        if messages.filter(theirs & pl.col("is_owner")).height:
            self._drop(index, "erased", messages.height)
            return messages.clear(), names.clear()
        self._drop(index, "erased", messages.filter(theirs).height)
        return messages.filter(~theirs), names.filter(~theirs)

    def _drop(self, index: int, reason: str, n: int) -> None:
        if n:
            self._dropped[index, reason] += n

    def _reject(self, file: RawFile, rejected: tuple[Rejected, ...]) -> None:
        self.n_rejected += len(rejected)
        rows = [(self.datadao, file.name, file.sha256, r.member, r.location, r.reason, r.detail) for r in rejected]
        self._parts["rejected"].append(pl.DataFrame(rows, schema=REJECTED_RECORDS.schema, orient="row"))

    def dropped(self, merged: pl.DataFrame) -> pl.DataFrame:
        """DROPPED_MESSAGES: what was dropped while reading, and `merged` (part, reason, n) after it."""
        early = [(part, reason, n) for (part, reason), n in self._dropped.items()]
        schema = pl.Schema({"part": pl.Int64(), "reason": pl.String(), "n": pl.Int64()})
        counts = pl.concat([pl.DataFrame(early, schema=schema, orient="row"), merged.cast(schema)])
        hashes = pl.Series([file.sha256 for file, *_ in self._files], dtype=pl.String)
        counts = counts.with_columns(raw_sha256=hashes.gather(counts["part"]), datadao=pl.lit(self.datadao))
        return DROPPED_MESSAGES.conform(counts.group_by("datadao", "raw_sha256", "reason").agg(pl.col("n").sum())).sort(
            "raw_sha256", "reason"
        )

    def raw_files(self) -> pl.DataFrame:
        """RAW_FILES of this reading."""
        rows = [
            (self.datadao, file.sha256, file.name, file.size, name, n_read, n_rejected)
            for file, name, n_read, n_rejected in self._files
        ]
        return pl.DataFrame(rows, schema=RAW_FILES.schema, orient="row")

    def stats(self) -> dict[str, float | int | str]:
        """n_files, n_read, n_rejected; known fields and files that the raw files have and nobody reads, and the most
        unknown ones of any of them (exports.minimisation)."""
        return {
            "n_files": len(self._files),
            "n_read": self.n_read,
            "n_rejected": self.n_rejected,
            "known_fields_not_read": len({name for found in self._surveys for name in found.known}),
            "unknown_fields_not_read": max((found.n_unknown for found in self._surveys), default=0),
        }


def _unknown(file: RawFile) -> Rejected:
    if isinstance(file, ForeignLink):
        return Rejected("", 0, "foreign_link", "a link that `real` did not make is not followed")
    try:
        file.open().close()
    except NotOurs:
        return Rejected("", 0, "foreign_seal", "sealed by somebody else, or with another key store than this one")
    return Rejected("", 0, "unknown_format", "no reader knows this file")


class _Clock:
    """Turns bytes read into progress with the seconds left."""

    def __init__(self, progress: Progress, formats: list[tuple[RawFile, Format | None]]) -> None:
        self._progress = progress
        sizes = [file.size for file, _ in formats]
        self._ends = [sum(sizes[: index + 1]) for index in range(len(sizes))]
        self._done = 0
        self._start = time.monotonic()

    def tick(self, index: int, rows: int, n_bytes: int) -> None:
        """A batch was read."""
        self._done = min(self._done + n_bytes, self._ends[index])
        self._report(index, rows)

    def end(self, index: int, rows: int) -> None:
        """A file was read to its end."""
        self._done = self._ends[index]
        self._report(index, rows)

    def _report(self, index: int, rows: int) -> None:
        seconds, total = time.monotonic() - self._start, self._ends[-1]
        left = seconds * (total - self._done) / self._done if self._done else None
        self._progress(
            "read",
            {
                "file": index + 1, "files": len(self._ends), "rows": rows, "bytes": self._done,
                "bytes_total": total, "seconds": round(seconds, 1),
                "seconds_left": None if left is None else round(left, 1),
            },
        )  # fmt: skip
