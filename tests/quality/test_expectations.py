"""Great Expectations suites: each expectation passes on good rows and fails on its own bad one (C72)."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from user_embeddings_dagster.quality.great_expectations_adapter import validate
from user_embeddings_dagster.quality.suites import SUITES
from user_embeddings_dagster.schema import TABLES

AT = datetime(2024, 5, 1, tzinfo=UTC)
SECRET = "Alice Liddell lives at 12 Wonder Lane"


def hexes(n: int, length: int = 32) -> list[str]:
    return [f"{number:0{length}x}" for number in range(n)]


GOOD = {
    "messages": {
        "message_id": hexes(4), "datadao": "reddit", "platform": "reddit", "thread_id": hexes(4),
        "thread_shape": "tree", "parent_id": None, "author_id": ["a" * 32, None, "b" * 32, "c" * 32],
        "role": ["user", "deleted", "bot", "assistant"], "is_subject": True, "created_at": [AT, None, AT, AT],
        "edited_at": [None, None, AT + timedelta(hours=1), None], "text": SECRET, "media_kind": None,
        "community": None, "raw_sha256": "d" * 64, "raw_member": "", "raw_location": [1, 2, 3, 4],
    },
    "masked_chunks": {
        "chunk_id": hexes(4), "datadao": "zig", "user_id": "a" * 32, "thread_id": "t", "window_id": "w",
        "started_at": AT, "ended_at": AT + timedelta(minutes=1), "speakers": [["<P1>", "SUBJECT"]] * 4,
        "turns": [["hi", "there"]] * 4, "text": "<P1>: hi\nSUBJECT: " + SECRET, "message_ids": [["m", "n"]] * 4,
        "n_subject_turns": 1, "n_tokens": 9, "n_masked": 0, "context_free": False, "community": None,
    },
    "chunk_summaries": {
        "summary_id": hexes(4), "chunk_id": hexes(4), "datadao": "zig", "user_id": "a" * 32, "ended_at": AT,
        "text": "SUBJECT says " + SECRET, "summarizer": "extractive", "program_version": "1",
        "prompt_tokens": 0, "completion_tokens": 0, "usd": 0.0,
    },
    "koais": {
        "koai_id": hexes(4), "chunk_id": "c" * 32, "datadao": "zig", "user_id": "a" * 32, "ended_at": AT,
        "kind": ["knowledge", "opinion", "attribute", "intent"], "statement": "SUBJECT says " + SECRET,
        "evidence": [[0, 2]] * 4, "violations": [[], [4], [1, 4], []], "extractor": "cues", "program_version": "1",
    },
    "scores": {
        "asset": "s", "datadao": "zig", "model": ["a", "b", "c", "d"],
        "metric": ["mrr", "mrr_difference", "recall@1", "within_user_cosine"],
        "slice": "all", "value": [0.5, -0.2, 0.0, -0.1],
        "ci_low": [0.4, -0.3, None, -0.2], "ci_high": [0.6, -0.1, None, 0.0],
        "n": 10, "n_users": 5, "seed": 0, "split_hash": "a" * 32, "candidate_set": "full:9", "version": "1",
    },
}  # fmt: skip
BAD = {
    "messages": {
        "message_id_unique": ("message_id", hexes(3)[2]), "message_id_is_hash": ("message_id", "user173982618291005"),
        "author_id_is_hash": ("author_id", "alice"), "datadao_is_slug": ("datadao", "Reddit!"),
        "role_known": ("role", "moderator"), "platform_known": ("platform", "discord"),
        "thread_shape_known": ("thread_shape", "ring"),
        "created_at_plausible": ("created_at", datetime(1970, 1, 20, tzinfo=UTC)),
        "edited_after_created": ("edited_at", AT - timedelta(days=1)), "raw_sha256_is_hash": ("raw_sha256", "d" * 63),
        "raw_location_counts": ("raw_location", -1),
    },
    "masked_chunks": {
        "chunk_id_unique": ("chunk_id", hexes(3)[2]), "chunk_id_is_hash": ("chunk_id", "c1"),
        "user_id_is_hash": ("user_id", "alice"), "datadao_is_slug": ("datadao", ""),
        "subject_speaks": ("text", "<P1>: SUBJECT: hi"), "subject_turns_counted": ("n_subject_turns", 0),
        "tokens_counted": ("n_tokens", 0), "masked_counted": ("n_masked", -1),
        "ends_after_start": ("ended_at", AT - timedelta(minutes=1)),
        "ended_at_plausible": ("ended_at", datetime(2200, 1, 1, tzinfo=UTC)),
    },
    "chunk_summaries": {
        "summary_id_unique": ("summary_id", hexes(3)[2]), "one_summary_per_chunk": ("chunk_id", hexes(3)[2]),
        "summary_id_is_hash": ("summary_id", "s"), "datadao_is_slug": ("datadao", "A"),
        "summarizer_named": ("summarizer", None), "program_version_named": ("program_version", ""),
        "summary_has_text": ("text", "  \n"), "summary_names_subject": ("text", "He says so"),
    },
    "koais": {
        "koai_id_unique": ("koai_id", hexes(3)[2]), "koai_id_is_hash": ("koai_id", "k"),
        "datadao_is_slug": ("datadao", "A"), "kind_known": ("kind", "mood"), "statement_has_text": ("statement", " "),
        "extractor_named": ("extractor", None), "koai_program_version_named": ("program_version", ""),
    },
    "scores": {
        "score_key_unique": (("model", "metric"), ("c", "recall@1")), "datadao_is_slug": ("datadao", "a b"),
        "value_in_bounds": ("value", 1.5),
        "value_above_ci_low": ("ci_low", 0.7), "value_below_ci_high": ("ci_high", 0.3),
        "n_counted": ("n", -1),
        "split_hash_is_hash": ("split_hash", "none"), "candidate_set_named": ("candidate_set", ""),
        "score_measured": ("value", None),
    },
}  # fmt: skip


def frame(table: str) -> pl.DataFrame:
    columns = {name: value if isinstance(value, list) else [value] * 4 for name, value in GOOD[table].items()}
    return pl.DataFrame(columns, schema=TABLES[table].schema)


def spoiled(table: str, columns, values) -> pl.DataFrame:
    """The good rows with the first row's cell(s) replaced."""
    if isinstance(columns, str):
        columns, values = (columns,), (values,)
    good = frame(table)
    first = pl.int_range(pl.len()) == 0
    return good.with_columns(
        pl.when(first).then(pl.lit(value, good.schema[column])).otherwise(pl.col(column)).alias(column)
        for column, value in zip(columns, values, strict=True)
    )


