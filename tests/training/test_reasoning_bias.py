"""Neutral questions with users' embeddings and with users' adapters: what is changed is seen, what is not is not."""

import json
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from made_up_population import histories
from untrained_llm import untrained_llm

from assets.reasoning_bias import MIN_CHUNKS, some_users, with_longest_histories
from training.decoder import load_decoder, token_log_likelihoods, weights_hash
from training.job import Job
from training.option_answers import Question, divergence, late_scores, option_scores, tokenised
from training.personalised_inference import TrainedLLM
from training.reading import Reader, reading
from training.reasoning_bias import ADAPTER, BARE, EMBEDDING, GAINED, VOICED, measure
from training.user_adapters import UserAdapters
from user_embeddings_dagster.evaluation.scores import Scope
from user_embeddings_dagster.personalisation.neutral import neutral_questions
from user_embeddings_dagster.personalisation.reasoning import ON_SAME, bias_scores, reasoning_unbiased

SETTINGS = {
    "seed": 0, "threads": 1, "questions": 4, "adapter_users": 3, "rank": 2, "steps": 2, "rows": 2, "length": 8,
    "learning_rate": 1e-2,
}  # fmt: skip
SCOPE = Scope("reasoning_bias_scores", "all", 0, "hash")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    return untrained_llm(tmp_path_factory.mktemp("bias"), histories()[1], gate=1.0)


def job(root: Path, folders: dict[str, str], **settings) -> Job:
    """The job done: on the test users, the first four of whom have texts."""
    frame, texts = histories()
    test = frame.filter(split="test")
    said = test.join(texts, on="chunk_id").select("datadao", "user_id", "position", "text")
    inputs = root / "inputs"
    inputs.mkdir()
    test.write_parquet(inputs / "sequences.parquet")
    some = said["user_id"].unique().sort().head(4)
    said.filter(pl.col("user_id").is_in(some.implode())).write_parquet(inputs / "texts.parquet")
    (inputs / "config.json").write_text(json.dumps({**SETTINGS, **folders, **settings}))
    done = Job("reasoning_bias", inputs, root / "output", "test")
    assert done.prepare() is None
    measure(done)
    return done


def asked(tokenizer, per_kind: int = 3) -> list[Question]:
    questions = neutral_questions(per_kind, 0)
    return tokenised(tokenizer, questions["question"].to_list(), questions["options"].to_list())


@contextmanager
def adapted(adapters: UserAdapters, rows: torch.Tensor):
    with adapters.bound(rows) as decoder:
        yield Reader(decoder)


@torch.no_grad()
def test_an_option_scores_as_it_does_alone(folders):
    """With one token or several, for an embedding and for an adapter."""
    llm = TrainedLLM.load(Path(folders["personalised"]), Path(folders["decoder"]))
    short = Question([0, 5, 6], [[7], [8], [9], [10, 11]])
    users, questions = torch.randn(3, 4, 24), [short, *asked(llm.tokenizer)]
    adapters = UserAdapters(llm.model.decoder, 3, 2, 0)
    for weight in adapters.up:
        torch.nn.init.normal_(weight, std=0.1)
    scores = option_scores(lambda rows: reading(llm.model, users[rows]), 3, questions, "cpu")
    torch.testing.assert_close(late_scores(llm.model, users, questions, "cpu"), scores, atol=1e-5, rtol=0)
    spoken = TrainedLLM.load(Path(folders["personalised"]), Path(folders["decoder"])).model
    spoken.add_voice()
    spoken.speaking.scale(3.0)
    aloud = option_scores(lambda rows: reading(spoken, users[rows], speaking=True), 3, questions, "cpu")
    assert (aloud - scores).abs().max() > 1e-3
    torch.testing.assert_close(late_scores(spoken, users, questions, "cpu", speaking=True), aloud, atol=1e-5, rtol=0)
    by_adapter = option_scores(lambda rows: adapted(adapters, rows), 3, questions, "cpu")
    for number in (0, 5, 9):
        question = questions[number]
        for place, option in enumerate(question.options):
            ids, begin = torch.tensor([question.ids + option]), len(question.ids) - 1
            alone = llm.model.log_likelihoods(users[1:2], ids)[0, begin:].mean()
            torch.testing.assert_close(scores[1, number, place], alone, atol=1e-4, rtol=1e-3)
            with adapters.bound(torch.tensor([2])) as decoder:
                alone = token_log_likelihoods(decoder, ids)[0, begin:].mean()
            torch.testing.assert_close(by_adapter[2, number, place], alone, atol=1e-4, rtol=1e-3)


