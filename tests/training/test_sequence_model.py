import numpy as np
import polars as pl
import pytest
import torch

from training import sequence_mixers
from training.sequence_batches import Sampler, corpus_of, epoch_batches, segments
from training.sequence_features import fit_item_space, histories_from, states_of
from training.sequence_inference import SequenceEncoder
from training.sequence_model import SequenceModel, SequenceSettings
from user_embeddings_dagster.evaluation.baselines import (
    Tuning,
    baselines,
    fit_baselines,
    train_statistics,
    tune,
    whitened_decayed,
)
from user_embeddings_dagster.evaluation.ranking import unit


@pytest.fixture(scope="module")
def frame(samples):
    return samples.sequences()


@pytest.fixture(scope="module")
def histories(frame):
    parts = {name: frame.filter(pl.col("split") == name) for name in ("train", "valid")}
    return {name: histories_from(part)[0] for name, part in parts.items()}


@pytest.fixture(scope="module")
def space(histories):
    return fit_item_space(histories["train"], histories["valid"], ridge=0.1)


def _encoder(space, dimension, random_weights=False, mixer="recurrence", **settings):
    torch.manual_seed(0)
    settings = {"dimension": dimension, "seed": 0, "heads": 2, "mixer": mixer} | settings
    model = SequenceModel(SequenceSettings(**settings), len(space.prior), len(space.mean))
    if random_weights:  # as after training: nothing is zero
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.normal_(std=0.3)
    return SequenceEncoder(model, space, "test")


@pytest.mark.parametrize("dimension", [16, 24, 32, 64])
def test_before_training_the_prediction_is_the_tuned_whitened_baseline(frame, histories, space, dimension):
    """C34: training starts at the baseline exactly, for every state at least as wide as the item space."""
    train, valid = histories["train"], histories["valid"]
    statistics = train_statistics(train.vectors, 0.1)
    tuning = tune(valid, statistics)
    baseline = whitened_decayed(valid, statistics, tuning.whitened_decay, tuning.mean_weight)
    encoder = _encoder(space, dimension)
    part = frame.filter(pl.col("split") == "valid")
    _, queries = encoder.encode_positions(part)
    scores = queries @ encoder.targets(np.stack(part["vector"].to_list())).T
    rows = histories_from(part)[1]
    expected = unit(baseline.queries) @ baseline.candidates.T
    np.testing.assert_allclose(scores[rows][:, rows], expected, atol=2e-6)


@pytest.fixture(scope="module")
def in_context(samples):
    """Frame, histories by split and space of chunks with contexts."""
    frame = samples.sequences(contexts=True)
    histories = {name: histories_from(frame.filter(split=name))[0] for name in ("train", "valid")}
    return frame, histories, fit_item_space(histories["train"], histories["valid"], ridge=0.1)


def test_with_contexts_it_is_the_baseline_in_context(in_context):
    """C34: training starts there, exactly."""
    frame, histories, space = in_context
    fitted = fit_baselines(histories["train"], histories["valid"])
    baseline = baselines(fitted)["whitened_in_context_tuned"](histories["valid"])
    part = frame.filter(split="valid")
    encoder, rows = _encoder(space, 32), histories_from(part)[1]
    _, queries = encoder.encode_positions(part)
    candidates = encoder.targets(histories["valid"].vectors, histories["valid"].contexts)
    expected = unit(baseline.queries) @ baseline.candidates.T
    np.testing.assert_allclose(queries[rows] @ candidates.T, expected, atol=3e-6)


def test_the_mean_of_a_person_is_of_the_items_alone(in_context):
    """What others said tells nothing of who SUBJECT is: other contexts, the same mean and rhythm in the state."""
    frame, _, space = in_context
    encoder = _encoder(space, 64)
    other = frame.with_columns(pl.col("context").list.eval(-pl.element()))
    state, changed = encoder.encode_users(frame).state, encoder.encode_users(other).state
    assert np.array_equal(state[:, 28:], changed[:, 28:])
    assert np.abs(state[:, :28] - changed[:, :28]).max() > 0.1


def test_contexts_that_an_encoder_reads_must_be_there(in_context):
    frame, _, space = in_context
    with pytest.raises(ValueError, match="reads contexts"):
        _encoder(space, 16).encode_users(frame.drop("context"))
    nobody = _encoder(space, 16).encode_users(frame.clear())
    assert len(nobody.user_ids) == 0


