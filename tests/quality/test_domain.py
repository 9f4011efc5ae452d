"""Domain checks: each passes once and fails once (C72)."""

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from assets.encoders import losses_of
from user_embeddings_dagster.evaluation.funnel import LOSSES
from user_embeddings_dagster.quality.domain import (
    caps_enforced,
    exactly_one_subject,
    finite_vectors,
    finite_weights,
    loss_fell,
    monotone_funnel,
    not_collapsed,
    split_leakage_none,
    tuned_not_worse_than_base,
    unit_norm,
)
from user_embeddings_dagster.quality.outcome import CheckOutcome
from user_embeddings_dagster.schema import DATA_FUNNEL, SCORES

RNG = np.random.default_rng(0)
UNIT = RNG.standard_normal((200, 32)).astype(np.float32)
UNIT /= np.linalg.norm(UNIT, axis=1, keepdims=True)
AT = datetime(2024, 1, 1, tzinfo=UTC)


def with_nan(vectors: np.ndarray) -> np.ndarray:
    bad = vectors.copy()
    bad[3, 1] = np.nan
    return bad


def test_finite_vectors():
    assert finite_vectors(UNIT).passed
    failed = finite_vectors(with_nan(UNIT))
    assert not failed.passed
    assert failed.metrics["not_finite"] == 1


def test_unit_norm():
    assert unit_norm(UNIT).passed
    assert unit_norm(UNIT[:0]).passed
    assert not unit_norm(UNIT * 1.01).passed
    assert not unit_norm(with_nan(UNIT)).passed


def test_not_collapsed():
    assert not_collapsed(UNIT).metrics["effective_rank"] > 20
    assert not_collapsed(UNIT).passed
    for few in (0, 1, 2, 3, 4):
        assert not_collapsed(UNIT[:few]).passed, few
    constant = not_collapsed(np.ones((100, 8)))
    assert not constant.passed
    assert constant.metrics["mean_cosine"] == pytest.approx(1)
    plane = np.concatenate([RNG.standard_normal((300, 2)), np.zeros((300, 30))], axis=1)
    assert not_collapsed(plane).metrics["effective_rank"] == pytest.approx(2, abs=0.1)
    assert not not_collapsed(plane).passed
    assert not not_collapsed(UNIT * 0.05 + np.eye(32)[0]).passed  # all in one narrow cone


def test_the_loss_fell_from_before_the_first_step():
    """An encoder that has learned by its first validation, and not since, has learned."""
    validated = [{"loss": 2.0, "valid_loss": loss} for loss in (1.0, 1.02)]
    lines = [{"loss": 4.0, "start_valid_loss": 3.0}, *validated]
    assert losses_of(lines) == [3.0, 1.0, 1.02] and loss_fell(losses_of(lines)).passed
    assert losses_of(lines[:2]) == [3.0, 1.0]
    assert losses_of([{"loss": 4.0}, {"loss": 3.0}]) == [4.0, 3.0]


def test_loss_fell():
    assert loss_fell([5.0, 4.0, 3.0]).passed
    assert not loss_fell([3.0, 4.0, 5.0]).passed
    assert not loss_fell([3.0] * 30).passed
    assert not loss_fell([5.0, float("nan"), 1.0]).passed
    assert not loss_fell([]).passed
    noisy = 5 * np.exp(-np.arange(100) / 30) + RNG.normal(0, 0.5, 100)
    assert loss_fell(noisy.tolist()).passed


def test_finite_weights(tmp_path):
    import torch
    from safetensors.torch import save_file

    weights = {"a": torch.randn(4, 4), "b": torch.randn(3).to(torch.bfloat16), "n": torch.arange(3)}
    save_file(weights, tmp_path / "adapter.safetensors")
    outcome = finite_weights(tmp_path)
    assert outcome.passed
    assert outcome.metrics == {"n": 19, "not_finite": 0, "files": 1}
    (tmp_path / "below").mkdir()
    for broken in (torch.tensor([1.0, float("inf")]), torch.tensor([float("nan")], dtype=torch.bfloat16)):
        save_file({"w": broken}, tmp_path / "below" / "w.safetensors")
        assert finite_weights(tmp_path).metrics["not_finite"] == 1
        assert not finite_weights(tmp_path).passed
    with pytest.raises(FileNotFoundError, match="no safetensors"):
        finite_weights(tmp_path / "nowhere")


def snapshot(rows) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["chunk_id", "datadao", "user_id", "split", "window_id"], orient="row")


