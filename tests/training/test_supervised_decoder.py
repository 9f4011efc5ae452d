"""The supervised stage on a population whose words follow from their items."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from made_up_population import CHUNKS, GROUPS, SUPERVISED, Population, finished, metrics, record, terminated

from training.decoder import load_decoder, weights_hash
from training.job import Job
from training.llm_inputs import Choices, LLMInputs, tokens_of
from training.personalised_inference import TrainedLLM
from training.personalised_model import PRESETS
from training.supervised_decoder import Config, SupervisedTraining, train

NAME = "supervised_decoder"
CHANCE = 1 / len(GROUPS)


@pytest.fixture(scope="module")
def output(population: Population, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("supervised")
    return finished(NAME, train, population.inputs(root / "inputs", **SUPERVISED), root / "output")


def loaded(population: Population, folder: Path, **config: Any) -> LLMInputs:
    return LLMInputs(Job(NAME, population.inputs(folder / "read", **config), folder / "none", "test"), "cpu")


def test_users_choices_are_found_by_their_own_states_and_not_by_others(
    population: Population, output: Path, tmp_path: Path
) -> None:
    """C43: of held-out users; with the state of a user of the next group, that group's text is chosen instead."""
    assert metrics(output, "valid_accuracy")[0] < 0.6, "before the first step"
    assert record(output)["valid_accuracy"] > 0.9
    inputs = loaded(population, tmp_path)
    llm = TrainedLLM.load(output, inputs.decoder_folder)
    states = llm.user_states(inputs.encoder, inputs.sequences)
    choices = Choices(inputs, llm.model, inputs.choices("test"), longest=40)
    rows = list(range(len(choices)))

    def accuracy(moments) -> float:
        chosen = choices.gains(llm.model, states, moments, rows).argmax(1)
        return float((chosen == choices.answers).float().mean())

    assert accuracy(choices.asked) > 0.9
    owners = {user: int(user[1].removeprefix("test")) for user, _ in choices.asked}
    others = [((user[0], f"test{(owners[user] + 1) % 12}"), seen) for user, seen in choices.asked]
    assert accuracy(others) < CHANCE


