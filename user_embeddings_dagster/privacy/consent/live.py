"""Whose grants hold, and the gates that let only their rows through: in front of every asset and job (C14).

`live` alone decides what holds at a time. People who have consented to nothing may still stand in others' chunks,
masked as <P1>: a gate is about the SUBJECT of a row.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

import polars as pl

from user_embeddings_dagster.evaluation.splits import user_splits, without_summary
from user_embeddings_dagster.privacy.consent.grants import EVALUATE, PURPOSES, SERVE, TRAIN
from user_embeddings_dagster.schema import MASKED_CHUNKS, TRAINING_SNAPSHOT
from user_embeddings_dagster.storage.lake import UNPARTITIONED, Lake, version_of

LEDGER = "consent_ledger"
OF_SPLIT = {"train": TRAIN, "valid": TRAIN, "test": EVALUATE}
"""What a user of each split must have consented to."""
GRANTED, REVOKED, EXPIRED, NONE = "granted", "revoked", "expired", "none"
Frame = pl.DataFrame | pl.LazyFrame


def now() -> datetime:
    """The time as of which consent is asked."""
    return datetime.now(UTC)


def live(ledger: Frame, as_of: datetime) -> pl.DataFrame:
    """`datadao`, `user_id`, `purpose` of the grants in CONSENT_LEDGER that hold `as_of` a time; each once, sorted.

    A grant holds from granted_at on, and no more from expires_at or revoked_at on. Raises ValueError on a time
    without a zone.
    """
    if as_of.tzinfo is None:
        raise ValueError("consent is asked as of a time with a zone")
    as_of = as_of.astimezone(UTC)
    begun = pl.col("granted_at").is_null() | (pl.col("granted_at") <= as_of)
    ended = (pl.col("expires_at") <= as_of).fill_null(False) | (pl.col("revoked_at") <= as_of).fill_null(False)
    columns = ["datadao", "user_id", "purpose"]
    return ledger.lazy().filter(begun & ~ended).select(columns).unique().sort(columns).collect()


def states(ledger: Frame, subjects: pl.Series, as_of: datetime) -> pl.DataFrame:
    """`purpose`, `state`, `n`: how many of the subjects granted each purpose, revoked it, let it expire, or none."""
    rows = ledger.lazy().collect()
    everybody = subjects.alias("user_id").to_frame().join(pl.DataFrame({"purpose": list(PURPOSES)}), how="cross")
    on = ["user_id", "purpose"]
    holds = live(rows, as_of).select(*on, holds=pl.lit(True))
    once = rows.group_by(on).agg(
        revoked=(pl.col("revoked_at") <= as_of).any(), expired=(pl.col("expires_at") <= as_of).any()
    )
    found = everybody.join(holds, on=on, how="left").join(once, on=on, how="left")
    state = (
        pl.when("holds").then(pl.lit(GRANTED)).when("revoked").then(pl.lit(REVOKED))
        .when("expired").then(pl.lit(EXPIRED)).otherwise(pl.lit(NONE))
    )  # fmt: skip
    counted = found.select("purpose", state=state).group_by("purpose", "state").agg(n=pl.len())
    wanted = pl.DataFrame({"purpose": list(PURPOSES)}).join(
        pl.DataFrame({"state": [GRANTED, REVOKED, EXPIRED, NONE]}), how="cross"
    )
    return wanted.join(counted, on=["purpose", "state"], how="left", maintain_order="left").with_columns(
        pl.col("n").fill_null(0).cast(pl.Int64)
    )


def live_hash(granted: pl.DataFrame) -> str:
    """Hash of what `live` gives: changes exactly when somebody's consent does."""
    return hashlib.sha256(granted.sort(granted.columns).write_csv().encode()).hexdigest()[:32]


def last_change(ledger: Frame, as_of: datetime) -> datetime | None:
    """When, up to a time, a grant last began or ended; None if none did."""
    times = pl.concat([ledger.lazy().select(t=column) for column in ("granted_at", "expires_at", "revoked_at")])
    return times.filter(pl.col("t") <= as_of.astimezone(UTC)).select(pl.col("t").max()).collect().item()


@dataclass(frozen=True)
class Gated:
    """Rows that passed a gate, with the version of a table that holds these alone."""

    rows: pl.DataFrame
    version: str


@dataclass(frozen=True)
class GatedChunks:
    """Chunks of each DataDAO whose `users` (datadao, user_id) passed a gate; hash of these; counts of the others."""

    chunks: list[pl.LazyFrame]
    users: pl.DataFrame
    version: str
    left_out: dict[str, int]