def test_adapters_trained_together_end_as_each_alone(folders):
    decoder = load_decoder(folders["decoder"])[0].double()  # Adam makes much of a rounding error where nothing is
    before, generator = weights_hash(decoder), torch.Generator().manual_seed(0)
    texts = [torch.randint(1, 200, (n, 9), generator=generator) for n in (3, 7)]
    together = UserAdapters(decoder, 2, 2, seed=0).double()
    together.fit(texts, steps=3, rows=2, learning_rate=1e-2, seed=5)
    for user in (0, 1):
        alone = UserAdapters(decoder, 1, 2, seed=0).double()
        alone.fit(texts[user : user + 1], steps=3, rows=2, learning_rate=1e-2, seed=5)
        for one, both in zip(alone.parameters(), together.parameters(), strict=True):
            torch.testing.assert_close(one[0], both[user], atol=1e-6, rtol=1e-5)
    assert weights_hash(decoder) == before


@torch.no_grad()
def test_an_untrained_adapter_changes_nothing_and_a_trained_one_writes_its_user(folders):
    decoder, _ = load_decoder(folders["decoder"])
    texts = [torch.full((2, 9), 17), torch.full((2, 9), 23)]
    adapters = UserAdapters(decoder, 2, 4, seed=0)
    bare = token_log_likelihoods(decoder, torch.cat(texts))
    with adapters.bound(torch.tensor([0, 0, 1, 1])) as bound:
        assert torch.equal(token_log_likelihoods(bound, torch.cat(texts)), bare)
    with torch.enable_grad():
        adapters.fit(texts, steps=30, rows=2, learning_rate=3e-2, seed=0)
    with adapters.bound(torch.tensor([0, 0, 1, 1])) as bound:
        own = token_log_likelihoods(bound, torch.cat(texts)) - bare
    with adapters.bound(torch.tensor([1, 1, 0, 0])) as bound:
        others = token_log_likelihoods(bound, torch.cat(texts)) - bare
    assert own.mean() > 0.1
    assert own.mean() > others.mean() + 0.1


def test_a_user_who_changes_nothing_is_seen_as_that(tmp_path):
    """Gates shut: not one answer, not one bit of a distribution."""
    shut = untrained_llm(tmp_path, histories()[1], gate=0.0)
    answers = pl.read_parquet(job(tmp_path, shut).output / "answers.parquet").filter(model=EMBEDDING)
    assert answers["kl"].max() < 1e-10
    assert not answers["changed"].any()


def test_a_user_who_changes_answers_is_seen(tmp_path, folders):
    """C47: the positive control. Open gates on an untrained decoder shift its logits; output names nobody."""
    done = job(tmp_path, folders)
    answers, gains = (pl.read_parquet(done.output / f"{name}.parquet") for name in ("answers", "gains"))
    assert answers.group_by("model").agg(pl.col("user").n_unique()).sort("model").rows() == [
        (BARE, 1), (ADAPTER, 3), (EMBEDDING, 12), (VOICED, 3)
    ]  # fmt: skip
    changed = answers.group_by("model").agg(pl.col("changed").mean(), pl.col("kl").mean())
    figures = {model: (share, kl) for model, share, kl in changed.rows()}
    assert figures[BARE] == (0.0, 0.0)
    assert figures[EMBEDDING][0] > 0.05 and figures[EMBEDDING][1] > 1e-3
    assert figures[ADAPTER][1] > 0
    assert gains.group_by("model").len().sort("model").rows() == [(ADAPTER, 3), (EMBEDDING, 3)]
    assert sorted(path.name for path in done.output.iterdir()) == [
        "answers.parquet",
        "gains.parquet",
        "job.json",
        "manifest.json",
    ]  # fmt: skip - no adapter is kept
    assert "test0" not in (done.output / "job.json").read_text() + str(answers.rows()[:200])


def test_without_anybody_to_train_on_there_are_no_adapters(tmp_path, folders):
    done = job(tmp_path, folders, length=200)
    answers, gains = (pl.read_parquet(done.output / f"{name}.parquet") for name in ("answers", "gains"))
    assert set(answers["model"]) == {BARE, EMBEDDING}
    assert bias_scores(answers, gains, SCOPE, "v").filter(model=VOICED).is_empty()
    scores = bias_scores(answers, gains, SCOPE, "v")
    assert scores.filter(model=ADAPTER).rows(named=True)[0]["value"] is None


def answers(changes: dict[str, list[int]], questions: int = 10) -> pl.DataFrame:
    """Answers of users who have so many right more, or fewer, than the bare decoder's five."""
    rows = [(BARE, 0, n, "logic", n < 5, False, 0.0) for n in range(questions)]
    for model, users in changes.items():
        for user, more in enumerate(users):
            rows += [(model, user, n, "logic", n < 5 + more, (n < 5) != (n < 5 + more), 0.1) for n in range(questions)]
    frame = pl.DataFrame(rows, ["model", "user", "question", "kind", "right", "changed", "kl"], orient="row")
    return frame.with_columns(person="user")


