"""The reward stage on a population whose words follow from their items."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up_population import SUPERVISED, Population, finished, metrics, record, terminated
from safetensors.torch import load_file

from training import reward_training
from training import supervised_decoder as supervised_stage
from training.decoder import load_decoder, weights_hash
from training.job import Job
from training.llm_inputs import LLMInputs
from training.personalised_decoder import train
from training.personalised_model import VOICE
from training.reward_training import STRENGTHS, Config, RewardTraining, advantages
from user_embeddings_dagster.personalisation.guards import Guards, words
from user_embeddings_dagster.personalisation.judges import Judged, WordOverlap
from user_embeddings_dagster.personalisation.judging import serving

NAME = "personalised_decoder"
REWARD = {
    "judge": "word_overlap", "steps": 40, "samples": 4, "batch_tasks": 4, "batch_questions": 8, "new_tokens": 6,
    "learning_rate": 1e-2,
}  # fmt: skip


@pytest.fixture(scope="module")
def supervised(population: Population, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stopped early: it tells the groups apart, and does not yet write as they do."""
    root = tmp_path_factory.mktemp("supervised")
    inputs = population.inputs(root / "inputs", **SUPERVISED | {"steps": 8})
    return finished("supervised_decoder", supervised_stage.train, inputs, root / "output")


