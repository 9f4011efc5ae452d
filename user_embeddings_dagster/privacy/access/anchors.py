"""What may be made permanent: where the log stood and commitments to embeddings; never a vector, a text or an id (C18).

A commitment is HMAC-SHA-256 of a row under a random salt of the person and DataDAO, kept in the whitelist's file. Who
holds the salt can show later which row was meant; once it is destroyed, by removal or erasure, a commitment is noise.
"""

import hmac
from collections.abc import Sequence

import msgspec

from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.privacy.access.embeddings import TABLE, UserEmbedding
from user_embeddings_dagster.privacy.access.log import AccessLog, Head
from user_embeddings_dagster.privacy.access.whitelist import Whitelist
from user_embeddings_dagster.privacy.tombstones import erasure_id
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lance_tables import LanceTables


class Anchor(msgspec.Struct, frozen=True):
    """`head` of the log, signed; `commitments` by DataDAO, sorted, so that their order says nothing."""

    head: Head
    commitments: dict[str, list[str]]

    def to_json(self) -> str:
        """To be published, timestamped or stored where the platform cannot change it."""
        return msgspec.json.format(msgspec.json.encode(self), indent=1).decode()


def read_anchor(text: str | bytes) -> Anchor:
    """An anchor of its JSON. Raises ValueError on anything else."""
    return msgspec.json.decode(text, type=Anchor, strict=True)


def commitment(salt: bytes, row: UserEmbedding) -> str:
    """To one row: hex."""
    return hmac.digest(salt, msgspec.json.encode(row), "sha256").hex()


def new_anchor(layout: Layout, datadaos: Sequence[str]) -> Anchor:
    """Of now. The log gets an entry that it was made, and the anchor's head counts it."""
    lance, key, commitments = LanceTables(layout.lancedb), load_or_create_key(layout.key), {}
    with Whitelist(layout.access_whitelist) as whitelist:
        for datadao in datadaos:
            columns = ["id", "vector", "projected", "n_chunks", "last_chunk_at", "version"]
            rows = lance.read(datadao, TABLE, columns).iter_rows() if lance.exists(datadao, TABLE) else ()
            commitments[datadao] = sorted(
                commitment(whitelist.salt(erasure_id(key, user), datadao), UserEmbedding(*row)) for user, *row in rows
            )
    log = AccessLog.of(layout)
    log.append("anchor", "done")
    return Anchor(log.head(), commitments)
