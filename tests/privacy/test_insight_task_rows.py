"""C14, C16: insight tasks go with whoever is in them: the SUBJECT, and those whose words are options."""

import polars as pl
import pytest
from granting import grant
from insight_platform import platform

from user_embeddings_dagster.evaluation.splits import split_of
from user_embeddings_dagster.personalisation.build import build_tasks
from user_embeddings_dagster.privacy.consent.grants import PURPOSES
from user_embeddings_dagster.privacy.consent.live import Consent
from user_embeddings_dagster.privacy.consent.withdrawal import withdraw_tasks
from user_embeddings_dagster.privacy.retention.content import Summaries
from user_embeddings_dagster.privacy.retention.stage import Found, Sweep
from user_embeddings_dagster.schema import INSIGHT_TASKS, MASKED_CHUNKS, TRAINING_SNAPSHOT
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake

KEY = bytes(range(32))
VALIDATED = {"status": "kept", "context_answer": 0, "search_answer": 0, "validator": "similarity"}


@pytest.fixture
def lake(tmp_path) -> Lake:
    lake = Lake(tmp_path)
    snapshot, chunks, koais, vectors = platform(overlap=False)
    whole = snapshot.drop("split", "position").join(chunks, on="chunk_id").with_columns(
        n_subject_turns=2, n_tokens=20, n_masked=0, context_free=False, community=None,
    )  # fmt: skip
    made = build_tasks(snapshot, chunks, koais, vectors, per_user=3, seed=0)
    lake.commit(MASKED_CHUNKS, whole, "zig")
    lake.commit(TRAINING_SNAPSHOT, snapshot)
    lake.commit(INSIGHT_TASKS, made.with_columns(**{name: pl.lit(value) for name, value in VALIDATED.items()}), "zig")
    return lake


def owners(lake: Lake) -> set[str]:
    """Whose words are in the tasks: c<user>-<position>."""
    rows = lake.read("insight_tasks", "zig")
    chunks = pl.concat([rows["chunk_id"], rows["option_chunk_ids"].explode().drop_nulls()])
    return {f"u{name[1:].split('-')[0]}" for name in chunks}


def test_a_withdrawal_takes_the_persons_tasks_and_those_that_offer_their_words(lake: Lake) -> None:
    """C14: revoking what the person's split needs is enough; others' tasks without them keep their bits."""
    before = lake.read("insight_tasks", "zig")
    users = sorted(owners(lake))
    grant(lake, "zig", users)
    assert withdraw_tasks(lake, "zig", Consent.of_all(lake), KEY) == 0
    needed = {"train": "train", "valid": "train", "test": "evaluate"}[split_of("u3", KEY)]
    everything = pl.DataFrame({"user_id": users}).join(pl.DataFrame({"purpose": list(PURPOSES)}), how="cross")
    left = everything.filter(~((pl.col("user_id") == "u3") & (pl.col("purpose") == needed)))
    consent = Consent(left.with_columns(datadao=pl.lit("zig")))
    removed = withdraw_tasks(lake, "zig", consent, KEY)
    after = lake.read("insight_tasks", "zig")
    assert removed == before.height - after.height > before.filter(user_id="u3").height
    assert owners(lake) == set(users) - {"u3"}
    assert before.join(after, on="task_id", how="semi").equals(after)
    assert withdraw_tasks(lake, "zig", consent, KEY) == 0


def test_without_any_consent_nothing_is_left(lake: Lake) -> None:
    none = Consent(pl.DataFrame(schema={"datadao": pl.String, "user_id": pl.String, "purpose": pl.String}))
    assert withdraw_tasks(lake, "zig", none, KEY) > 0
    assert lake.read("insight_tasks", "zig").is_empty()
    assert withdraw_tasks(lake, "elsewhere", none, KEY) == 0


def test_purged_summaries_take_the_tasks_made_of_statements(lake: Lake) -> None:
    """C16: a task of a KOAI goes with it, also one that offers it; what is made of the chunk itself stays."""
    before = lake.read("insight_tasks", "zig")
    gone = ["c3-5", "c2-5"]
    sweep = Sweep(Layout(lake.root), {}, {})
    Summaries().remove(sweep, Found({f"zig/{name}": 1 for name in gone}))
    after = lake.read("insight_tasks", "zig")
    shown = pl.concat_list(pl.col("option_chunk_ids"), pl.col("chunk_id")).list.set_intersection(gone).list.len() > 0
    said = pl.col("kind").is_in(["stance", "knowledge"])
    assert after.equals(before.filter(~(said & shown)))
    assert before.filter(said & shown).height > 2 and after.filter(~said & shown).height > 0
