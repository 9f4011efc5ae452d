"""What the ledger says, as counts: for the checks, metadata and the terminal. Names nobody."""

from collections.abc import Sequence

import polars as pl

from user_embeddings_dagster.exports.landing import GRANTS
from user_embeddings_dagster.privacy.consent.ledger import NOBODY, NOBODY_ENDED
from user_embeddings_dagster.privacy.consent.live import GRANTED, NONE
from user_embeddings_dagster.privacy.retention.windows import DEFAULTS
from user_embeddings_dagster.quality.outcome import ERROR, WARNING, CheckOutcome
from user_embeddings_dagster.schema import CONSENT_LEDGER
from user_embeddings_dagster.settings import RETENTION
from user_embeddings_dagster.storage.models import trained_anew

_MOST_LINES = 10  # shown of one reason; the table rejected_grants has all
_OF_NOBODY = {
    NOBODY_ENDED: "revoked or expired, but about nobody in the messages: the account is mistyped, and whoever is meant "
    "may still count as granted; or their export is not here (yet)",
    NOBODY: "about nobody in the messages: the account is mistyped, or their export is not here (yet)",
}  # by reason, the worst first


def somebody_consented(subjects: int, consenting: int) -> CheckOutcome:
    """At least one SUBJECT has consented to something: without, nothing of the DataDAO goes further than messages."""
    metrics = {"subjects": float(subjects), "consenting": float(consenting)}
    return CheckOutcome("somebody_consented", consenting > 0 or subjects == 0, ERROR, metrics)


def grants_readable(rejected: pl.DataFrame) -> CheckOutcome:
    """Every row of consent.csv, and datadao.json, could be read; what could not consents to nothing."""
    return CheckOutcome("grants_readable", rejected.is_empty(), ERROR, {"rejected": float(rejected.height)})


def grants_of_somebody(nobody: pl.DataFrame) -> CheckOutcome:
    """Every row of consent.csv is about an author of the messages: of a mistyped account, a revocation revokes nothing.

    Or their export is not here (yet): a warning.
    """
    metrics = {reason: float(nobody.filter(reason=reason).height) for reason in _OF_NOBODY}
    return CheckOutcome("grants_of_somebody", nobody.is_empty(), WARNING, metrics, nobody_as_metadata(nobody))


def models_consented(marked: int, unused: int) -> CheckOutcome:
    """No promoted version of a model rests on people who do not consent to it any more: those that do are marked and
    named. Others that do (`marked_unused`), which nothing reads, are marked and named too, and no reason to warn."""
    metrics = {"marked": float(marked), "marked_unused": float(unused)}
    return CheckOutcome("models_consented", marked == 0, WARNING, metrics)


def about_models(marked: Sequence[str], unused: Sequence[str]) -> str | None:
    """What to do about marked versions, given by path; None if there are none."""
    told = []
    if marked:
        jobs = "; ".join(dict.fromkeys(trained_anew(name) for name in marked))
        told.append(
            f"{len(marked)} promoted: {jobs}; materialise {CONSENT_LEDGER.name} afterwards, which looks for them anew"
        )
    if unused:
        told.append(
            f"{len(unused)} that nothing reads: user-embeddings purge removes them by the window of the stage models "
            f"({DEFAULTS['models']} days since they were trained, or as {RETENTION} says), but for those on whose "
            "vectors a promoted one was trained"
        )
    return f"versions trained on people who have revoked consent: {'. '.join(told)}" if told else None


def as_text(datadao: str, counted: pl.DataFrame, bases: pl.DataFrame, rejected: pl.DataFrame) -> str:
    """Counts of SUBJECTs per purpose and state (live.states), grants per basis, rejected rows per reason."""
    unread, nobody = unread_and_nobody(rejected)
    wide = counted.pivot("state", index="purpose", values="n")
    names = wide.columns[1:]
    lines = [f"{datadao}: contributors by purpose", f"{'':10}" + "".join(f"{name:>10}" for name in names)]
    lines += [f"{row[0]:10}" + "".join(f"{n:10,}" for n in row[1:]) for row in wide.iter_rows()]
    lines += [f"basis {basis!r}: {n:,} contributors" for basis, n in bases.iter_rows()]
    reasons = unread.group_by("file", "reason").agg(pl.col("line").sort()).sort("file", "reason")
    lines += [f"not read: {file}, {reason}, {places(of)}" for file, reason, of in reasons.iter_rows()]
    lines += nobody_as_text(nobody)
    if not counted.filter(state=GRANTED)["n"].sum():
        lines.append("NOBODY HAS CONSENTED: nothing of this DataDAO goes further than messages")
    return "\n".join(lines)


def unread_and_nobody(rejected: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """REJECTED_GRANTS in two: what could not be read, and what is about nobody here."""
    nobody = pl.col("reason").is_in([*_OF_NOBODY])
    return rejected.filter(~nobody), rejected.filter(nobody)


def nobody_as_text(nobody: pl.DataFrame) -> list[str]:
    """Which lines are about nobody here, and what may be the matter; one line each for those that have ended or not."""
    return [f"{GRANTS}, {places(lines)}: {_OF_NOBODY[reason]}" for reason, lines in _by_reason(nobody).items()]


def nobody_as_metadata(nobody: pl.DataFrame) -> dict[str, str]:
    """`lines_of_nobody_ended`, `lines_of_nobody`: the numbers of the lines; without those of which there are none."""
    return {f"lines_{reason}": _numbers(lines) for reason, lines in _by_reason(nobody).items()}


def _by_reason(nobody: pl.DataFrame) -> dict[str, list[int]]:
    lines = {reason: nobody.filter(reason=reason)["line"].sort().to_list() for reason in _OF_NOBODY}
    return {reason: found for reason, found in lines.items() if found}


def places(lines: list[int]) -> str:
    """`lines 2, 5`, the first few; 0 is the whole file."""
    return "the whole file" if lines == [0] else f"lines {_numbers(lines)}"


def _numbers(lines: list[int]) -> str:
    more = f" and {len(lines) - _MOST_LINES} more" if len(lines) > _MOST_LINES else ""
    return ", ".join(map(str, lines[:_MOST_LINES])) + more


def as_metadata(counted: pl.DataFrame) -> dict[str, int]:
    """`train_granted`, `train_revoked`, …"""
    return {f"{purpose}_{state}": n for purpose, state, n in counted.iter_rows() if state != NONE}
