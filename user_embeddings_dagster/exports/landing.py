"""The landing folder: one folder per DataDAO, into which contributors' exports are dropped."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
LINKS = "contributors.csv"


@dataclass(frozen=True)
class Drop:
    """What lies in one DataDAO's landing folder. `signature` changes when a file is added, changed or removed."""

    datadao: str
    n_files: int
    n_bytes: int
    newest: float  # modification time of the newest file, seconds since the epoch
    signature: str


def raw_paths(folder: Path) -> list[Path]:
    """Every file below a DataDAO's folder, in the order of their names; hidden files are left out."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def scan(landing: Path) -> tuple[list[Drop], int]:
    """The drops below `landing`, and how many folders were passed over because their name is no slug.

    Sizes and times are compared, not contents: a scan of a large bucket must stay cheap. Reading hashes contents.
    """
    drops, unnamed = [], 0
    for folder in sorted(path for path in landing.glob("*") if path.is_dir()):
        if not SLUG.fullmatch(folder.name):
            unnamed += 1
            continue
        entries = [(str(path.relative_to(folder)), path.stat()) for path in raw_paths(folder)]
        if not entries:
            continue
        listing = "\n".join(f"{name}\t{stat.st_size}\t{stat.st_mtime_ns}" for name, stat in entries)
        drops.append(
            Drop(
                folder.name,
                len(entries),
                sum(stat.st_size for _, stat in entries),
                max(stat.st_mtime for _, stat in entries),
                hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()[:32],
            )
        )
    return drops, unnamed
