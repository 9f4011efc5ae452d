"""A SHA-256 manifest beside every artifact, because a flipped bit in a checkpoint loads without an error.

`finalise` hashes and syncs every file of a folder and writes `manifest.json` last, atomically; `verify`
raises on any file that is missing, added, cut or changed since. Needs no torch: the domain verifies models
that it never loads.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from user_embeddings_dagster.keys import file_sha256
from user_embeddings_dagster.storage.lake import sync, write_json

MANIFEST = "manifest.json"


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


def verify(folder: Path) -> str:
    """Check every file against the manifest; returns the content hash. Raises CorruptArtifact."""
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
    if added := sorted(present.keys() - listed.keys()):
        raise CorruptArtifact(f"{folder}: not in the manifest: {added}")
    for name, (size, digest) in listed.items():
        actual = present[name].stat().st_size
        if actual != size:
            raise CorruptArtifact(f"{folder}/{name}: {actual} bytes, the manifest says {size}")
        if file_sha256(present[name]) != digest:
            raise CorruptArtifact(f"{folder}/{name}: its bytes are not those of the manifest (sha256 differs)")
    return _content_hash(entries)


def _content_hash(entries: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()
