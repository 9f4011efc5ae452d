"""A SHA-256 manifest beside every artifact, because a flipped bit in a checkpoint loads without an error.

`finalise` hashes and syncs every file of a folder and writes `manifest.json` last, atomically; `verify`
raises on any file that is missing, added, cut or changed since. Needs no torch: the domain verifies models
that it never loads.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from user_embeddings_dagster.keys import file_sha256
from user_embeddings_dagster.storage.durability import sync, write_json

MANIFEST = "manifest.json"
# What a loader could execute: pickles under their usual names, and code.
EXECUTABLE = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".py", ".pyc", ".so"}

_PINNED = re.compile(r"([\w.-]+(?:/[\w.-]+)?)@([0-9a-f]{40})")


class CorruptArtifact(Exception):
    """A folder's files are not those that its manifest lists. The message names no content."""


def _files(folder: Path) -> dict[str, Path]:
    """Every file below `folder` but the manifest, by POSIX path relative to it, sorted."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    found.pop(MANIFEST, None)
    return dict(sorted(found.items()))


def finalise(folder: Path) -> str:
    """Write `manifest.json` over all files of `folder` (recursive), sync all; returns the content hash."""
    folder = Path(folder)
    entries: dict[str, Any] = {}
    for name, path in _files(folder).items():
        sync(path)
        entries[name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    for directory in sorted((p for p in folder.rglob("*") if p.is_dir()), reverse=True):
        sync(directory)
    write_json(folder / MANIFEST, {"files": entries})
    return _content_hash(entries)


def verify(folder: Path, others: bool = False) -> str:
    """Check every file against the manifest; returns the content hash. Raises CorruptArtifact.

    `others`: files that the manifest does not list may lie there too, such as Python's caches of an export's code.
    """
    folder = Path(folder)
    try:
        entries = json.loads((folder / MANIFEST).read_bytes())["files"]
        listed = {name: (entry["bytes"], entry["sha256"]) for name, entry in entries.items()}
    except FileNotFoundError:
        raise CorruptArtifact(f"{folder}: no {MANIFEST} (not finished, or not an artifact)") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CorruptArtifact(f"{folder}/{MANIFEST}: not a manifest") from None
    present = _files(folder)
    if missing := sorted(listed.keys() - present.keys()):
        raise CorruptArtifact(f"{folder}: missing {missing}")
    if not others and (added := sorted(present.keys() - listed.keys())):
        raise CorruptArtifact(f"{folder}: not in the manifest: {added}")
    for name, (size, digest) in listed.items():
        actual = present[name].stat().st_size
        if actual != size:
            raise CorruptArtifact(f"{folder}/{name}: {actual} bytes, the manifest says {size}")
        if file_sha256(present[name]) != digest:
            raise CorruptArtifact(f"{folder}/{name}: its bytes are not those of the manifest (sha256 differs)")
    return _content_hash(entries)


def refuse_code(folder: Path) -> None:
    """Raise CorruptArtifact if a model's folder holds a pickle or code, listed or not: only safetensors are loaded.

    A pickle under the name of a safetensors file is one too.
    """
    for name, path in _files(Path(folder)).items():
        if path.suffix.lower() in EXECUTABLE:
            raise CorruptArtifact(f"{folder}/{name}: a pickle or code; models are safetensors and JSON alone")
        if path.suffix == ".safetensors" and not _is_safetensors(path):
            raise CorruptArtifact(f"{folder}/{name}: not a safetensors file")


def _is_safetensors(path: Path) -> bool:
    """Whether it begins as one: the length of a JSON object (8 bytes, little endian), then that."""
    with path.open("rb") as stream:
        head = stream.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= path.stat().st_size - 8


def write_sealed(path: Path, value: Any) -> None:
    """Write one JSON value with its SHA-256, whole or absent: for what lies beside an artifact and changes later."""
    write_json(path, {"sha256": _content_hash(value), "value": value})


def read_sealed(path: Path) -> Any:
    """The value of `write_sealed`. Raises CorruptArtifact if it is not what was written."""
    try:
        sealed = json.loads(path.read_bytes())
        if sealed["sha256"] == _content_hash(sealed["value"]) and len(sealed) == 2:
            return sealed["value"]
    except (ValueError, KeyError, TypeError):
        pass
    raise CorruptArtifact(f"{path}: its value is not the one whose sha256 it holds")


def _content_hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def pinned(model: str) -> tuple[str, str | None]:
    """Folder, or name and commit, of a model: a name alone may be another model tomorrow.

    A folder holds no pickles and no code, and is as its manifest.json says if it has one. Raises CorruptArtifact, and
    ValueError for a name without the 40 hexadecimal digits of a commit.
    """
    folder = Path(model)
    if folder.is_dir():
        refuse_code(folder)
        if (folder / MANIFEST).exists():
            verify(folder)
        return model, None
    if not (found := _PINNED.fullmatch(model)):
        raise ValueError(f"{model}: neither a folder nor name@commit, with the 40 digits of the commit")
    return found[1], found[2]