@pytest.fixture(scope="module")
def rewarded(population: Population, supervised: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rewarded")
    inputs = population.inputs(root / "inputs", **REWARD, personalised=str(supervised))
    return finished(NAME, train, inputs, root / "output")


def training(population: Population, start: Path, folder: Path, **config: Any) -> RewardTraining:
    inputs = population.inputs(folder / "read", **REWARD | config, personalised=str(start))
    loaded = LLMInputs(Job(NAME, inputs, folder / "none", "test"), "cpu")
    torch.manual_seed(0)
    return RewardTraining(Config.of({"seed": 0, **REWARD, **config}), loaded, start, threads=1)


def test_the_reward_of_held_out_users_rises(rewarded: Path) -> None:
    """C44: of validation users' questions, by the judge's score."""
    before, after = metrics(rewarded, "valid_reward")
    assert after > before + 0.1
    assert metrics(rewarded, "valid_loss") == [-before, -after]  # what the asset's check `loss_fell` reads
    assert record(rewarded)["valid_reward"] == pytest.approx(after, abs=0.05)
    assert record(rewarded)["judge"] == "word_overlap"


def test_a_judge_of_another_process_teaches_the_same(
    population: Population, supervised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C44: to the bit, whether the judge is the job's own or asked through the process that started it."""
    written = []
    for judge in ("word_overlap", "language_model"):
        settings = REWARD | {"steps": 4, "judge": judge}
        inputs = population.inputs(tmp_path / judge, **settings, personalised=str(supervised))
        with serving(WordOverlap()) as variables:
            for name, value in variables.items():
                monkeypatch.setenv(name, value)
            written.append(finished(NAME, train, inputs, tmp_path / f"{judge}.out"))
    own, asked = (folder / "model.safetensors" for folder in written)
    assert own.read_bytes() == asked.read_bytes()
    assert record(written[1])["judge"] == "word_overlap"


def test_only_the_adapters_move(population: Population, supervised: Path, rewarded: Path) -> None:
    """C44: the decoder's bytes are those of its folder, and Perceiver and injection are all that is written."""
    assert record(rewarded)["frozen_hash"] == weights_hash(load_decoder(population.decoder)[0])
    before, after = (load_file(folder / "model.safetensors") for folder in (supervised, rewarded))
    voice = {name for name in after if name.startswith(f"model.{VOICE}")}
    assert before.keys() == after.keys() - voice and voice
    parts = ("perceiver.", "injection.", "direct.", "perceived.", "prior", VOICE)
    assert all(name.startswith(tuple(f"model.{part}" for part in parts)) for name in after)
    moved = {name for name in after if not torch.equal(before[name.replace(VOICE, "injection.")], after[name])}
    assert {"model.injection.blocks.0.gates", "model.voice.blocks.0.gates"} <= moved
    assert not {"model.prior", "model.perceiver.mean", "model.perceiver.deviation"} & moved
    described = [json.loads((folder / "personalised.json").read_text()) for folder in (supervised, rewarded)]
    assert described[0] == described[1]


def test_answers_that_earn_the_same_teach_nothing() -> None:
    found = advantages(torch.tensor([[0.5] * 4, [0.0, 1.0, 0.0, 1.0]]))
    assert found[0].abs().max() == 0
    torch.testing.assert_close(found[1], torch.tensor([-1.0, 1.0, -1.0, 1.0]), atol=1e-3, rtol=0)


def test_the_policy_starts_as_the_supervised_one_and_its_distance_is_measured(
    population: Population, supervised: Path, tmp_path: Path
) -> None:
    """C44: the KL is nothing before the first update and more than nothing after some."""
    stage = training(population, supervised, tmp_path)

    def distances() -> list[float]:
        return [float(part(np.random.default_rng(0))[1].detach()) for part in (stage._choices, stage._answers)]

    assert distances() == pytest.approx([0, 0], abs=1e-6)
    for step in (1, 2, 3):
        stage.step(step)
    assert min(distances()) > 1e-5


def test_users_are_spoken_for_as_strongly_as_validation_users_questions_reward(
    population: Population, supervised: Path, tmp_path: Path
) -> None:
    """C44: of a model that tells groups apart and does not yet write as they do, more; what is not spoken stays."""
    stage = training(population, supervised, tmp_path)
    users = stage._tokens(stage.model, stage.valid.asked[:2])
    read = stage.model.log_likelihoods(users, torch.arange(1, 13).view(2, 6))
    assert stage.strength == 1
    rewards = stage.find_voice()
    assert set(rewards) == {f"reward_at_{strength:g}" for strength in STRENGTHS}
    assert stage.strength in STRENGTHS[1:]
    assert rewards[f"reward_at_{stage.strength:g}"] > rewards["reward_at_1"] + 0.1
    assert rewards[f"reward_at_{stage.strength:g}"] > max(rewards.values()) - 0.15
    assert torch.equal(stage.model.log_likelihoods(users, torch.arange(1, 13).view(2, 6)), read)
    again = training(population, supervised, tmp_path / "none", voice_answers=0)
    assert again.find_voice() == {} and again.strength == 1


def test_answers_move_the_voice_and_choices_what_is_read_with(
    population: Population, supervised: Path, tmp_path: Path
) -> None:
    """C44: whatever is learned of writing, what is said about a user is read as before."""
    stage = training(population, supervised, tmp_path)
    start = {name: weight.detach().clone() for name, weight in stage.trained.items()}

    def moved(part: str) -> set[str]:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(stage, part, lambda generator: None)
            stage.restore(stage.state() | {"weights": start})
            stage.step(stage.config.steps // 2)
        return {name for name, weight in stage.trained.items() if not torch.equal(weight, start[name])}

    spoken, read = moved("_choices"), moved("_answers")
    assert spoken and all(name.startswith(f"model.{VOICE}") for name in spoken)
    assert read and not any(name.startswith(f"model.{VOICE}") for name in read)


@dataclass(frozen=True)
class Brevity(WordOverlap):
    """A judge that can be gamed: the less is said the better, and nothing is best."""

    name: str = "brevity"

    def scores(self, answers: Sequence[Judged]) -> np.ndarray:
        return np.array([1 - min(6, len(words(each.answer))) / 6 for each in answers])


@pytest.mark.parametrize("guards", [False, True])
def test_a_judge_that_can_be_gamed_is_gamed_without_guards_alone(
    population: Population, supervised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guards: bool
) -> None:
    """C44, C47: an answer of nothing earns nothing behind the guards, so that it is not learned."""
    monkeypatch.setitem(reward_training.JUDGES, "brevity", lambda threads: Brevity())
    config = {"judge": "brevity", "kl": 0.0, "steps": 160, "samples": 8, "learning_rate": 2e-2, "batch_tasks": 1}
    stage = training(population, supervised, tmp_path, guards=guards, **config)
    for step in range(1, 161):
        stage.step(step)
    with torch.no_grad():
        rows = list(range(len(stage.valid)))
        drawn = stage.valid.draw(stage.model, stage._tokens(stage.model, stage.valid.asked), rows)
    said = [text.split("\n")[0].strip() for text in drawn.texts]
    gamed = np.mean([Guards().objection(text) is not None for text in said])
    assert (gamed < 0.1) if guards else (gamed > 0.4), f"{gamed} of the answers"


def test_terminated_and_resumed_it_ends_with_the_same_bytes(
    population: Population, supervised: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C68: the answers after the resumption are those that would have been drawn."""
    inputs = population.inputs(tmp_path / "inputs", **REWARD | {"steps": 6}, personalised=str(supervised))
    whole = finished(NAME, train, inputs, tmp_path / "whole")
    terminated(NAME, train, inputs, tmp_path / "halves", 3, monkeypatch)
    halves = finished(NAME, train, inputs, tmp_path / "halves")
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (halves / name).read_bytes() == (whole / name).read_bytes()
    assert record(halves)["objections"] == record(whole)["objections"] != {}


def test_it_trains_on_choices_alone_or_questions_alone(
    population: Population, supervised: Path, tmp_path: Path
) -> None:
    for name, tasks in population.tasks.with_columns(free=population.tasks["answer"] < 0).group_by("free"):
        folder = tmp_path / str(name[0])
        inputs = population.inputs(
            folder / "inputs", tasks.drop("free"), **REWARD | {"steps": 1}, personalised=str(supervised)
        )
        made = record(finished(NAME, train, inputs, folder / "output"))
        assert (made["train_choices"] == 0, made["train_questions"] == 0) == (name[0], not name[0])


def stage_of(population: Population, folder: Path, preset: str) -> Path:
    config = SUPERVISED | {"preset": preset, "rank": 2, "steps": 3, "batch_tasks": 2}
    inputs = population.inputs(folder / "inputs", **config)
    return finished("supervised_decoder", supervised_stage.train, inputs, folder / "supervised")


def test_every_weight_of_a_decoder_is_not_moved_by_rewards(population: Population, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="adapters alone"):
        training(population, stage_of(population, tmp_path, "full"), tmp_path)


def test_low_rank_adapters_are_part_of_the_policy(population: Population, tmp_path: Path) -> None:
    """What the decoder says of an option must not be kept while its adapters move."""
    stage = training(population, stage_of(population, tmp_path, "lora"), tmp_path)
    assert stage.choices.texts.hidden is None
    stage.step(1)
    assert all(weight.grad is not None for name, weight in stage.trained.items() if "lora_" in name)


def test_a_sequence_encoder_that_was_trained_along_stays_with_the_model(population: Population, tmp_path: Path) -> None:
    """C44: the reward stage reads the states that the supervised stage trained, and hands them on."""
    start = stage_of(population, tmp_path, "enc")
    inputs = population.inputs(tmp_path / "reward", **REWARD | {"steps": 1}, personalised=str(start))
    after = load_file(finished(NAME, train, inputs, tmp_path / "output") / "model.safetensors")
    before = {name: weight for name, weight in load_file(start / "model.safetensors").items() if "encoder." in name[:8]}
    assert before
    for name, weight in before.items():
        torch.testing.assert_close(after[name], weight, atol=0, rtol=0)


def test_an_unknown_judge_or_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="judge"):
        Config.of({"seed": 0, "judge": "flattery"})
    with pytest.raises(ValueError, match="unknown settings"):
        Config.of({"seed": 0, "injection": "soft_prompt"})
