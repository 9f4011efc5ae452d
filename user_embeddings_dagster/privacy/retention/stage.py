"""What a purge asks of each stage: what of it is past its window, and to remove that."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import msgspec

from user_embeddings_dagster.privacy.retention.windows import Horizons
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables


class Found(msgspec.Struct):
    """What a stage holds: `items` past the window (content id to bytes), how many it keeps and since when.

    An id begins with its DataDAO where there is one. `users`: of whose rows some go, `<DataDAO>/<user_id>`.
    """

    items: dict[str, int] = {}
    users: list[str] = []
    kept: int = 0
    oldest_kept: datetime | None = None

    def keep(self, n: int, oldest: datetime | None) -> None:
        """Count what stays."""
        self.kept += n
        if oldest is not None:
            self.oldest_kept = oldest if self.oldest_kept is None else min(self.oldest_kept, oldest)

    def of(self, datadao: str) -> list[str]:
        """Ids of one DataDAO, without its name."""
        return [name.partition("/")[2] for name in self.items if name.partition("/")[0] == datadao]

    def users_of(self, datadao: str) -> set[str]:
        """Users of one DataDAO."""
        return {name.partition("/")[2] for name in self.users if name.partition("/")[0] == datadao}

    @property
    def datadaos(self) -> list[str]:
        """Those that some item is of, sorted."""
        return sorted({name.partition("/")[0] for name in self.items})


@dataclass
class Sweep:
    """One purge: where, up to when by stage, and what was found in the stages before the present one."""

    layout: Layout
    at: dict[str, datetime]
    found: dict[str, Found]

    @property
    def horizons(self) -> Horizons:
        """As readers ask for them."""
        return Horizons(self.at)

    @property
    def lake(self) -> Lake:
        """The tables."""
        return Lake(self.layout.root)

    @property
    def lance(self) -> LanceTables:
        """The vectors."""
        return LanceTables(self.layout.lancedb)

    def files(self, stage: str, paths: Iterable[Path], aged: str = "") -> Found:
        """Files or folders below the data root, by when they, or what they have under the name `aged`, were last
        changed."""
        found = Found()
        for path in paths:
            changed, size = modified(path / aged), size_of(path)
            if stage in self.at and changed < self.at[stage]:
                found.items[path.relative_to(self.layout.root).as_posix()] = size
            else:
                found.keep(1, changed)
        return found


class Stage(Protocol):
    """One stage. `find` changes nothing; `remove` can be repeated, and finishes what a killed process began."""

    name: str

    def find(self, sweep: Sweep) -> Found:
        """What is past the window."""
        ...

    def remove(self, sweep: Sweep, found: Found) -> None:
        """Remove it, so that no byte of it stays."""
        ...


def modified(path: Path) -> datetime:
    """When a file, or the newest file of a folder, was last changed."""
    inside = [part.lstat().st_mtime for part in path.rglob("*") if part.is_file()] if path.is_dir() else []
    return datetime.fromtimestamp(max(inside, default=path.lstat().st_mtime), UTC)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    parts = path.rglob("*") if path.is_dir() else [path]
    return sum(part.lstat().st_size for part in parts if part.is_file())
