"""What the personalised decoder answers to held-out users under each condition."""

from pathlib import Path

import polars as pl
import pytest
import torch
from made_up_population import CHUNKS, SUPERVISED, Population, finished, record

from training import supervised_decoder
from training.job import Job
from training.llm_inputs import Choices, LLMInputs, Moment, tokens_of
from training.personalised_answers import Asking, Config, chosen_share, evaluate
from training.personalised_inference import TrainedLLM
from training.personalised_model import PersonalisedDecoder

NAME = "personalised_answers"
SETTINGS = {"judge": "word_overlap", "recent_tokens": 8, "stuffed_tokens": 64, "stuffed_tasks": 5, "new_tokens": 6}
CHOICES = {
    "nobody", "user_embedding", "supervised", "other_user", "mean_vector", "text", "embedding_text", "recent",
    "embedding_recent", "stuffed",
}  # fmt: skip
ANSWERS = {"nobody", "user_embedding", "supervised", "other_user"}
GIVEN_AWAY = "zebra zebra"


@pytest.fixture(scope="module")
def trained(population: Population, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("supervised")
    return finished(
        "supervised_decoder", supervised_decoder.train, population.inputs(root / "in", **SUPERVISED), root / "out"
    )


def inputs(population: Population, trained: Path, folder: Path, tasks: pl.DataFrame | None = None) -> Path:
    return population.inputs(folder, tasks, **SETTINGS, personalised=str(trained), supervised=str(trained))


@pytest.fixture(scope="module")
def output(population: Population, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("answers")
    return finished(NAME, evaluate, inputs(population, trained, root / "in"), root / "out")


def asking(folder: Path) -> Asking:
    job = Job(NAME, folder, folder.with_name("none"), "test")
    config = Config.of({"seed": 0, **SETTINGS})
    return Asking(job, config, LLMInputs(job, "cpu"))


def test_equally_good_options_are_chosen_by_chance() -> None:
    """Of whom nothing is known every gain is the same: right in a quarter of the tasks, not where the gold is first."""
    scores = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.2, 0.2, 0.1, 0.0], [0.1, 0.0, 0.2, 0.0], [0.1, 0.0, 0.2, 0.0]])
    noise = torch.tensor([[1e-6, -1e-6, 0.0, 0.0]])
    share = chosen_share(scores + noise, torch.tensor([2, 0, 2, 0]))
    assert share.tolist() == [0.25, 0.5, 1.0, 0.0]


def test_every_task_is_answered_under_every_condition(population: Population, output: Path) -> None:
    """C45: nobody, the user's embedding, another's, the items' mean, recent words, both, the whole history."""
    asked = population.tasks.filter(split="test")
    for name, conditions, part in (
        ("choices", CHOICES, asked.filter(pl.col("answer") >= 0)),
        ("answers", ANSWERS, asked.filter(pl.col("answer") < 0)),
    ):
        table = pl.read_parquet(output / f"{name}.parquet")
        assert set(table["condition"]) == conditions
        assert not table.select("task_id", "condition").is_duplicated().any()
        for condition in conditions - {"stuffed"}:
            assert set(table.filter(condition=condition)["task_id"]) == set(part["task_id"])
        assert table["score"].is_between(0, 1).all()
    assert table.filter(condition="stuffed").height == 0
    assert pl.read_parquet(output / "choices.parquet").filter(condition="stuffed").height == 5
    assert record(output)["n_choices"] == record(output)["n_answers"] == 24


def test_the_users_own_embedding_beats_nobodys_and_anothers(output: Path) -> None:
    """C45: choices of held-out users; before the reward stage it is the same model here."""
    choices = pl.read_parquet(output / "choices.parquet").sort("task_id")
    means = dict(choices.group_by("condition").agg(pl.col("score").mean()).iter_rows())
    assert means["user_embedding"] > 0.9
    assert means["user_embedding"] > max(means["nobody"], means["other_user"]) + 0.2
    own, same = (choices.filter(condition=name)["score"] for name in ("user_embedding", "supervised"))
    assert own.to_list() == same.to_list()


def test_answers_written_for_others_are_others(output: Path) -> None:
    """C45: the same draws, other user tokens: the free-form scores of the conditions are not copies of each other."""
    answers = pl.read_parquet(output / "answers.parquet").sort("task_id")
    scores = {name: answers.filter(condition=name)["score"].to_list() for name in ANSWERS}
    assert scores["user_embedding"] not in (scores["nobody"], scores["other_user"])


def gives_away(asked: Asking) -> bool:
    """Whether what is told before a task holds the chunk that the task is about."""
    for task in asked.inputs.choices("test").iter_rows(named=True):
        moment: Moment = ((task["datadao"], task["user_id"]), task["n_history"])
        told = asked.inputs.tokenizer.decode(asked.past(moment, 10_000))
        assert told.count("SUBJECT: ") >= task["n_history"]
        if f"{GIVEN_AWAY} {task['chunk_id']}" in told:
            return True
    return False