def test_a_small_state_keeps_the_most_predictable_coordinates(frame, space):
    whole = _encoder(space, 16).encode_users(frame)
    small = _encoder(space, 4).encode_users(frame)
    np.testing.assert_allclose(small.state, whole.state[:, :4], atol=1e-6)
    assert np.all(small.projected[:, 4:] == 0)


def test_predictable_axes_come_first(frame, histories, space):
    """Broken twin: the axes in reverse order predict worse from the same number of coordinates."""
    valid = histories["valid"]
    items, _ = space.maps(valid.vectors, None)
    following = np.flatnonzero(valid.positions > 0)
    lagged = (states_of(valid, space).pools[:, :16][_states_before(valid, following)] * items[following]).mean(axis=0)
    assert lagged[:4].sum() > lagged[-4:].sum()


def _states_before(histories, rows):
    """State row before each chunk row: one state more than chunks for each history so far."""
    return rows + histories.history_of_row[rows]


def test_distances_between_pooled_histories_survive_in_the_state(frame, histories, space):
    """With room for both pools, the state is the pools: no information about the person is lost."""
    state = _encoder(space, 64).encode_users(frame).state
    assert np.linalg.matrix_rank(state) == min(len(state), 34)
    assert np.all(state[:, 34:] == 0)


@pytest.mark.parametrize("mixer", ["attention", "recurrence"])
@pytest.mark.parametrize("dimension", [8, 64])
def test_a_later_chunk_changes_no_earlier_state(frame, space, dimension, mixer):
    """C35: changing chunk t + 1 leaves the states up to t; it changes the states from t + 1 on."""
    assert _earliest_change(frame, _encoder(space, dimension, random_weights=True, mixer=mixer)) == {3, 6}


def test_attention_that_looks_ahead_is_caught(frame, space, monkeypatch):
    """C35: broken twin; without the causal mask the change reaches back to the first state."""
    attention = sequence_mixers.F.scaled_dot_product_attention
    monkeypatch.setattr(
        sequence_mixers.F,
        "scaled_dot_product_attention",
        lambda q, k, v, attn_mask, dropout_p: attention(q, k, v),
    )
    assert _earliest_change(frame, _encoder(space, 8, random_weights=True, mixer="attention")) == {0}


def test_a_recurrence_that_looks_ahead_is_caught(frame, space, monkeypatch):
    """C35: broken twin; a scan over the reversed stream lets earlier states see later chunks."""
    scan = sequence_mixers.linear_scan
    monkeypatch.setattr(
        sequence_mixers, "linear_scan", lambda keep, values, longest: scan(keep, values.flip(0), longest).flip(0)
    )
    assert _earliest_change(frame, _encoder(space, 8, random_weights=True)) == {0}


def _earliest_change(frame, encoder):
    """First position whose state changes when chunk 3 or chunk 6 of everyone (who has so many) changes."""
    earliest = set()
    for changed in (3, 6):
        long = frame.filter(pl.len().over("user_id") > 7).sort("user_id", "position")
        turned = pl.when(pl.col("position") == changed).then(pl.col("vector").list.reverse())
        other = long.with_columns(vector=turned.otherwise(pl.col("vector")))
        before, after = encoder.encode_positions(long)[0], encoder.encode_positions(other)[0]
        differs = np.abs(before - after).max(axis=1) > 1e-6
        earliest.add(int(long["position"].to_numpy()[differs].min()))
    return earliest


def test_the_time_of_a_later_chunk_changes_no_earlier_state(frame, space):
    """C35: time gaps are inputs too."""
    encoder = _encoder(space, 8, random_weights=True)
    last = pl.col("position") == pl.col("position").max().over("user_id")
    later = frame.with_columns(
        ended_at=pl.when(last).then(pl.col("ended_at") + pl.duration(days=900)).otherwise(pl.col("ended_at"))
    )
    differs = np.abs(encoder.encode_positions(frame)[0] - encoder.encode_positions(later)[0]).max(axis=1) > 1e-6
    is_last = frame.select(last).to_series().to_numpy()
    assert not np.any(differs & ~is_last)
    assert np.any(differs), "the gap before the last chunk is seen by its own state"


