"""The set work of the messages table: merging copies, dropping duplicates and empties, naming subjects.

DuckDB does it out of core, on everything but texts: fingerprints stand for them, and a number for the message whose
text it is. At the end texts and the other columns pass by in no order, and `ordering` puts them in theirs.
"""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from user_embeddings_dagster.exports import merge_sql as sql
from user_embeddings_dagster.exports.ordering import PLACE, Placed, row_group_places, to_arrow, to_numpy
from user_embeddings_dagster.exports.staging import write_sorted
from user_embeddings_dagster.schema import MESSAGES, PARTICIPANTS, REJECTED_RECORDS

_BATCH = 8_192  # rows that leave DuckDB at a time

TooLittleMemory = duckdb.OutOfMemoryException


def memory_for(rows: int) -> int:
    """MB of DuckDB's share for so many messages of few copies; what it cannot hold it spills below the lake.

    Too little, and it fails. With one thread .6 million messages with as many names were merged in 32 MB, not in 28;
    two million in 36. Where it is too little for more of them, the merge is begun again with twice as much.
    """
    return min(31 + rows * 3 // 1_000_000, 600)


def most_memory() -> int:
    """MB of half this machine's memory: what DuckDB may have at most."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2_000_000


class Merge:
    """One DataDAO's staged parts (`messages-*`, `names-*`, `rejected-*`) becoming tables.

    DuckDB has one thread, as each holds a piece of every sorted run: a whole build takes 6 to 15% longer than with two.
    """

    def __init__(self, folder: Path, owners: pl.Series, memory: int) -> None:
        self._folder = folder
        self._duckdb = duckdb.connect(
            config={
                "memory_limit": f"{memory}MB",
                "threads": 1,
                "temp_directory": str(folder / "spill"),
                "autoinstall_known_extensions": False,
                "preserve_insertion_order": False,
                "enable_external_file_cache": False,
            }
        )
        self._duckdb.execute("SET max_streaming_buffer_size = '1MB'")  # before rows leave it
        self._staged("messages").project("* EXCLUDE (text), seq AS text_seq").create_view("staged")
        self._staged("names").create_view("names")
        self._staged("rejected").create_view("rejected")
        self._duckdb.register("owners", pl.DataFrame({"author_id": owners}).to_arrow())

    def _staged(self, kind: str) -> duckdb.DuckDBPyRelation:
        return self._duckdb.read_parquet(str(self._folder / f"{kind}-*.parquet"))

    def decide(self) -> pl.DataFrame:
        """Merge copies and choose what is dropped: columns part, reason, n."""
        self._duckdb.execute(sql.PLACES)
        self._duckdb.execute(sql.COPIES)
        self._duckdb.execute(sql.CONVERSATIONS)
        self._duckdb.execute(sql.EMPTY_AND_DUPLICATES)
        counts = self._duckdb.sql("SELECT part, reason, count(*) AS n FROM dropped GROUP BY ALL ORDER BY ALL")
        return pl.DataFrame(counts.to_arrow_table())

    def write_participants(self, path: Path) -> int:
        """The rows of PARTICIPANTS in the threads of messages that are kept, by primary key; returns how many."""
        self._duckdb.execute(sql.KEPT)
        return write_sorted(self._stream(sql.PARTICIPANTS), path, PARTICIPANTS.schema)

    def write_rejected(self, path: Path) -> int:
        """The rows of REJECTED_RECORDS by primary key; returns how many."""
        return write_sorted(self._stream(sql.REJECTED), path, REJECTED_RECORDS.schema)

    def messages(self) -> Placed:
        """The rows of MESSAGES, to be written by thread, time and id; the last that can be asked of this: it is closed.

        In memory are 4 bytes a message: its place in that order.
        """
        (staged,) = self._duckdb.sql("SELECT count(*) FROM staged").fetchall()[0]
        places = np.full(staged, -1, np.int32)
        elsewhere: list[np.ndarray] = []  # pairs of a message and the one whose text it has
        groups = row_group_places(self._in_order(places, elsewhere))
        placed = Placed(groups, MESSAGES.schema, self._folder)
        placed.put(_placed(self._stream(sql.MESSAGES), places), [name for name in MESSAGES.schema if name != "text"])
        self.close()  # whose memory the texts need
        for message, of_text in elsewhere:
            places[of_text], places[message] = places[message], -1
        placed.put(_placed(self._texts(), places), ["text"])
        return placed

    def _in_order(self, places: np.ndarray, elsewhere: list[np.ndarray]) -> Iterator[np.ndarray]:
        """Bytes of each text in the order of the messages, whose place is set in `places` by their seq."""
        kept = 0
        for batch in self._stream(sql.ORDER):
            message, of_text = to_numpy(batch["seq"]), to_numpy(batch["text_seq"])
            places[message] = np.arange(kept, kept + batch.num_rows)
            kept += batch.num_rows
            if (differs := message != of_text).any():
                elsewhere.append(np.stack([message[differs], of_text[differs]]))
            yield to_numpy(batch["n_bytes"])

    def _texts(self) -> Iterator[pa.RecordBatch]:
        """Number and text of all that is staged."""
        for file in sorted(self._folder.glob("messages-*.parquet")):
            with pq.ParquetFile(file, pre_buffer=False) as part:
                for number in range(part.num_row_groups):
                    yield from part.iter_batches(1_024, [number], ["seq", "text"], use_threads=False)

    def _stream(self, query: str) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._duckdb.sql(query).to_arrow_reader(_BATCH)
        except OSError as error:  # which Arrow makes of what DuckDB raises after the first rows
            raise TooLittleMemory(str(error)) if "Out of Memory Error" in str(error) else error from None

    def close(self) -> None:
        """Free memory and spill files."""
        self._duckdb.close()


def _placed(batches: Iterable[pa.RecordBatch], places: np.ndarray) -> Iterator[pa.RecordBatch]:
    """The rows that have a place, with it."""
    for batch in batches:
        place = places[to_numpy(batch["seq"])]
        placed = batch.append_column(PLACE, to_arrow(place))
        yield placed if place.min(initial=0) >= 0 else placed.filter(to_arrow(place >= 0))
