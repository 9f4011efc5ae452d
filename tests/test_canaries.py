"""The scanner of leak tests sees what is there: a canary planted in each format and each way of writing it (F1)."""

import base64
import gzip
import io
import json
import sqlite3
import sys
import zipfile

import duckdb
import lance
import lmdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from user_embeddings_dagster.privacy.audit.canaries import Search, forms, scan

CANARY = 'Mirabelle "Süßkirsche" Quark-93'
PLAIN = "mirabelle-quark-93"
FILLER = ["the weather is mild and the trains are late again"] * 2000


def _parquet(path):
    people = [{"name": "nobody", "said": ["nothing"]}] * 2000 + [{"name": "x", "said": [f"a {PLAIN} z"]}]
    pq.write_table(pa.table({"text": [*FILLER, "end"], "people": people}), path, compression="zstd")


def _parquet_dictionary(path):
    texts = pa.array([*FILLER, PLAIN]).dictionary_encode()
    pq.write_table(pa.table({"text": texts}), path, compression="brotli")


def _parquet_map(path):
    told = pa.array([[("key", f"a {PLAIN} z")]] * 100, pa.map_(pa.string(), pa.string()))
    pq.write_table(pa.table({"told": told}), path, compression="gzip", use_dictionary=False, write_statistics=False)


def _arrow(path):
    table = pa.table({"text": pa.array([*FILLER, PLAIN], pa.string_view())})
    with pa.ipc.new_file(path, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)


def _lance(path):
    lance.write_dataset(pa.table({"text": [*FILLER, *[f"{PLAIN} {i}" for i in range(50)]]}), path.with_suffix(".lance"))


def _duckdb(path):
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE SCHEMA s")
        connection.execute('CREATE TABLE s."odd name" AS SELECT i, ? || i::VARCHAR AS t FROM range(5000) r(i)', [PLAIN])


def _sqlite(path):
    connection = sqlite3.connect(path)
    connection.execute('CREATE TABLE "odd "" name" (value BLOB)')
    connection.execute('INSERT INTO "odd "" name" VALUES (?)', (gzip.compress(f"a {PLAIN} z".encode()),))
    connection.commit()
    connection.close()


def _sqlite_log(path):
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (value BLOB)")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("INSERT INTO t VALUES (?)", (zstandard.compress(PLAIN.encode()),))
    OPEN.append(connection)  # closing would move the row from the log to the file


OPEN = []


def _lmdb(path):
    with lmdb.open(str(path), max_dbs=2) as store:
        inner = store.open_db(b"inner")
        with store.begin(write=True) as transaction:
            transaction.put(b"key", b"value")
            transaction.put(b"key", gzip.compress(PLAIN.encode()), db=inner)


def _zip_of_gzip_of_parquet(path):
    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": [*FILLER, PLAIN]}), buffer, compression="zstd")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.bin", gzip.compress(buffer.getvalue()))


def _name_in_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{PLAIN}.txt", b"nothing")


def _zstd_of_two_frames(path):
    path.write_bytes(zstandard.compress(b"first frame " * 100) + zstandard.compress(PLAIN.encode()))


def _gzip(path):
    path.write_bytes(gzip.compress(" ".join([*FILLER, PLAIN]).encode()))


FORMATS = [
    _parquet, _parquet_dictionary, _parquet_map, _arrow, _lance, _duckdb, _sqlite, _sqlite_log, _lmdb,
    _zip_of_gzip_of_parquet, _name_in_zip, _zstd_of_two_frames, _gzip,
]  # fmt: skip


def _named(plant):
    return plant.__name__.strip("_")


@pytest.mark.parametrize("plant", FORMATS, ids=_named)
def test_a_canary_is_found_in_every_format(plant, tmp_path):
    plant(tmp_path / "planted")
    result = scan(tmp_path, [PLAIN, "not planted anywhere"])
    OPEN.clear()
    assert result.canaries == {PLAIN} and not result.undecoded


@pytest.mark.parametrize("plant", [_parquet_map, _arrow, _lmdb, _sqlite, _gzip], ids=_named)
def test_a_search_of_the_bytes_alone_would_miss_it(plant, tmp_path):
    """Why files are decoded: compressed columns hide text from grep."""
    plant(tmp_path / "planted")
    stored = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert not Search([PLAIN]).count(stored)
    assert scan(tmp_path, [PLAIN]).hits


def _base64_at(before):
    return lambda text: base64.b64encode(b"x" * before + text.encode() + b"after")