def test_split_leakage_none():
    clean = snapshot([("c1", "d", "u1", "train", "w1"), ("c2", "d", "u2", "test", "w2")])
    assert split_leakage_none(clean).passed
    assert not split_leakage_none(clean.with_columns(window_id=pl.lit("w"))).passed
    assert not split_leakage_none(clean.with_columns(user_id=pl.lit("u"))).passed
    chunks = pl.DataFrame(
        {
            "chunk_id": ["c1", "c2"], "datadao": ["d", "d"], "user_id": ["u1", "u2"], "window_id": ["w1", "w2"],
            "thread_id": ["t", "t"], "started_at": [AT, AT], "ended_at": [AT, AT],
            "speakers": [["SUBJECT", "<P1>"], ["SUBJECT"]], "message_ids": [["m1", "m2"], ["m2"]],
        }
    )  # fmt: skip
    by_message = split_leakage_none(clean, chunks)  # other windows, one message: seen only with the chunks
    assert not by_message.passed
    assert by_message.metrics["trained_chunks_with_test_text"] == 1
    apart = chunks.with_columns(message_ids=pl.Series([["m1", "m3"], ["m2"]]))
    assert split_leakage_none(clean, apart.lazy()).passed


def difference(value: float | None, low: float | None, high: float | None) -> pl.DataFrame:
    row = {
        "asset": "item_encoder_scores", "datadao": "zig", "model": "tuned - untuned", "metric": "mrr_difference",
        "slice": "all", "value": value, "ci_low": low, "ci_high": high, "n": 9, "n_users": 9, "seed": 0,
        "split_hash": "a" * 32, "candidate_set": "full:9", "version": "1",
    }  # fmt: skip
    return pl.DataFrame([row], schema=SCORES.schema)


def test_tuned_not_worse_than_base_goes_by_the_interval():
    better = tuned_not_worse_than_base(difference(0.1, 0.05, 0.2))
    assert (better.passed, better.metrics["better"]) == (True, 1)
    assert tuned_not_worse_than_base(difference(-0.01, -0.05, 0.02)).passed  # not worse beyond chance
    assert not tuned_not_worse_than_base(difference(-0.1, -0.2, -0.05)).passed
    assert not tuned_not_worse_than_base(difference(-0.1, None, None)).passed
    assert tuned_not_worse_than_base(difference(0.1, None, None)).passed
    assert not tuned_not_worse_than_base(difference(None, None, None)).passed
    assert not tuned_not_worse_than_base(SCORES.empty()).passed


def funnel(**n: int) -> pl.DataFrame:
    rows = [("zig", order, stage, count, *[None] * 6) for order, (stage, count) in enumerate(n.items())]
    return pl.DataFrame(rows, schema=DATA_FUNNEL.schema, orient="row")


def test_monotone_funnel_and_caps():
    assert LOSSES[0] == "rejected"
    assert monotone_funnel(funnel(records_read=10, rejected=1, messages=9, chunks=5, embedded=5, snapshot=4)).passed
    failed = monotone_funnel(funnel(records_read=10, rejected=1, messages=8, chunks=5, embedded=6))
    assert (failed.passed, failed.metrics["violations"]) == (False, 2)
    histories = pl.DataFrame({"datadao": ["a"] * 3, "user_id": ["u"] * 3})
    assert caps_enforced(histories, 3).passed
    assert caps_enforced(histories, None).passed
    assert not caps_enforced(histories, 2).passed


def chunks(**changes) -> pl.DataFrame:
    columns = {
        "user_id": ["u1", "u2"],
        "speakers": [["SUBJECT", "<P1>", "ASSISTANT"], ["<P1>", "SUBJECT", "ASSISTANT"]],
        "turns": [["a", "b", "c"], ["a", "b", "c"]],
        "message_ids": [["m1", "m2", "m3"], ["m1", "m2", "m3"]],
        "n_subject_turns": [1, 1],
    }
    return pl.DataFrame(columns | changes)


def test_exactly_one_subject():
    """C9."""
    assert exactly_one_subject(chunks()).passed
    assert exactly_one_subject(chunks().clear()).passed
    broken = {
        "no_subject": {"speakers": [["<P1>", "<P2>", "<P3>"], ["<P1>", "SUBJECT", "<P2>"]], "n_subject_turns": [0, 1]},
        "miscounted": {"n_subject_turns": [2, 1]},
        "unmasked_speakers": {"speakers": [["SUBJECT", "alice", "<P1>"], ["<P1>", "SUBJECT", "<P2>"]]},
        "misaligned": {"turns": [["a", "b"], ["a", "b", "c"]]},
        "messages_of_two_subjects": {"speakers": [["SUBJECT", "<P1>", "<P2>"], ["SUBJECT", "<P1>", "<P2>"]]},
    }
    for name, change in broken.items():
        outcome = exactly_one_subject(chunks(**change).lazy())
        assert not outcome.passed, name
        assert [key for key, count in outcome.metrics.items() if count and key != "n"] == [name]
        assert "alice" not in repr(outcome)


def test_outcomes_refuse_what_an_event_log_cannot_show():
    with pytest.raises(ValueError, match="not finite"):
        CheckOutcome("x", True, metrics={"loss": float("nan")})
    with pytest.raises(ValueError, match="severity"):
        CheckOutcome("x", True, severity="fatal")
