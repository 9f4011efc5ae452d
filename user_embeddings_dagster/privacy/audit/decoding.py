"""The contents of a file as every reader of its format would see them: what compression hides from a byte search.

Parquet, Arrow IPC, Lance (data and index files), DuckDB, SQLite (with its log), LMDB, zip, gzip, Zstandard, each
also inside each other, and \\u escapes as JSON and logs have them. A format is known by its magic bytes, not its name.
"""

import gzip
import os
import re
import shutil
import sqlite3
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.sealed import SealedReader
from user_embeddings_dagster.privacy.sealed_format import Shredded, Tampered, is_sealed

View = tuple[str, bytes]
_LMDB_MAGIC = (0xBEEFC0DE).to_bytes(4, "little")
_ESCAPES = re.compile(rb'(?:\\u[0-9a-fA-F]{4})+|\\x[0-9a-fA-F]{2}|\\["\\/bfnrt]')
_SHORT = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t"}
_SHARED_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
_NESTED = 8  # containers in containers


class Undecoded(Exception):
    """A file that begins like a format and cannot be read as one: what it hides is unknown."""


def views(path: Path, keys: ContributorKeys | None = None) -> Iterator[View]:
    """(how it was read, bytes) of a file: as it is, then decoded. Raises Undecoded after what could be read.

    With `keys`, a sealed file is decoded too, in memory; one whose key was destroyed is bytes, as without `keys`.
    """
    if keys is not None and (opened := _unsealed(path, keys)) is not None:
        yield from _plain(path.read_bytes(), "")
        name, content = opened
        yield "sealed name", name
        with _in_memory(content) as clear:
            yield from _views(clear, "sealed", 1)
    else:
        yield from _views(path, "", 0)


def _unsealed(path: Path, keys: ContributorKeys) -> tuple[bytes, bytes] | None:
    """Name and content of a sealed file; None for any other, and for one that nobody can read any more."""
    if not is_sealed(path):
        return None
    try:
        with SealedReader(path, keys) as reader:
            return reader.name, reader.read()
    except Shredded:
        return None
    except Tampered as error:
        raise Undecoded(f"sealed: {error}") from None


