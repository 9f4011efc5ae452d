"""F6, first half: generated grant states in front of every gate; rows that pass without a grant that holds.

    python -m benchmarks.consent [--states 10000]

Users draw a case (absent, expired, revoked, not yet begun, of another purpose, DataDAO or person, valid); every gate is
asked for each purpose. The control: with the gate open the same rows pass.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from user_embeddings_dagster.evaluation.splits import split_of
from user_embeddings_dagster.privacy.consent.grants import COMPARE, EVALUATE, PURPOSES, SERVE, TRAIN
from user_embeddings_dagster.privacy.consent.live import OF_SPLIT, Consent, live, only_consenting_subjects
from user_embeddings_dagster.schema import CONSENT_LEDGER, MASKED_CHUNKS, MESSAGES, TRAINING_SNAPSHOT, Table
from user_embeddings_dagster.storage.lake import Lake

AT = datetime(2024, 7, 1, tzinfo=UTC)
KEY, DATADAO = bytes(32), "dao"
CHUNKS = 3  # of each user
_DAY = timedelta(days=1)
# Begin, expiry and revocation relative to AT; which of purpose, DataDAO and person is another than is asked for.
CASES: dict[str, tuple[timedelta, timedelta | None, timedelta | None, str]] = {
    "granted": (-_DAY, None, None, ""),
    "granted_until_later": (-_DAY, _DAY, _DAY, ""),
    "granted_now": (timedelta(0), None, None, ""),
    "expired": (-2 * _DAY, -_DAY, None, ""),
    "expired_now": (-2 * _DAY, timedelta(0), None, ""),
    "revoked": (-2 * _DAY, None, -_DAY, ""),
    "revoked_now": (-2 * _DAY, _DAY, timedelta(0), ""),
    "revoked_before_it_began": (-_DAY, None, -2 * _DAY, ""),
    "not_begun": (_DAY, None, None, ""),
    "other_purpose": (-_DAY, None, None, "purpose"),
    "other_datadao": (-_DAY, None, None, "datadao"),
    "other_person": (-_DAY, None, None, "person"),
    "absent": (_DAY, -_DAY, None, "absent"),
}
VALID = frozenset({"granted", "granted_until_later", "granted_now"})


def ledger_of(users: Mapping[str, str], purpose: str, datadao: str = DATADAO) -> pl.DataFrame:
    """CONSENT_LEDGER in which each user has the grant of their case for a purpose."""
    rows = []
    for user, case in users.items():
        begins, expires, revoked, other = CASES[case]
        times = (None if time is None else AT + time for time in (begins, expires, revoked))
        named = "none" if other == "purpose" else purpose
        where = f"not_{datadao}" if other == "datadao" else datadao
        who = f"not_{user}" if other == "person" else user
        if other != "absent":
            rows.append((where, who, named, f"g{user}", "own grant", *times))
    return pl.DataFrame(rows, CONSENT_LEDGER.schema, orient="row")


class GateOff:
    """The control: a ledger in which everybody has granted everything, as if there were no gate."""

    def __init__(self, ledger: pl.DataFrame) -> None:
        self.ledger = ledger

    def opened(self, users: Iterable[str]) -> pl.DataFrame:
        """The ledger with a valid grant of everything for each of the users besides."""
        return pl.concat([self.ledger, *(ledger_of(dict.fromkeys(users, "granted"), each) for each in PURPOSES)])


def platform(users: Iterable[str]) -> dict[str, pl.DataFrame]:
    """Messages, chunks and snapshot of these users."""
    rows = [(user, f"{user}-{number}") for user in users for number in range(CHUNKS)]
    base = pl.DataFrame(rows, {"user_id": pl.String, "chunk_id": pl.String}, orient="row").with_columns(
        datadao=pl.lit(DATADAO), message_id="chunk_id", author_id="user_id", is_subject=pl.lit(True)
    )
    splits = {user: split_of(user, KEY) for user in dict(rows)}
    split = pl.col("user_id").replace_strict(splits, return_dtype=pl.String) if splits else pl.lit("train")
    frames = {"messages": base, "masked_chunks": base, "training_snapshot": base.with_columns(split=split)}
    tables = (MESSAGES, MASKED_CHUNKS, TRAINING_SNAPSHOT)
    return {table.name: _filled(table, frames[table.name]) for table in tables}


def _filled(table: Table, frame: pl.DataFrame) -> pl.DataFrame:
    """With every column of the table: empty values where the frame has none."""
    empty = {pl.String: "", pl.Int64: 0, pl.Boolean: False, pl.Datetime: AT, pl.List: []}
    missing = {
        name: pl.lit(empty[dtype.base_type()], dtype)
        for name, dtype in table.schema.items()
        if name not in frame.columns
    }
    return frame.with_columns(**missing).select(table.schema.names())


def reached(tables: Mapping[str, pl.DataFrame], ledger: pl.DataFrame, as_of: datetime) -> dict[str, dict[str, int]]:
    """By gate, rows of each user that pass it."""
    with TemporaryDirectory() as place:
        lake = Lake(Path(place))
        lake.commit(MASKED_CHUNKS, tables["masked_chunks"], DATADAO)
        consent = Consent(live(ledger, as_of))
        messages = only_consenting_subjects(tables["messages"], consent.users(DATADAO)).filter("is_subject")
        chunks = tables["masked_chunks"]
        passed = {
            "masked_chunks": messages.select(user_id="author_id"),
            "chunk_summaries, koais, chunk_embeddings, summary_embeddings": consent.chunks(lake, DATADAO).rows,
            "training_snapshot, summary_program": pl.concat(consent.chunks_of_splits(lake, KEY).chunks).collect(),
            "hard_negatives, relabelled_pairs, encoders, scores": consent.snapshot(tables["training_snapshot"]),
            "datadao_comparison": consent.snapshot(tables["training_snapshot"], COMPARE),
            "item_embeddings": chunks.filter(pl.col("user_id").is_in(consent.item_users(DATADAO, KEY).implode())),
            "user_embeddings": chunks.filter(pl.col("user_id").is_in(consent.users(DATADAO, SERVE).implode())),
        }
    return {gate: dict(rows.group_by("user_id").len().iter_rows()) for gate, rows in passed.items()}


def expected(users: Mapping[str, str], purpose: str, gate: str, gated: bool = True) -> dict[str, int]:
    """Rows of each user that may pass, by the rule as it is written, not by the code that applies it."""

    def may(user: str, case: str) -> bool:
        granted = set(PURPOSES) if not gated else {purpose} if case in VALID else set()
        of_split = TRAIN if split_of(user, KEY) in ("train", "valid") else EVALUATE
        match gate:
            case "training_snapshot, summary_program" | "hard_negatives, relabelled_pairs, encoders, scores":
                return of_split in granted
            case "datadao_comparison":
                return {of_split, COMPARE} <= granted
            case "item_embeddings":
                return bool({of_split, SERVE} & granted)
            case "user_embeddings":
                return SERVE in granted
            case _:
                return bool(granted)

    return {user: CHUNKS for user, case in users.items() if may(user, case)}


def main(arguments: list[str] | None = None) -> int:
    """Count the rows that pass although nothing that holds lets them, and those that should and do not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--states", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rng, started = random.Random(options.seed), time.monotonic()
    leaked = missed = passed = control = asked = 0
    per_purpose = -(-options.states // len(PURPOSES))
    for purpose in PURPOSES:
        users = {f"{number:032x}": rng.choice(sorted(CASES)) for number in range(per_purpose)}
        tables, ledger = platform(users), ledger_of(users, purpose)
        opened = reached(tables, GateOff(ledger).opened(users), AT)
        for gate, rows in reached(tables, ledger, AT).items():
            wanted = expected(users, purpose, gate)
            leaked += sum(n for user, n in rows.items() if n > wanted.get(user, 0))
            missed += sum(n - rows.get(user, 0) for user, n in wanted.items())
            passed += sum(rows.values())
            control += sum(n for user, n in opened[gate].items() if user not in wanted)
            asked += len(users)
    print(
        f"{per_purpose * len(PURPOSES):,} grant states, {asked:,} asked at a gate, {time.monotonic() - started:.1f} s"
    )
    print(f"rows that passed without a grant that holds: {leaked}; valid rows held back: {missed}; passed: {passed:,}")
    print(f"control, gates open: {control:,} rows passed that must not")
    print(f"splits need: {OF_SPLIT}")
    return 0 if not leaked and not missed and control and passed else 1


if __name__ == "__main__":
    sys.exit(main())
