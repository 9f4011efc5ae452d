import numpy as np
import polars as pl
import pytest

from training.sequence_inference import SequenceEncoder
from user_embeddings_dagster.evaluation.ranking import full_ranks
from user_embeddings_dagster.storage.manifest import CorruptArtifact


@pytest.fixture(scope="module")
def frame(samples):
    return samples.sequences()


@pytest.fixture(scope="module")
def folder(samples, frame, train_sequence_encoder, tmp_path_factory):
    root = tmp_path_factory.mktemp("sequence")
    config = {
        "dimension": 24,
        "heads": 2,
        "steps": 120,
        "layers": 2,
        "temperature": 0.05,
        "learning_rate": 3e-3,
        "batch_chunks": 128,
    }
    return train_sequence_encoder(samples.write_inputs(root / "inputs", frame, **config), root / "output")


@pytest.fixture(scope="module")
def encoder(folder):
    return SequenceEncoder.load(folder)


@pytest.fixture(scope="module")
def unseen(samples):
    return samples.sequences(users=30, seed=1, valid_share=0)


def test_one_row_per_user_with_counts_and_times(encoder, unseen):
    users = encoder.encode_users(unseen)
    expected = unseen.group_by("user_id").agg(pl.len(), pl.col("ended_at").max()).sort("user_id")
    assert users.user_ids.tolist() == expected["user_id"].to_list()
    assert users.n_chunks.tolist() == expected["len"].to_list()
    assert users.last_chunk_at.tolist() == expected["ended_at"].dt.replace_time_zone(None).to_list()
    assert users.state.shape == (30, 24) and users.state.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(users.projected, axis=1), 1, atol=1e-5)
    assert np.isfinite(users.state).all()


def test_the_state_of_a_user_is_the_state_after_the_last_chunk(encoder, unseen):
    shuffled = unseen.sample(fraction=1.0, shuffle=True, seed=4)
    state, query = encoder.encode_positions(shuffled)
    last = shuffled.select((pl.col("position") == pl.col("position").max().over("user_id")).alias("last"), "user_id")
    rows = np.flatnonzero(last["last"].to_numpy())
    rows = rows[np.argsort(last["user_id"].to_numpy()[rows])]
    users = encoder.encode_users(unseen)
    np.testing.assert_allclose(state[rows], users.state, atol=2e-6)
    np.testing.assert_allclose(query[rows], users.projected, atol=2e-6)


def test_a_users_state_does_not_depend_on_the_batch(encoder, unseen):
    together = encoder.encode_users(unseen)
    for index in (0, 11, 29):
        alone = encoder.encode_users(unseen.filter(pl.col("user_id") == together.user_ids[index]))
        np.testing.assert_allclose(alone.state[0], together.state[index], atol=2e-6)
    again = encoder.encode_users(unseen)
    assert np.array_equal(again.state, together.state), "deterministic"


def _next_chunks(encoder, frame):
    """Rows of chunks with a chunk of their user before them, and the queries made from those before."""
    frame = frame.with_row_index("row")
    before = frame.select("user_id", pl.col("position") + 1, before="row")
    pairs = frame.join(before, on=["user_id", "position"]).sort("row")
    return pairs["row"].to_numpy(), encoder.encode_positions(frame)[1][pairs["before"].to_numpy()]


def test_training_learned_the_rule_that_pooling_cannot(encoder, folder, unseen):
    """C34: on users it never saw, the next chunk ranks higher than before training."""
    rows, queries = _next_chunks(encoder, unseen)
    candidates = encoder.targets(np.stack(unseen["vector"].to_list()))
    trained = (1 / full_ranks(queries, candidates, rows).rank).mean()
    for parameter in (encoder.model.output.weight, encoder.model.output.bias, encoder.model.projector.weight):
        assert parameter.abs().sum() > 0
    untrained = SequenceEncoder.load(folder)
    for parameter in (untrained.model.output, untrained.model.projector):
        for tensor in parameter.parameters():
            tensor.data.zero_()
    rows, queries = _next_chunks(untrained, unseen)
    assert trained > 1.5 * (1 / full_ranks(queries, candidates, rows).rank).mean()


def test_zero_history_is_the_population_prior(encoder, unseen):
    """C38: no error, and no direction out of nothing."""
    state, query = encoder.prior()
    assert state.shape == (24,) and query.shape == (16,)
    assert np.isfinite(state).all() and np.linalg.norm(query) == pytest.approx(1, abs=1e-5)
    nobody = encoder.encode_users(unseen.clear())
    assert nobody.state.shape == (0, 24) and nobody.projected.shape == (0, 16) and len(nobody.user_ids) == 0
    assert [part.shape for part in encoder.encode_positions(unseen.clear())] == [(0, 24), (0, 16)]


@pytest.mark.parametrize("name", ["model.safetensors", "encoder.json"])
def test_a_damaged_encoder_is_not_loaded(folder, name, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CorruptArtifact, match=name):
        SequenceEncoder.load(tmp_path)