def test_the_text_of_the_future_is_not_told(
    population: Population, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C43: only chunks before the task; a broken twin that reads one further is caught."""
    folder = inputs(population, trained, tmp_path / "in")
    told = population.texts.with_columns(text=pl.lit(f"{GIVEN_AWAY} ") + pl.col("chunk_id"))
    told.write_parquet(folder / "texts.parquet")
    asked, past = asking(folder), Asking.past
    assert not gives_away(asked)
    monkeypatch.setattr(Asking, "past", lambda self, moment, n: past(self, (moment[0], moment[1] + 1), n))
    assert gives_away(asked)


def test_what_is_told_is_the_end_of_the_past(population: Population, trained: Path, tmp_path: Path) -> None:
    asked = asking(inputs(population, trained, tmp_path / "in"))
    moment = (("zig", "test3"), CHUNKS - 1)
    whole = asked.past(moment, 10_000)
    said = dict(population.texts.iter_rows())
    assert asked.inputs.tokenizer.decode(whole) == "".join(
        f"SUBJECT: {said[f'test3.{position}']}\n" for position in range(CHUNKS - 1)
    )
    assert asked.past(moment, 5) == whole[-5:]
    assert asked.past(moment, 0) == asked.past((("zig", "test3"), 0), 9) == asked.past((("zig", "new"), 3), 9) == []


def test_others_are_others_and_stay_the_same(population: Population, trained: Path, tmp_path: Path) -> None:
    asked = asking(inputs(population, trained, tmp_path / "in"))
    moments = asked.inputs.asked(asked.inputs.choices("test"))
    found = asked.others(moments)
    assert all(own[0] != other[0] for own, other in zip(moments, found, strict=True))
    assert found == asked.others(moments)
    assert all(seen == CHUNKS for _, seen in found)


@pytest.mark.parametrize("injection", ["cross_attention", "soft_prompt"])
@torch.no_grad()
def test_reading_a_prompt_once_scores_as_reading_it_each_time(
    population: Population, trained: Path, tmp_path: Path, injection: str
) -> None:
    """C45: with and without words told, for somebody and for nobody."""
    asked = asking(inputs(population, trained, tmp_path / "in"))
    if injection == "soft_prompt":
        torch.manual_seed(0)
        shape = {**asked.llm.described["shape"], "injection": injection}
        asked.llm.model = PersonalisedDecoder(asked.llm.model.decoder, type(asked.llm.model.shape)(**shape)).eval()
    model, choices = asked.llm.model, Choices(asked.inputs, asked.llm.model, asked.inputs.choices("test"), longest=40)
    rows, found = list(range(0, len(choices), 3)), {}
    for tokens in (0, 12):
        for embedding in (False, True):
            found[tokens, embedding] = asked.by_text(choices, tokens, embedding, rows)
            for row, gains in zip(rows, found[tokens, embedding], strict=True):
                moment, expected = choices.asked[row], []
                users = tokens_of(model, asked.states, [moment], "cpu") if embedding else None
                for option in choices.options[row]:
                    ids, counted = choices.texts.ids[option], choices.texts.counted[option]
                    ids = ids[: int(counted.nonzero()[-1]) + 2]
                    told = torch.tensor(asked.past(moment, tokens), dtype=torch.long)
                    whole = torch.cat([ids[:1], told, ids[1:]])
                    expected.append(model.log_likelihoods(users, whole[None])[0, -int(counted.sum()) :].mean())
                expected = torch.stack(expected) - choices.texts.bare[choices.options[row]]
                torch.testing.assert_close(gains, expected, atol=1e-3, rtol=1e-3)
    assert (found[12, True] - found[0, True]).abs().max() > 1e-2
    assert found[0, False].abs().max() < 1e-3, "nothing told adds nothing"


def test_without_a_kind_of_task_its_table_is_empty(population: Population, trained: Path, tmp_path: Path) -> None:
    for name, part in (("choices", pl.col("answer") < 0), ("answers", pl.col("answer") >= 0)):
        folder = tmp_path / name
        few = population.tasks.filter(part, pl.col("split") == "test").head(3)
        made = finished(NAME, evaluate, inputs(population, trained, folder / "in", few), folder / "out")
        assert pl.read_parquet(made / f"{name}.parquet").is_empty()
        assert record(made)[f"n_{name}"] == 0


def test_one_user_alone_is_compared_with_nobody_else(population: Population, trained: Path, tmp_path: Path) -> None:
    """Few held-out people: the condition is left out, the others are answered."""
    user = population.tasks.filter(pl.col("split") == "test")["user_id"][0]
    free = population.tasks.filter(pl.col("user_id") == user, pl.col("answer") < 0)
    folder = inputs(population, trained, tmp_path / "in", free)
    population.sequences.filter(pl.col("user_id") == user).write_parquet(folder / "sequences.parquet")
    assert free.height
    made = finished(NAME, evaluate, folder, tmp_path / "out")
    assert set(pl.read_parquet(made / "answers.parquet")["condition"]) == ANSWERS - {"other_user"}


def test_states_of_another_sequence_encoder_are_refused(population: Population, trained: Path, tmp_path: Path) -> None:
    asked = asking(inputs(population, trained, tmp_path / "in"))
    asked.inputs.encoder.version = "another"
    with pytest.raises(ValueError, match="another sequence encoder"):
        TrainedLLM.load(trained, population.decoder).user_states(asked.inputs.encoder, population.sequences)