def test_states_that_say_nothing_of_their_users_teach_nothing(population: Population, tmp_path: Path) -> None:
    """Control: the same job, each history's items being somebody else's, stays at chance on held-out users."""
    order = np.random.default_rng(5).permutation(population.sequences.height // CHUNKS)
    rows = (order[:, None] * CHUNKS + np.arange(CHUNKS)).ravel()
    shuffled = population.sequences.with_columns(vector=population.sequences["vector"].gather(rows))
    inputs = population.inputs(tmp_path / "inputs", **SUPERVISED)
    shuffled.write_parquet(inputs / "sequences.parquet")
    assert record(finished(NAME, train, inputs, tmp_path / "output"))["valid_accuracy"] < 2 * CHANCE


def test_the_decoder_is_the_same_before_and_after(population: Population, output: Path) -> None:
    """C42: frozen means the same bytes."""
    assert record(output)["frozen_hash"] == weights_hash(load_decoder(population.decoder)[0])


@torch.no_grad()
def test_of_whom_nothing_is_known_the_bare_decoder_speaks(population: Population, output: Path, tmp_path: Path) -> None:
    """C38, C42: no chunk, no token: after training too, to the bit."""
    inputs = loaded(population, tmp_path)
    llm = TrainedLLM.load(output, inputs.decoder_folder)
    states = llm.user_states(inputs.encoder, inputs.sequences)
    nobody, somebody = (
        tokens_of(llm.model, states, [moment], "cpu") for moment in ((("zig", "new"), 0), (("zig", "test0"), CHUNKS))
    )
    assert nobody.abs().max() == 0
    ids = torch.randint(1, 200, (1, 12))
    bare = llm.model.log_likelihoods(None, ids)
    assert torch.equal(llm.model.log_likelihoods(nobody, ids), bare)
    assert (llm.model.log_likelihoods(somebody, ids) - bare).abs().max() > 1e-3


def test_it_begins_with_what_a_linear_discriminant_finds(population: Population, tmp_path: Path) -> None:
    """C42: the groups are found before any step, by the size that is best on validation users; no step spoils it."""
    begun = population.inputs(tmp_path / "inputs", **SUPERVISED | {"discriminant": True, "steps": 2, "validations": 1})
    output = finished(NAME, train, begun, tmp_path / "output")
    bare, after = metrics(output, "valid_loss")
    accuracy, loss = (metrics(output, f"begin_valid_{name}")[0] for name in ("accuracy", "loss"))
    assert bare == pytest.approx(np.log(4), abs=1e-4)
    assert accuracy > 0.9 and loss < 0.5 * bare
    assert record(output)["valid_loss"] <= min(loss, after) + 1e-6
    inputs = loaded(population, tmp_path)
    llm = TrainedLLM.load(output, inputs.decoder_folder)
    nobody = tokens_of(llm.model, llm.user_states(inputs.encoder, inputs.sequences), [(("zig", "new"), 0)], "cpu")
    assert nobody.abs().max() == 0


def test_the_discriminant_reads_a_texts_own_item_and_not_what_was_expected(
    population: Population, tmp_path: Path
) -> None:
    """C42: the vector of the very chunk, in the space of the projected states."""
    inputs = loaded(population, tmp_path, **SUPERVISED)
    training = SupervisedTraining(Config.of({"seed": 0, **SUPERVISED}), inputs)
    chunks = inputs.sequences.sort("datadao", "user_id", "position").filter(split="train")[[0, 3, -1]]
    moments = [inputs.moments[chunk] for chunk in chunks["chunk_id"]]
    contexts = np.stack(chunks["context"].to_list()) if "context" in chunks.columns else None
    vectors = inputs.encoder.targets(np.stack(chunks["vector"].to_list()), contexts)
    axes = training.model.shape.state_dimension
    expected = training.model.perceiver.scaled(torch.from_numpy(vectors[:, :axes]).float())
    torch.testing.assert_close(training._items(moments), expected)


@pytest.mark.parametrize("restored", [True, False])
def test_terminated_and_resumed_it_ends_with_the_same_bytes(
    population: Population, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restored: bool
) -> None:
    """C68: SIGTERM half-way; a broken twin that forgets the optimizer ends elsewhere."""
    inputs = population.inputs(tmp_path / "inputs", **SUPERVISED | {"steps": 8, "dropout": 0.1, "validations": 1})
    whole = finished(NAME, train, inputs, tmp_path / "whole")
    terminated(NAME, train, inputs, tmp_path / "halves", 4, monkeypatch)
    if not restored:
        restore = SupervisedTraining.restore

        def forgetful(self: SupervisedTraining, state: dict[str, Any]) -> None:
            restore(self, {**state, "optimizer": self.optimizer.state_dict()})

        monkeypatch.setattr(SupervisedTraining, "restore", forgetful)
    halves = finished(NAME, train, inputs, tmp_path / "halves")
    same = (halves / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert same is restored
    assert len(metrics(halves, "loss")) == 8


CASES = [(preset, "cross_attention") for preset in PRESETS] + [("perceiver", "soft_prompt"), ("enc", "soft_prompt")]


@pytest.mark.parametrize(("preset", "injection"), CASES)
def test_a_preset_moves_what_it_may_and_all_of_it(
    population: Population, tmp_path: Path, preset: str, injection: str
) -> None:
    """C42: nothing frozen moves, everything trained has a gradient, and what was trained is read back."""
    config = SUPERVISED | {"preset": preset, "injection": injection, "rank": 2, "steps": 3, "batch_tasks": 2}
    inputs = loaded(population, tmp_path)
    torch.manual_seed(0)
    training = SupervisedTraining(Config.of({"seed": 0, **config}), inputs)
    parts = {"model": training.model, "encoder": inputs.encoder.model, "decoder": training.model.decoder}

    def weights() -> dict[str, torch.Tensor]:
        return {f"{p}.{n}": w.detach().clone() for p, part in parts.items() for n, w in part.named_parameters()}

    before = weights()
    for step in (1, 2, 3):
        training.step(step)
    moved = {name for name, weight in weights().items() if not torch.equal(weight, before[name])}
    without = {name for name, weight in training.trained.items() if weight.grad is None or not weight.grad.any()}
    assert moved <= training.trained.keys() - without
    assert {name.partition(".")[0] for name in moved} == {name.partition(".")[0] for name in training.trained}
    assert not {name for name in without if not name.startswith("encoder.")}


@pytest.mark.parametrize("preset", ["enc", "lora", "full"])
def test_what_was_trained_beside_the_adapters_is_read_back(population: Population, tmp_path: Path, preset: str) -> None:
    """C42: the loaded model answers as the trained one did."""
    config = SUPERVISED | {"preset": preset, "rank": 2, "steps": 2, "batch_tasks": 2}
    folder = finished(NAME, train, population.inputs(tmp_path / "inputs", **config), tmp_path / "output")
    inputs = loaded(population, tmp_path)
    llm = TrainedLLM.load(folder, inputs.decoder_folder)
    states = llm.user_states(inputs.encoder, inputs.sequences)
    valid = inputs.choices("valid")
    choices = Choices(inputs, llm.model, valid.sample(valid.height, seed=0), longest=40)
    gains = choices.gains(llm.model, states, choices.asked, list(range(len(choices))))
    accuracy = (gains.argmax(1) == choices.answers).float().mean()
    with torch.no_grad():
        nobody = tokens_of(llm.model, states, [(("zig", "new"), 0)], "cpu")
    assert nobody.abs().max() == 0, "the prior is the one that the model was trained with"
    if preset != "full":  # whose own words without a user have moved, too
        assert float(accuracy) == pytest.approx(record(folder)["valid_accuracy"], abs=0.05)
    assert (record(folder)["frozen_hash"] == weights_hash(llm.model.decoder)) is (preset != "full")


def test_without_validation_users_it_trains_all_the_same(population: Population, tmp_path: Path) -> None:
    tasks = population.tasks.filter(pl.col("split") == "train")
    inputs = population.inputs(tmp_path / "inputs", tasks, **SUPERVISED | {"steps": 1})
    made = record(finished(NAME, train, inputs, tmp_path / "output"))
    assert made["valid_tasks"] == 0 and "valid_accuracy" not in made


def test_without_a_training_task_and_with_unknown_settings_it_is_refused(
    population: Population, tmp_path: Path
) -> None:
    nobody = population.tasks.filter(pl.col("split") == "valid")
    with pytest.raises(ValueError, match="no training user"):
        finished(NAME, train, population.inputs(tmp_path / "a", nobody, **SUPERVISED), tmp_path / "output")
    with pytest.raises(ValueError, match="unknown settings"):
        Config.of({"seed": 0, "temperature": 1})
    assert not (tmp_path / "output").exists()


def test_weights_of_another_decoder_are_refused(population: Population, output: Path, tmp_path: Path) -> None:
    """C42: adapters fit the decoder that they were trained on alone."""
    other = shutil.copytree(population.decoder, tmp_path / "decoder")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-3}))
    with pytest.raises(ValueError, match="another decoder"):
        TrainedLLM.load(output, other)
