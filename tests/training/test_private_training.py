import json

import numpy as np
import polars as pl
import pytest
import torch

from training import differential_privacy, private_training, sequence_training
from training.cpc import cpc_objective, negatives_of
from training.differential_privacy import NO_PRIVACY, clipped
from training.job import Job
from training.private_training import PrivateTrainer
from training.record import read
from training.sequence_batches import assemble
from user_embeddings_dagster.privacy.containment import ContainedError

CLIP = 0.5
CONFIG = {
    "dimension": 16, "heads": 2, "steps": 12, "evaluate_every": 4, "patience": 99, "extra_keys": 32,
    "negatives": "public", "public_datadaos": ["pushshift"], "dp_noise": 1.0, "dp_clip": CLIP,
    "dp_sampling_rate": 0.3, "dp_secret": False,
}  # fmt: skip


# All users in the step, plain InfoNCE, no noise.
STEEP = {"dp_noise": 0.0, "dp_sampling_rate": 1.0, "truncation": 0.0, "same_user_negatives": "all"}


@pytest.fixture(scope="module")
def frame(samples):
    """40 users of two private DataDAOs (ten have chunks in both) and 20 public ones."""
    private = samples.sequences(users=40, seed=1, valid_share=0.2)
    second = private.filter(pl.col("user_id") >= f"{30:032x}").with_columns(
        datadao=pl.lit("telegram"), chunk_id="t" + pl.col("chunk_id"), window_id="t" + pl.col("window_id")
    )
    public = samples.sequences(users=20, seed=2).with_columns(
        datadao=pl.lit("pushshift"), user_id="p" + pl.col("user_id"), window_id="p" + pl.col("window_id"),
        chunk_id="p" + pl.col("chunk_id"),
    )  # fmt: skip
    return pl.concat([private, second, public])


@pytest.fixture(scope="module")
def output(samples, frame, train_sequence_encoder, tmp_path_factory):
    root = tmp_path_factory.mktemp("private")
    return train_sequence_encoder(samples.write_inputs(root / "inputs", frame, **CONFIG), root / "output")


@pytest.fixture
def trainer(samples, tmp_path, monkeypatch):
    """The trainer of a frame, before its first step."""

    def build(frame, **config):
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        job = Job("sequence_encoder", samples.write_inputs(folder, frame, **CONFIG | config), folder / "output", "test")
        job.prepare()
        made = []

        class Stopped(PrivateTrainer):
            def run(self):
                made.append(self)
                raise InterruptedError

        monkeypatch.setattr(private_training, "PrivateTrainer", Stopped)
        with pytest.raises(InterruptedError):
            sequence_training.train(job)
        return made[0]

    return build


def _record(output):
    return json.loads((output / "job.json").read_text())


def _adversary(frame):
    """One more user, who says backwards what all others have said."""
    rows = frame.filter((pl.col("datadao") == "reddit") & (pl.col("split") == "train"))
    rows = rows.with_columns(
        user_id=pl.lit("z" * 32), chunk_id="z" + pl.col("chunk_id"), window_id="z" + pl.col("window_id"),
        position=pl.int_range(pl.len(), dtype=pl.Int64),
        vector=pl.Series(rows["vector"].reverse().to_list(), dtype=pl.List(pl.Float32)),
    )  # fmt: skip
    return pl.concat([frame, rows])


def _move(part):
    """Away from the start, where most gradients are zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in part.parameters:
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("negatives", ["own", "public"])
@pytest.mark.parametrize("temperature", [0.05, 1e-5])
def test_no_user_moves_the_sum_by_more_than_the_clip(trainer, frame, negatives, temperature):
    """C20: the same step with and without one user, whatever the gradients' size; q = 1, so that all are in it."""
    config = STEEP | {"negatives": negatives, "temperature": temperature}
    without, joined = trainer(frame, **config), trainer(_adversary(frame), **config)
    _move(without)
    _move(joined)
    moved = float((joined.private_sum(0) - without.private_sum(0)).norm())
    rounding = 1e-6  # where a table lies in memory decides the last bits of float32 products on some processors
    assert 0.99 * CLIP < moved <= CLIP + rounding, "the clip is reached, and not passed"