def figure(scores: pl.DataFrame, model: str, metric: str) -> float:
    return scores.filter(model=model, metric=metric, slice="all")["value"].item()


NO_GAINS = pl.DataFrame(schema=GAINED)


def test_changes_of_opposite_signs_do_not_cancel():
    scores = bias_scores(answers({EMBEDDING: [1, -1, 1, -1, 0, 0]}), NO_GAINS, SCOPE, "v")
    assert figure(scores, BARE, "accuracy") == 0.5
    assert figure(scores, EMBEDDING, "accuracy_difference") == pytest.approx(0.0)
    assert figure(scores, EMBEDDING, "accuracy_change") == pytest.approx(4 * 0.1 / 6)
    assert figure(scores, EMBEDDING, "accuracy_range") == pytest.approx(0.2)
    assert figure(scores, EMBEDDING, "accuracy_std") == pytest.approx(np.std([0.6, 0.4, 0.6, 0.4, 0.5, 0.5]))
    assert figure(scores, EMBEDDING, "answers_changed") == pytest.approx(4 / 60)
    assert not reasoning_unbiased(scores).passed


def test_who_is_in_two_datadaos_is_one_person():
    found = answers({EMBEDDING: [1, -1, 1, -1]})
    twice = bias_scores(found.with_columns(person=pl.col("user") // 2), NO_GAINS, SCOPE, "v")
    for metric in ("accuracy", "accuracy_std"):
        row = twice.filter(model=EMBEDDING, metric=metric, slice="all")
        assert (row["n"].item(), row["n_users"].item()) == (4, 2)
    once = bias_scores(found, NO_GAINS, SCOPE, "v")
    assert figure(once, EMBEDDING, "accuracy") == figure(twice, EMBEDDING, "accuracy")


def test_embedding_and_adapter_are_compared_on_the_same_users():
    found = answers({EMBEDDING: [0, 0, 0, 3], ADAPTER: [1, -1, 1]})
    scores = bias_scores(found, NO_GAINS, SCOPE, "v")
    assert figure(scores, ON_SAME, "accuracy_change") == 0.0
    assert figure(scores, ADAPTER, "accuracy_change") == pytest.approx(0.1)
    gap = figure(scores, "user_embedding - user_adapter", "accuracy_change_difference")
    assert gap == pytest.approx(-0.1)
    assert not reasoning_unbiased(scores).passed  # the fourth user's answers change
    assert reasoning_unbiased(bias_scores(answers({EMBEDDING: [0, 0], ADAPTER: [1, 0]}), NO_GAINS, SCOPE, "v")).passed
    assert not reasoning_unbiased(bias_scores(answers({EMBEDDING: [1], ADAPTER: [0]}), NO_GAINS, SCOPE, "v")).passed


def test_divergence_is_kl_in_nats():
    p, q = torch.tensor([0.7, 0.1, 0.1, 0.1]), torch.full((4,), 0.25)
    expected = float((p * (p / q).log()).sum())
    assert float(divergence(p.log() + 3, q.log() - 1)) == pytest.approx(expected, rel=1e-5)
    assert float(divergence(q.log(), q.log())) == 0.0


def test_the_bare_decoder_answers_alike_whoever_is_bound(folders):
    decoder, tokenizer = load_decoder(folders["decoder"])
    scores = option_scores(lambda _: nullcontext(Reader(decoder)), 2, asked(tokenizer), "cpu")
    torch.testing.assert_close(scores[0], scores[1])


def snapshot(lengths: dict[str, int]) -> pl.DataFrame:
    rows = [("dao", user, f"{user}{n}") for user, chunks in lengths.items() for n in range(chunks)]
    return pl.DataFrame(rows, ["datadao", "user_id", "chunk_id"], orient="row")


def test_adapters_are_for_those_who_also_consented_to_train():
    """C47: of whoever did, the longest histories."""
    everybody = snapshot({"a": 9, "b": 5, "c": 7, "d": 3})
    trainable = everybody.filter(pl.col("user_id") != "a")
    assert set(with_longest_histories(everybody, trainable, 2)["user_id"]) == {"b", "c"}
    assert with_longest_histories(everybody, everybody.clear(), 2).is_empty()


def test_a_sample_of_users_is_seeded_and_leaves_out_who_has_too_little():
    everybody = snapshot({f"u{n}": MIN_CHUNKS - 1 + n % 3 for n in range(30)})
    chosen = some_users(everybody, 8, seed=0)
    assert chosen["user_id"].n_unique() == 8
    assert chosen.group_by("user_id").len()["len"].min() == MIN_CHUNKS
    assert chosen.equals(some_users(everybody, 8, seed=0))
    assert not chosen.equals(some_users(everybody, 8, seed=1))