@contextmanager
def _in_memory(content: bytes) -> Iterator[Path]:
    """A path that opens as a file of this content, which no disk holds."""
    descriptor = os.memfd_create("decoding")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            stream.write(content)
        yield Path(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


def _views(path: Path, read_as: str, depth: int) -> Iterator[View]:
    data = path.read_bytes()
    yield from _plain(data, read_as)
    kind = _kind(data)
    if kind is None:
        return
    if depth == _NESTED:
        raise Undecoded(f"{kind} in {_NESTED} containers")
    name = f"{read_as}/{kind}" if read_as else kind
    with tempfile.TemporaryDirectory(prefix="decoding-", dir=_SHARED_MEMORY if read_as else None) as folder:
        try:
            for cell in _DECODERS[kind](path, Path(folder)):
                if _kind(cell) is None:
                    yield from _plain(cell, name)
                else:
                    with _in_memory(cell) as inner:
                        yield from _views(inner, name, depth + 1)
        except _errors() as error:
            raise Undecoded(f"{kind}: {type(error).__name__}") from None


def _plain(data: bytes, read_as: str) -> Iterator[View]:
    yield read_as or "bytes", data
    for _ in range(3):  # JSON in JSON in a log
        unescaped = _ESCAPES.sub(_unescaped, data)
        if unescaped == data:
            return
        data = unescaped
        yield f"{read_as} unescaped".strip(), data


def _unescaped(match: re.Match[bytes]) -> bytes:
    escape = match.group()
    if escape.startswith(b"\\u"):
        codes = bytes.fromhex(escape.replace(b"\\u", b"").decode())
        return codes.decode("utf-16-be", "replace").encode()
    if escape.startswith(b"\\x"):
        return bytes.fromhex(escape[2:].decode())
    return _SHORT.get(escape[1:], escape[1:])


def _kind(data: bytes) -> str | None:
    begins = {
        b"PK\x03\x04": "zip",
        b"\x1f\x8b\x08": "gzip",  # RFC 1952: 8 is the one method; of two bytes alone encrypted answers begin too
        b"\x28\xb5\x2f\xfd": "zstd",
        b"PAR1": "parquet",
        b"ARROW1": "arrow",
        b"SQLite format 3\x00": "sqlite",
    }
    for magic, kind in begins.items():
        if data.startswith(magic):
            return kind
    if data[8:12] == b"DUCK":
        return "duckdb"
    if data[16:20] == _LMDB_MAGIC:
        return "lmdb"
    return "lance" if data.endswith(b"LANC") and not _is_manifest(data) else None


def _is_manifest(data: bytes) -> bool:
    """A Lance manifest, which compresses nothing: [length u32, protobuf], its position u64, version u32, magic."""
    position = int.from_bytes(data[-16:-8], "little")
    return position + 4 + int.from_bytes(data[position : position + 4], "little") + 16 == len(data)


def _zip(path: Path, folder: Path) -> Iterator[bytes]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            yield member.filename.encode() + b"\n" + member.comment
            yield archive.read(member)


def _gzip(path: Path, folder: Path) -> Iterator[bytes]:
    yield gzip.decompress(path.read_bytes())


def _zstd(path: Path, folder: Path) -> Iterator[bytes]:
    decoder = zstandard.ZstdDecompressor(max_window_size=1 << 31)  # Reddit dumps are written with `--long=31`
    with path.open("rb") as stream, decoder.stream_reader(stream, read_across_frames=True) as reader:
        yield reader.read()


def _parquet(path: Path, folder: Path) -> Iterator[bytes]:
    for batch in pq.ParquetFile(path).iter_batches():
        yield from _columns(batch)


def _arrow(path: Path, folder: Path) -> Iterator[bytes]:
    with pa.ipc.open_file(path) as reader:
        yield from _columns(reader.read_all())


def _lance(path: Path, folder: Path) -> Iterator[bytes]:
    from lance.file import LanceFileReader

    yield from _columns(LanceFileReader(str(path)).read_all().to_table())


def _columns(table: pa.Table | pa.RecordBatch) -> Iterator[bytes]:
    for column in table.columns:
        for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            yield from _cells(_leaves(chunk))


def _leaves(array: pa.Array) -> Iterator[bytes | str]:
    """Texts, bytes and raw floats of an array, however deep."""
    if isinstance(array, pa.ExtensionArray):
        yield from _leaves(array.storage)
    elif isinstance(array, pa.DictionaryArray):
        yield from _leaves(array.dictionary)
    elif isinstance(array, pa.StructArray):
        for field in array.flatten():
            yield from _leaves(field)
    elif isinstance(array, pa.MapArray):
        yield from chain(_leaves(array.keys), _leaves(array.items))
    elif pa.types.is_nested(array.type):
        yield from _leaves(array.flatten())
    elif pa.types.is_floating(array.type):  # a vector as its raw values, which Parquet compresses
        yield array.drop_null().to_numpy(zero_copy_only=False).tobytes()
    elif not pa.types.is_primitive(array.type) and not pa.types.is_null(array.type):
        yield from (cell for cell in array.to_pylist() if cell)


def _cells(values: Iterable[Any]) -> Iterator[bytes]:
    """Texts of the values in one piece, and by themselves the blobs that are a format of their own."""
    together = []
    for value in values:
        raw = value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
        if _kind(raw) is None:
            together.append(raw)
        else:
            yield raw
    yield b"\n".join(together)


def _sqlite(path: Path, folder: Path) -> Iterator[bytes]:
    copy = _copied(path, folder, "-wal")
    connection = sqlite3.connect(copy)
    connection.text_factory = bytes
    try:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            rows = connection.execute("SELECT * FROM " + _quoted(table.decode()))
            yield from _cells(value for row in rows for value in row if value)
    finally:
        connection.close()


def _duckdb(path: Path, folder: Path) -> Iterator[bytes]:
    connection = duckdb.connect(str(_copied(path, folder, ".wal")))
    try:
        for schema, table in connection.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall():
            yield from _columns(connection.sql(f"SELECT * FROM {_quoted(schema)}.{_quoted(table)}").to_arrow_table())
    finally:
        connection.close()


def _lmdb(path: Path, folder: Path) -> Iterator[bytes]:
    try:
        import lmdb
    except ImportError:  # an extra
        raise Undecoded("lmdb: not installed") from None
    copy = folder / "data.mdb"
    shutil.copyfile(path, copy)
    with lmdb.open(str(folder), readonly=True, lock=False, max_dbs=64, map_size=max(path.stat().st_size, 1)) as store:
        with store.begin() as transaction:
            main = list(transaction.cursor())
        yield from _cells(part for pair in main for part in pair)
        for name, _ in main:
            try:
                database = store.open_db(name, create=False)
            except lmdb.Error:  # an entry, no database
                continue
            with store.begin(db=database) as transaction:
                yield from _cells(part for pair in transaction.cursor() for part in pair)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _copied(path: Path, folder: Path, log: str) -> Path:
    """A copy with its write-ahead log, so that reading changes nothing of the original."""
    copy = folder / "copy"
    shutil.copyfile(path, copy)
    if (beside := path.with_name(path.name + log)).exists():
        shutil.copyfile(beside, copy.with_name(copy.name + log))
    return copy


def _errors() -> tuple[type[Exception], ...]:
    libraries = (sqlite3.Error, duckdb.Error, pa.ArrowException, zstandard.ZstdError, zlib.error)
    known = (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, *libraries)
    try:
        import lmdb
    except ImportError:
        return known
    return (*known, lmdb.Error)


_DECODERS: dict[str, Callable[[Path, Path], Iterator[bytes]]] = {
    "zip": _zip,
    "gzip": _gzip,
    "zstd": _zstd,
    "parquet": _parquet,
    "arrow": _arrow,
    "lance": _lance,
    "sqlite": _sqlite,
    "duckdb": _duckdb,
    "lmdb": _lmdb,
}