@pytest.mark.parametrize(("dimension", "width"), [(64, 64), (128, 128), (4096, 128)])
def test_the_inner_width_is_capped(dimension, width):
    assert SequenceSettings(dimension=dimension, seed=0).inner_width == width
    assert SequenceSettings(dimension=4096, seed=0, width=9999).inner_width == 256


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"seed": 1}, "missing"),
        ({"seed": 1, "dimension": 0}, "dimension"),
        ({"seed": 1, "dimension": 6}, "heads"),
        ({"seed": 1, "dimension": 8, "same_user_negatives": "some"}, "same_user_negatives"),
    ],
)
def test_a_wrong_configuration_is_refused(config, complaint):
    with pytest.raises(ValueError, match=complaint):
        SequenceSettings.of(config)


def test_every_coordinate_of_a_wide_state_gets_a_gradient(frame, histories, space):
    """Coordinates beyond the pools start at zero but can be trained."""
    model = _encoder(space, 64).model
    sampler = Sampler(_corpus(histories["train"], space), 256, 10_000, 0, 0)
    batch = sampler.batch(0)
    model.project(model(batch.inputs)[0][batch.queries]).square().sum().backward()
    assert torch.all(model.output.weight.grad.abs().sum(dim=1)[34:] > 0)


def _corpus(histories, space):
    one = np.zeros(len(histories.vectors))
    return corpus_of(histories, states_of(histories, space), histories.chunk_ids, one, "cpu")


def test_an_epoch_holds_every_piece_once_within_the_budget():
    lengths = np.random.default_rng(1).integers(1, 50, 200)
    pieces = np.stack([np.cumsum(lengths) - lengths, lengths], axis=1)
    batches = epoch_batches(pieces, 256, seed=0, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(200))
    filled = [pieces[rows, 1].sum() for rows in batches]
    assert max(filled) <= 256
    assert np.mean(filled[:-1]) > 256 - 50, "a batch ends where the next piece would not fit"
    assert [b.tolist() for b in batches] != [b.tolist() for b in epoch_batches(pieces, 256, seed=0, epoch=1)]


def test_a_piece_longer_than_the_budget_is_a_batch_of_its_own():
    pieces = np.array([[0, 500], [500, 3], [503, 4]])
    batches = epoch_batches(pieces, 100, seed=0, epoch=0)
    assert [0] in [rows.tolist() for rows in batches]
    assert sorted(np.concatenate(batches).tolist()) == [0, 1, 2]


def test_every_chunk_is_predicted_once_an_epoch_even_in_cut_histories(histories, space):
    corpus = _corpus(histories["train"], space)
    sampler = Sampler(corpus, max_length=4, batch_chunks=40, extra_keys=5, seed=0)
    batches = [sampler.batch(step) for step in range(len(epoch_batches(sampler.pieces, 40, 0, 0)))]
    predicted = torch.cat([batch.key_rows[batch.positives] for batch in batches])
    assert sorted(predicted.tolist()) == list(range(corpus.n_chunks))
    assert segments(corpus.states, 4)[:, 1].max() <= 4
    states = corpus.states
    for begin, length in segments(states, 4):  # or a batch of last states alone would have the loss NaN
        assert (states.target[begin : begin + length] >= 0).any()


def test_the_batch_of_a_step_depends_on_the_step_alone(histories, space):
    """What makes resuming exact: a sampler that starts at step 7 draws what one that ran there draws."""
    corpus = _corpus(histories["train"], space)
    ran, fresh = (Sampler(corpus, 256, 40, 5, seed=3) for _ in range(2))
    for step in range(30):
        expected = ran.batch(step)
    batch = fresh.batch(29)
    assert torch.equal(batch.key_rows, expected.key_rows) and torch.equal(batch.inputs.items, expected.inputs.items)


def test_without_validation_users_the_untuned_baseline_is_used(histories):
    nobody = histories["valid"].ranges(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int))
    space = fit_item_space(histories["train"], nobody, ridge=0.1)
    assert (space.decay, space.mean_weight) == (Tuning().whitened_decay, Tuning().mean_weight)


def test_vectors_that_are_not_finite_are_refused(frame):
    broken = frame.with_columns(vector=pl.col("vector").list.eval(pl.element() * float("nan")))
    with pytest.raises(ValueError, match="NaN"):
        histories_from(broken)