def _coupled_sum(part):
    """The twin: clipped per user just the same, but the negatives are the chunks of every user of the batch."""
    corpus = part.corpora["train"]
    keys_of_all = np.unique(np.concatenate([assemble(corpus, p, 0, None).key_rows.numpy() for p in part.users]))
    total = torch.zeros(part.size, dtype=torch.float64)
    for pieces in part.users:
        batch = assemble(corpus, pieces, 0, None)
        positives = torch.from_numpy(np.searchsorted(keys_of_all, batch.key_rows[batch.positives].numpy()))
        keys = corpus.keys.take(torch.from_numpy(keys_of_all))
        allowed = negatives_of(positives, keys, "future", across_datadaos=True)
        loss = cpc_objective(part._queries(batch), corpus.items[keys_of_all], positives, allowed, allowed, 0.01, 0.0)
        gradients = torch.autograd.grad(loss, part.parameters, allow_unused=True, materialize_grads=True)
        total += clipped(torch.cat([g.flatten() for g in gradients]), CLIP)
    return total


def test_clipping_does_not_bound_a_user_who_is_others_negative(trainer, frame):
    """The control of F7: with negatives from the batch, the same user moves the others' clipped gradients too."""
    config = STEEP | {"temperature": 0.01}
    without, joined = trainer(frame, **config), trainer(_adversary(frame), **config)
    _move(without)
    _move(joined)
    assert float((_coupled_sum(joined) - _coupled_sum(without)).norm()) > 1.5 * CLIP


def test_all_datadaos_of_a_person_are_one_user(trainer, frame):
    part = trainer(frame)
    train = frame.filter((pl.col("split") == "train") & (pl.col("datadao") != "pushshift"))
    assert len(part.users) == train["user_id"].n_unique() < train.n_unique(["datadao", "user_id"])


def test_nothing_but_the_sum_depends_on_protected_users(trainer, frame):
    """Item space, tuning, negatives, early stopping: the same with half of the protected users gone."""
    whole = trainer(frame)
    fewer = trainer(frame.filter((pl.col("datadao") == "pushshift") | (pl.col("user_id") < f"{20:032x}")))
    for name in sequence_training.SPACE:
        assert np.array_equal(getattr(whole.space, name), getattr(fewer.space, name)), name
    assert (whole.space.decay, whole.space.mean_weight) == (fewer.space.decay, fewer.space.mean_weight)
    assert whole.validate() == fewer.validate()

    def drawn(part):
        return part.splits.train.chunk_ids[part._public_negatives(7)].tolist()

    assert drawn(whole) == drawn(fewer) and all(chunk.startswith("p") for chunk in drawn(whole))


def test_a_step_without_anybody_still_adds_noise(trainer, frame):
    part = trainer(frame, dp_sampling_rate=1e-12)
    noise = part.private_sum(0)
    assert float(noise.std()) == pytest.approx(CLIP, rel=0.05), "σ C with σ = 1"


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"negatives": "batch", "public_datadaos": []}, "dp_noise 1.0 with negatives 'batch'"),
        ({"negatives": None, "public_datadaos": []}, "negatives must be one of"),
        ({"public_datadaos": []}, "without public_datadaos"),
        ({"negatives": "own", "same_user_negatives": "none"}, "leave no negative"),
        ({"negatives": "batch", "dp_noise": 0.0}, "public_datadaos have no use"),
        ({"dp_nose": 1.0}, "dp_nose"),
        ({"dp_noise": -1.0}, "dp_noise"),
        ({"dp_noise": float("nan")}, "dp_noise"),
        ({"dp_clip": 0.0}, "dp_clip"),
        ({"dp_delta": 0.0}, "dp_delta"),
        ({"dp_sampling_rate": 1.5}, "dp_sampling_rate"),
        ({"public_datadaos": ["nobody"]}, "no public users"),
        ({"public_datadaos": ["pushshift", "reddit", "telegram"]}, "no training users but public ones"),
    ],
)
def test_what_would_make_epsilon_false_is_refused(samples, frame, train_sequence_encoder, tmp_path, changed, told):
    """F7: coupled losses, and everything else that nothing would protect, by the name of the setting."""
    inputs = samples.write_inputs(tmp_path / "inputs", frame, **CONFIG | changed)
    with pytest.raises(ValueError, match=told):
        train_sequence_encoder(inputs, tmp_path / "output")
    assert not (tmp_path / "output").exists()


