"""What the sample DataDAOs say about consent: grants of single contributors, or a statement for everybody."""

import json
from collections.abc import Sequence
from pathlib import Path

from user_embeddings_dagster.exports.landing import GRANTS, STATEMENT
from user_embeddings_dagster.samples import archives

EVERYTHING = "train evaluate serve compare"
_HEADER = ("grant_id", "account", "purposes", "granted_at", "expires_at", "revoked_at")
# Purposes, expiry and revocation of the last contributors of a DataDAO; the others grant everything.
_LAST = (
    (EVERYTHING, "", "2025-03-02T09:30:00Z"),
    (EVERYTHING, "2025-01-01T00:00:00Z", ""),
    ("evaluate serve", "", ""),
    ("serve", "", ""),
)


def grants(folder: Path, platform: str, accounts: Sequence[str]) -> Path:
    """consent.csv with one grant per account: all grant everything, but the last four."""
    rows = []
    for number, account in enumerate(accounts):
        purposes, expires, revoked = dict(enumerate(_LAST)).get(len(accounts) - 1 - number, (EVERYTHING, "", ""))
        named = f"{platform}-{number:04d}", f"{platform}:{account}"
        rows.append((*named, purposes, "2024-06-01T12:00:00Z", expires, revoked))
    path = folder / GRANTS
    archives.write(path, archives.csv_text(_HEADER, rows).replace("\r\n", "\n").encode())
    return path


def statement(folder: Path, basis: str, purposes: str = EVERYTHING) -> Path:
    """datadao.json that covers everybody without a grant of their own."""
    path = folder / STATEMENT
    content = {"consent": {"basis": basis, "purposes": purposes.split()}}
    archives.write(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
    return path