@pytest.mark.parametrize("table", SUITES)
def test_good_rows_pass_everything(table):
    outcomes = validate(table, TABLES[table].conform(frame(table)))
    assert [outcome.name for outcome in outcomes] == [expectation.name for expectation in SUITES[table]]
    assert [outcome.name for outcome in outcomes if not outcome.passed] == []
    assert all(outcome.metrics for outcome in outcomes)


@pytest.mark.parametrize(("table", "name"), [(table, name) for table, names in BAD.items() for name in names])
def test_each_expectation_fails_on_its_own_bad_row(table, name):
    """C72: every expectation is tested failing; the outcome counts the row and shows none of it."""
    columns, values = BAD[table][name]
    outcome = {outcome.name: outcome for outcome in validate(table, spoiled(table, columns, values))}[name]
    assert not outcome.passed
    assert outcome.metrics["unexpected_count"] >= 1
    assert all(isinstance(value, float) for value in outcome.metrics.values())
    assert SECRET not in repr(outcome) and "alice" not in repr(outcome).lower()


@pytest.mark.parametrize("table", SUITES)
def test_an_empty_table_warns_and_raises_nothing(table):
    failed = [outcome for outcome in validate(table, TABLES[table].empty()) if not outcome.passed]
    assert [(outcome.name, outcome.severity) for outcome in failed] == [("has_rows", "warning")]


def test_every_expectation_but_the_row_count_is_tested_failing():
    for table, expectations in SUITES.items():
        assert {e.name for e in expectations} - {"has_rows"} == set(BAD[table])
        assert len({e.name for e in expectations}) == len(expectations)
        assert all(e.name.isidentifier() and e.description for e in expectations)
        assert all(column in TABLES[table].schema for e in expectations for column in e.columns)


def test_missing_columns_and_unknown_suites_are_errors_without_values():
    with pytest.raises(ValueError, match=r"suite messages: the frame has no columns \['role'\]"):
        validate("messages", frame("messages").drop("role"))
    with pytest.raises(KeyError):
        validate("nothing", frame("messages"))
    wrong = frame("masked_chunks").with_columns(n_tokens=pl.lit(SECRET))
    with pytest.raises(ValueError, match="tokens_counted") as caught:
        validate("masked_chunks", wrong)
    assert SECRET not in str(caught.value)


def test_great_expectations_is_imported_only_when_a_suite_runs():
    code = (
        "import sys, user_embeddings_dagster.quality.great_expectations_adapter, "
        "user_embeddings_dagster.evaluation.plots, user_embeddings_dagster.quality.domain; "
        "print([m for m in ('great_expectations', 'matplotlib', 'pandas', 'torch', 'safetensors') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