def test_the_result_says_what_it_cost_and_nothing_of_its_users(output):
    metadata, lines = _record(output)["metadata"], read(output / "metrics.jsonl")
    described = json.loads((output / "encoder.json").read_text())
    epsilon = metadata["dp_epsilon"]
    assert (
        metadata["privacy"].startswith(f"per user ({epsilon:.3g}, 1e-05)-DP") and "no protection" in metadata["privacy"]
    )
    assert [metadata[f"dp_{name}"] for name in ("noise", "clip", "delta", "sampling_rate", "steps")] == [
        1.0, CLIP, 1e-5, 0.3, 12,
    ]  # fmt: skip
    spent = [line["epsilon"] for line in lines]
    assert spent == sorted(set(spent)) and spent[-1] == epsilon
    assert described["metrics"]["dp_epsilon"] == epsilon and described["privacy"]["dp_noise"] == 1.0
    told = set(metadata) | {name for line in lines for name in line}
    assert not told & {"loss", "start_loss", "end_loss", "train_users", "train_chunks"}, "the protected users' own"
    assert "valid_loss" in lines[0] and "valid_loss" in lines[-1]
    assert not any("key" in path.name for path in output.rglob("*"))


def test_early_stopping_does_not_lower_epsilon(samples, frame, train_sequence_encoder, tmp_path):
    config = CONFIG | {"steps": 40, "learning_rate": 0.3, "evaluate_every": 1, "patience": 2}
    metadata = _record(
        train_sequence_encoder(samples.write_inputs(tmp_path / "inputs", frame, **config), tmp_path / "output")
    )["metadata"]
    assert metadata["trained_steps"] < 40 and metadata["dp_steps"] == 40


def test_without_noise_it_says_so(samples, frame, train_sequence_encoder, tmp_path):
    for number, config in enumerate(
        ({"dp_noise": 0.0}, {"dp_noise": 0.0, "negatives": "batch", "public_datadaos": []})
    ):
        inputs = samples.write_inputs(tmp_path / f"inputs{number}", frame, **CONFIG | config | {"steps": 2})
        metadata = _record(train_sequence_encoder(inputs, tmp_path / f"output{number}"))["metadata"]
        assert metadata["privacy"] == NO_PRIVACY and not any(name.startswith("dp_") for name in metadata)


@pytest.mark.parametrize("secret", [False, True])
def test_a_private_training_that_stops_goes_on_to_the_same_weights(
    samples, frame, train_sequence_encoder, tmp_path, monkeypatch, secret
):
    """C20, C68: noise and samples are of the step. A secret key is drawn once: else one sum would show two noises."""
    config = CONFIG | {"dp_secret": secret, "checkpoint_seconds": 0}
    inputs = samples.write_inputs(tmp_path / "inputs", frame, **config)
    keys = iter([bytes(32), b"another key, were one drawn again"])
    monkeypatch.setattr(differential_privacy.os, "urandom", lambda n: next(keys)[:n])
    step = Job.step
    uninterrupted = train_sequence_encoder(inputs, tmp_path / "uninterrupted")
    keys = iter([bytes(32), b"another key, were one drawn again"])

    def stopping(self, number, *arguments, **values):
        step(self, number, *arguments, **values)
        if number == 5:
            raise InterruptedError("stopped")

    monkeypatch.setattr(Job, "step", stopping)
    with pytest.raises(ContainedError, match="InterruptedError"):
        train_sequence_encoder(inputs, tmp_path / "output")
    assert (tmp_path / "output.work" / "dp.key").exists() is secret
    monkeypatch.setattr(Job, "step", step)
    train_sequence_encoder(inputs, tmp_path / "output")
    assert _record(tmp_path / "output")["data_version"] == _record(uninterrupted)["data_version"]
    assert [line["step"] for line in read(tmp_path / "output" / "metrics.jsonl")] == list(range(1, 13))