@dataclass(frozen=True)
class Consent:
    """What holds in some DataDAOs as of one time: `granted` has datadao, user_id, purpose."""

    granted: pl.DataFrame

    @classmethod
    def of(cls, lake: Lake, *datadaos: str, as_of: datetime | None = None) -> "Consent":
        """Of these DataDAOs. Raises FileNotFoundError naming one without a ledger: nothing is passed over silently."""
        schema = {"datadao": pl.String, "user_id": pl.String, "purpose": pl.String}
        moment = as_of or now()
        return cls(pl.concat([pl.DataFrame(schema=schema), *(live(lake.scan(LEDGER, d), moment) for d in datadaos)]))

    @classmethod
    def of_all(cls, lake: Lake, as_of: datetime | None = None) -> "Consent":
        """Of every DataDAO that has a ledger; in the others nobody has consented."""
        return cls.of(lake, *lake.partitions(LEDGER), as_of=as_of)

    def users(self, datadao: str, *purposes: str) -> pl.Series:
        """Who has consented to any of the purposes (to anything at all, if none is named), sorted."""
        wanted = pl.col("purpose").is_in(purposes or PURPOSES)
        return self.granted.filter(wanted, datadao=datadao)["user_id"].unique().sort()

    def of_their_split(self, key: bytes) -> pl.DataFrame:
        """`datadao`, `user_id` of those who have consented to what a user of their split is needed for."""
        rows = self.granted.join(user_splits(self.granted["user_id"], key), on="user_id")
        return rows.filter(pl.col("purpose") == pl.col("split").replace_strict(OF_SPLIT)).select("datadao", "user_id")

    def item_users(self, datadao: str, key: bytes) -> pl.Series:
        """Whose item vectors are made: who is served, and who is trained or evaluated on by them."""
        used = self.of_their_split(key).filter(datadao=datadao)["user_id"]
        return pl.concat([used, self.users(datadao, SERVE)]).unique().sort()

    def chunks(self, lake: Lake, datadao: str) -> Gated:
        """Masked chunks of everybody who has consented to anything."""
        rows = lake.read("masked_chunks", datadao)
        passed = rows.filter(pl.col("user_id").is_in(self.users(datadao).implode()))
        if passed.height == rows.height:
            return Gated(rows, lake.path("masked_chunks", datadao).stem)
        return Gated(passed, version_of(MASKED_CHUNKS, passed))

    def chunks_of_splits(self, lake: Lake, key: bytes) -> GatedChunks:
        """Masked chunks, of every DataDAO, of users who have consented to what their split needs."""
        on, consenting = ["datadao", "user_id"], self.of_their_split(key)
        everything = [lake.scan("masked_chunks", name) for name in lake.partitions("masked_chunks")]
        chunks = [rows.join(consenting.lazy(), on=on, how="semi") for rows in everything]
        empty = pl.LazyFrame(schema={"datadao": pl.String, "user_id": pl.String})
        people = pl.concat([empty, *(rows.select(on).unique() for rows in everything)]).collect()
        kept = people.join(consenting, on=on, how="semi").sort(on)
        without = people.join(consenting, on=on, how="anti").join(user_splits(people["user_id"], key), on="user_id")
        left_out = {
            f"users_without_consent_to_{purpose}": without.filter(pl.col("split").is_in(splits)).height
            for purpose, splits in ((TRAIN, ("train", "valid")), (EVALUATE, ("test",)))
        }
        return GatedChunks(chunks, kept, live_hash(kept), left_out)

    def snapshot(self, rows: Frame, *also: str) -> pl.DataFrame:
        """Rows of TRAINING_SNAPSHOT of users who have consented to what their split needs, and to `also`.

        Positions count the chunks that are there: what an erasure or a purge took since leaves no gap.
        """
        needed = pl.col("split").replace_strict(OF_SPLIT, return_dtype=pl.String)
        passed = rows.lazy().with_columns(purpose=needed)
        passed = passed.join(self.granted.lazy(), on=["datadao", "user_id", "purpose"], how="semi").drop("purpose")
        for purpose in also:
            granted = self.granted.filter(purpose=purpose).lazy()
            passed = passed.join(granted, on=["datadao", "user_id"], how="semi")
        history = ["datadao", "user_id"]
        place = pl.int_range(pl.len()).over(history).cast(TRAINING_SNAPSHOT.schema["position"])
        passed = passed.sort(*history, "position").with_columns(position=place)
        return passed.sort(TRAINING_SNAPSHOT.primary_key).collect()


def consented_snapshot(lake: Lake, *also: str, as_of: datetime | None = None) -> pl.DataFrame:
    """The current training snapshot without those whose consent has ended since, and without chunks whose summary has
    gone since (retention); `also` as of Consent.snapshot."""
    rows = lake.scan(TRAINING_SNAPSHOT.name, UNPARTITIONED)
    rows = rows.join(without_summary(lake).lazy(), on=["datadao", "chunk_id"], how="anti")
    return Consent.of_all(lake, as_of).snapshot(rows, *also)


def snapshot_version(snapshot: pl.DataFrame) -> str:
    """Version of a (gated) snapshot: that of the table once it is materialised without who was held back."""
    return version_of(TRAINING_SNAPSHOT, snapshot)


def only_consenting_subjects(messages: pl.DataFrame, users: Iterable[str]) -> pl.DataFrame:
    """MESSAGES in which nobody is a SUBJECT but `users`; everything that was written stays, as context of theirs."""
    mine = pl.col("author_id").is_in(pl.Series(users, dtype=pl.String).implode()).fill_null(False)
    return messages.with_columns(is_subject=pl.col("is_subject") & mine)
