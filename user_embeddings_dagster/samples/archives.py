"""Deterministic containers: zips with fixed times, zstd frames with the 2^31 window of the monthly dumps, bzip2."""

import bz2
import csv
import io
import json
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import zstandard

_ZIP_TIME = (2024, 9, 2, 8, 0, 0)
_WINDOW_LOG = 31


def write(path: Path, data: bytes) -> None:
    """Write `data` at `path` through a temporary file; an identical file is left alone."""
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(data)
    temporary.replace(path)


def zipped(members: Mapping[str, str]) -> bytes:
    """A deflated zip of text members, in the given order."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, text in members.items():
            info = zipfile.ZipInfo(name, _ZIP_TIME)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, text.encode(), compresslevel=6)
    return buffer.getvalue()


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV with Reddit's line ends."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\r\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()


def dump(lines: Sequence[str], path: Path) -> None:
    """NDJSON `lines` (already joined with their line ends) as .zst with a 2^31 window, or .bz2 by the path's suffix."""
    data = "".join(lines).encode()
    if path.suffix == ".bz2":
        write(path, bz2.compress(data, 9))
        return
    parameters = zstandard.ZstdCompressionParameters.from_level(
        3, window_log=_WINDOW_LOG, hash_log=17, chain_log=17, write_content_size=False
    )
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    write(path, compressor.compress(data) + compressor.flush())


def compact(record: Mapping[str, Any]) -> str:
    """One NDJSON line as the dumps write it: no spaces, slashes escaped in some years, non-ASCII as it is."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n"
