"""Receipts of erasures as a table and as plain text."""

from collections.abc import Iterable

import polars as pl

from user_embeddings_dagster.privacy.erasure.erase import Receipt
from user_embeddings_dagster.privacy.erasure.stores import OWN_SEALED, SHARED_SEALED
from user_embeddings_dagster.quality.outcome import ERROR, CheckOutcome
from user_embeddings_dagster.schema import ERASURES


def as_table(receipts: Iterable[Receipt]) -> pl.DataFrame:
    """ERASURES of receipts: the stores that held, or hold, anything."""
    rows = [
        (
            receipt.person, store, receipt.removed.get(store, 0), receipt.hits_before.get(store, 0),
            receipt.hits_after.get(store, 0), receipt.undecoded.get(store, 0), receipt.evidence_hash,
            receipt.checkpoints,
        )
        for receipt in receipts
        for store in _stores(receipt)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=ERASURES.schema, orient="row")


def nothing_left(erasures: pl.DataFrame) -> CheckOutcome:
    """No canary of an erased contributor was found in the scan after the erasure, and every file could be decoded."""
    found = {"hits": float(erasures["hits_after"].sum()), "undecoded": float(erasures["undecoded"].sum())}
    return CheckOutcome("nothing_left", not any(found.values()), ERROR, found)


def as_text(receipt: Receipt) -> str:
    """For a terminal: by store what was removed and found, the checkpoints, and what is not covered."""
    lines = [f"erased {receipt.person}", f"{'store':34} {'removed':>9} {'found before':>13} {'found now':>10}"]
    lines += [
        f"{store:34} {receipt.removed.get(store, 0):9,} {receipt.hits_before.get(store, 0):13,} "
        f"{receipt.hits_after.get(store, 0):10,}"
        for store in _stores(receipt)
    ]
    lines.append(f"{receipt.canaries:,} canaries looked for in {receipt.files:,} files, decoded and as raw bytes")
    lines += [
        f"not decoded, so nothing is known of them: {n} files of {store}" for store, n in receipt.undecoded.items()
    ]
    lines += [f"trained on them, and marked: models/{name}" for name in receipt.checkpoints]
    if own := receipt.removed.get(OWN_SEALED, 0):
        lines.append(f"shredded: {own:,} exports of their own; without the destroyed key every copy is unreadable")
    if shared := receipt.removed.get(SHARED_SEALED, 0):
        lines.append(f"rewritten: {shared:,} exports that they share with others, under the key of the DataDAO")
    lines += receipt.told
    lines += [f"not covered: {what}" for what in receipt.not_covered]
    lines.append("clean: nothing of theirs was found" if receipt.clean else "NOT CLEAN: see above")
    if not _stores(receipt):  # a misspelt account is somebody who was never here
        lines.append("NOTHING WAS REMOVED: nothing of theirs was found before either; see that it is whom you meant")
    lines.append(
        "Next: materialise the DataDAOs again; chunks of others in which they spoke are then cut without them."
    )
    return "\n".join(lines)


def _stores(receipt: Receipt) -> list[str]:
    counts = receipt.removed, receipt.hits_before, receipt.hits_after, receipt.undecoded
    return sorted({store for count in counts for store, n in count.items() if n})