WRITTEN = {
    "verbatim": str.encode,
    "upper": lambda text: text.upper().encode(),
    "lower": lambda text: text.lower().encode(),
    "mixed": lambda text: text.swapcase().encode(),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "hex": lambda text: text.encode().hex().encode(),
    "hex upper": lambda text: text.encode().hex().upper().encode(),
    "base64 0": _base64_at(0),
    "base64 1": _base64_at(1),
    "base64 2": _base64_at(2),
    "base64 of utf-16": lambda text: base64.b64encode(b"x" + text.encode("utf-16-le")),
    "base64 url": lambda text: base64.urlsafe_b64encode(text.encode()),
    "json": lambda text: json.dumps({"text": text}).encode(),
    "json in json in a log": lambda text: b"12:00 INFO got " + json.dumps(json.dumps({"t": text})).encode() + b" end",
    "json utf-8": lambda text: json.dumps([text], ensure_ascii=False).encode(),
    "python bytes": lambda text: repr(text.encode()).encode(),
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("canary", [CANARY, PLAIN, "яблоко из сада", "苹果和樱桃🍎", "??>>~~ÿÿÿÿ??>>"])
def test_a_canary_is_found_however_it_is_written(written, canary, tmp_path):
    (tmp_path / "file").write_bytes(b"\xff\x00 some bytes " + WRITTEN[written](canary) + b" and more \x80")
    assert scan(tmp_path, [canary]).canaries == {canary}


def test_names_of_files_and_folders_are_contents(tmp_path):
    (tmp_path / PLAIN).mkdir()
    (tmp_path / PLAIN / "empty").touch()
    [hit] = scan(tmp_path, [PLAIN]).hits
    assert (hit.read_as, hit.count) == ("name", 1)


def test_hits_are_counted_by_file(tmp_path):
    (tmp_path / "a").write_text(f"{PLAIN} {PLAIN}")
    (tmp_path / "b").write_text("nothing")
    (tmp_path / "c").write_text(PLAIN + CANARY)
    result = scan(tmp_path, [PLAIN, CANARY])
    assert result.by_file == {"a": 2, "c": 2} and result.files == 3 and result.canaries == {PLAIN, CANARY}


def test_nothing_is_found_where_nothing_is(tmp_path):
    for plant in FORMATS:
        folder = tmp_path / plant.__name__
        folder.mkdir()
        plant(folder / "planted")
    (tmp_path / "random").write_bytes(zstandard.compress(json.dumps(FILLER).encode()) * 50)
    result = scan(tmp_path, ["plum-pudding-17", "Zwetschge Nr. 5"])
    OPEN.clear()
    assert not result.hits and not result.undecoded and result.files > len(FORMATS)


def test_an_encrypted_answer_that_begins_as_gzip_does_is_bytes(tmp_path):
    """One of 65,536 has its first two bytes: the cells behind it were not looked at."""
    with sqlite3.connect(tmp_path / "answers.sqlite") as store:
        store.execute("CREATE TABLE answers (value BLOB)")
        cells = [b"\x1f\x8b\x17" + bytes(range(200)), gzip.compress(f"a {PLAIN} z".encode())]
        store.executemany("INSERT INTO answers VALUES (?)", [(cell,) for cell in cells])
    store.close()
    found = scan(tmp_path, [PLAIN])
    assert not found.undecoded and found.canaries == {PLAIN}


@pytest.mark.parametrize("plant", [_parquet, _gzip, _duckdb, _sqlite], ids=_named)
def test_a_file_that_cannot_be_decoded_is_reported(plant, tmp_path):
    """No silent pass: what a damaged container hides is unknown."""
    plant(tmp_path / "planted")
    content = (tmp_path / "planted").read_bytes()
    (tmp_path / "planted").write_bytes(content[: len(content) // 2])
    [named] = scan(tmp_path, [PLAIN]).undecoded
    assert named.startswith("planted (")


def test_without_lmdb_what_cannot_be_decoded_is_reported_too(tmp_path, monkeypatch):
    """It is an extra."""
    (tmp_path / "truncated.zip").write_bytes(b"PK\x03\x04 and no more")
    _lmdb(tmp_path / "store")
    monkeypatch.setitem(sys.modules, "lmdb", None)
    found = scan(tmp_path, [PLAIN]).undecoded
    assert sorted(found) == ["store/data.mdb (lmdb: not installed)", "truncated.zip (zip: BadZipFile)"]


def test_a_canary_too_short_to_tell_is_refused():
    with pytest.raises(ValueError, match="needs 8"):
        forms("short")
