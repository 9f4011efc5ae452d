"""What a disk that cannot be written is told as: one line with the path and the reason, in place of a traceback."""

import errno
import sqlite3
from pathlib import Path

from user_embeddings_dagster.storage.durability import scarce

_OF_DISKS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}
# Of SQLite's primary codes; its others are faults of the program, such as a table that is not there.
_OF_SQLITE = {
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}  # fmt: skip


def as_line(error: Exception, root: Path) -> str | None:
    """Path and reason of an error of the disk or of a database on it, with the data root where the error names no path;
    None for any other error."""
    from sqlalchemy.exc import OperationalError

    if isinstance(error, OperationalError) and isinstance(error.orig, Exception):
        if not isinstance(error.orig, sqlite3.Error):  # of a database elsewhere: its statement is left out
            return f"Dagster's storage: {str(error.orig).strip()}"
        error = error.orig
    if isinstance(error, sqlite3.OperationalError):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # absent where Python raised it
        full = code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and scarce(root / "dagster_home")
        return f"{root}: {error}{', no space left on the disk' * full}" if code in _OF_SQLITE else None
    if isinstance(error, OSError) and error.errno in _OF_DISKS:
        return f"{error.filename or root}: {error.strerror}"
    return None
