import numpy as np
import polars as pl
import pytest
import torch

from training.sequence_features import RHYTHM, fit_item_space, histories_from
from training.sequence_inference import SequenceEncoder
from training.sequence_memory import from_bytes
from training.sequence_model import SequenceModel, SequenceSettings

KINDS = {"recurrence": {}, "attention": {"mixer": "attention", "window": 8}}


@pytest.fixture(scope="module", params=[False, True], ids=["items", "items and contexts"])
def frame(samples, request):
    return samples.sequences(longest=40, contexts=request.param)


def _encoder(frame, dimension=40, **settings):
    """An encoder with random weights: after training, too, nothing is zero."""
    parts = {name: histories_from(frame.filter(pl.col("split") == name))[0] for name in ("train", "valid")}
    space = fit_item_space(parts["train"], parts["valid"], ridge=0.1)
    torch.manual_seed(0)
    model = SequenceModel(
        SequenceSettings(dimension=dimension, seed=0, heads=2, **settings), len(space.prior), len(space.mean)
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return SequenceEncoder(model, space, "test")


@pytest.fixture(scope="module", params=KINDS)
def encoder(request, frame):
    return _encoder(frame, **KINDS[request.param])


def _split(frame, n):
    """Users with more than n chunks: their first n chunks, and the rest."""
    long = frame.filter(pl.len().over("user_id") > n).sort("user_id", "position")
    return long.filter(pl.col("position") < n), long.filter(pl.col("position") >= n)


def _advanced(encoder, memory, rest, ids):
    """Memory, state and query of each user after the chunks of `rest`, one at a time."""
    state = np.zeros((len(ids), encoder.dimension), dtype=np.float32)
    query = np.zeros((len(ids), encoder.item_dimension), dtype=np.float32)
    for step in rest.partition_by("position", maintain_order=True):
        rows = np.searchsorted(ids, step["user_id"].to_numpy())
        vectors = np.stack(step["vector"].to_list()).astype(np.float32)
        ended = step["ended_at"].dt.epoch("s").to_numpy()
        contexts = np.stack(step["context"].to_list()) if "context" in step.columns else None
        memory[rows], state[rows], query[rows] = encoder.advance(memory[rows], vectors, contexts, ended)
    return memory, state, query


@pytest.mark.parametrize("read", [1, 6, 20])
def test_advancing_equals_encoding_the_whole_history(encoder, frame, read):
    """C39: within 1e-4, from a stored memory, for several users at once."""
    first, rest = _split(frame, read)
    before = encoder.encode_users(first)
    expected = encoder.encode_users(pl.concat([first, rest]))
    memory, state, query = _advanced(encoder, before.memory.copy(), rest, before.user_ids)
    np.testing.assert_allclose(state, expected.state, atol=1e-4)
    np.testing.assert_allclose(query, expected.projected, atol=1e-4)
    stored, full = from_bytes(memory, encoder.model), from_bytes(expected.memory, encoder.model)
    assert np.array_equal(stored.counts, full.counts) and np.array_equal(stored.ended, full.ended)


def test_advancing_from_nothing_equals_encoding(encoder, frame):
    """C38, C39: a user's first chunk needs no encoding of a history."""
    expected = encoder.encode_users(frame)
    _, state, _ = _advanced(encoder, encoder.fresh(len(expected.user_ids)), frame, expected.user_ids)
    np.testing.assert_allclose(state, expected.state, atol=1e-4)


def test_a_memory_that_lost_its_mixers_is_caught(encoder, frame):
    """Broken twin: sums and counts alone do not give the same state."""
    first, rest = _split(frame, 6)
    before = encoder.encode_users(first)
    memory = before.memory.copy()
    memory[:, 16 + 4 * (2 * encoder.item_dimension + 16 + RHYTHM) :] = 0
    _, state, _ = _advanced(encoder, memory, rest, before.user_ids)
    assert np.abs(state - encoder.encode_users(pl.concat([first, rest])).state).max() > 1e-3


def test_a_memory_has_one_size_at_any_length(encoder, frame, samples):
    long = samples.sequences(users=2, shortest=300, longest=301, contexts="context" in frame.columns)
    assert encoder.encode_users(long).memory.shape[1] == encoder.encode_users(frame).memory.shape[1]
    assert encoder.encode_users(frame.clear()).memory.shape == (0, encoder.fresh(1).shape[1])


@pytest.mark.parametrize("settings", [{}, {"mixer": "attention"}])
def test_the_memory_of_a_platforms_encoder_is_small(frame, settings):
    """At most 256 kB a user, for the widest state and MiniLM's 384 dimensions."""
    model = SequenceModel(SequenceSettings(dimension=4096, seed=0, **settings), 768, 384)
    size = 16 + 4 * (2 * 768 + 384 + RHYTHM + sum(part[0].numel() for part in model.fresh(1)))
    assert size + 4 * 4096 <= 256_000


def test_the_memory_of_another_model_is_refused(frame):
    memory = _encoder(frame).encode_users(frame).memory
    with pytest.raises(ValueError, match="not of this model"):
        _encoder(frame, layers=3).advance(
            memory, np.zeros((len(memory), 16)), np.zeros((len(memory), 12)), np.zeros(len(memory), np.int64)
        )
