"""What the ledger says, as counts: for the checks, metadata and the terminal. Names nobody."""

import polars as pl

from user_embeddings_dagster.privacy.consent.live import GRANTED, NONE
from user_embeddings_dagster.quality.outcome import ERROR, WARNING, CheckOutcome


def somebody_consented(subjects: int, consenting: int) -> CheckOutcome:
    """At least one SUBJECT has consented to something: without, nothing of the DataDAO goes further than messages."""
    metrics = {"subjects": float(subjects), "consenting": float(consenting)}
    return CheckOutcome("somebody_consented", consenting > 0 or subjects == 0, ERROR, metrics)


def grants_readable(rejected: pl.DataFrame) -> CheckOutcome:
    """Every row of consent.csv, and datadao.json, could be read; what could not consents to nothing."""
    return CheckOutcome("grants_readable", rejected.is_empty(), ERROR, {"rejected": float(rejected.height)})


def models_consented(marked: int) -> CheckOutcome:
    """No trained version rests on people who do not consent to it any more: those that do are marked and named."""
    return CheckOutcome("models_consented", marked == 0, WARNING, {"marked": float(marked)})


def as_text(datadao: str, counted: pl.DataFrame, bases: pl.DataFrame, rejected: pl.DataFrame) -> str:
    """Counts of SUBJECTs per purpose and state (live.states), grants per basis, rejected rows per reason."""
    wide = counted.pivot("state", index="purpose", values="n")
    names = wide.columns[1:]
    lines = [f"{datadao}: contributors by purpose", f"{'':10}" + "".join(f"{name:>10}" for name in names)]
    lines += [f"{row[0]:10}" + "".join(f"{n:10,}" for n in row[1:]) for row in wide.iter_rows()]
    lines += [f"basis {basis!r}: {n:,} contributors" for basis, n in bases.iter_rows()]
    reasons = rejected.group_by("file", "reason").agg(pl.col("line").sort()).sort("file", "reason")
    lines += [
        f"not read: {file}, {reason}, lines {', '.join(map(str, of[:10]))}{' …' if len(of) > 10 else ''}"
        for file, reason, of in reasons.iter_rows()
    ]
    if not counted.filter(state=GRANTED)["n"].sum():
        lines.append("NOBODY HAS CONSENTED: nothing of this DataDAO goes further than messages")
    return "\n".join(lines)


def as_metadata(counted: pl.DataFrame) -> dict[str, int]:
    """`train_granted`, `train_revoked`, …"""
    return {f"{purpose}_{state}": n for purpose, state, n in counted.iter_rows() if state != NONE}
