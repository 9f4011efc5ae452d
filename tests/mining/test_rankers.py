"""Rankers: query likelihood by hand, ties, a language model's rankings and what becomes of its failures."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import polars as pl
import pytest

from user_embeddings_dagster.language_models.protocol import Answer, Completion, Failure, Request, Usage
from user_embeddings_dagster.mining.rankers import (
    NOT_A_RANKING,
    CandidateLists,
    FrozenRanker,
    ModelRanker,
    query_likelihood,
    ranks,
    subject_texts,
)


def scores_of(query: str, texts: list[str], mu: float | None = None) -> list[float]:
    rows = np.arange(len(texts))
    return query_likelihood(pl.Series([query]), pl.Series(texts), np.zeros_like(rows), rows, mu).tolist()


def log_likelihood(query: str, texts: list[str], mu: float) -> list[float]:
    """Zhai & Lafferty 2001, Dirichlet smoothing, word by word: Σ ln((c(w; d) + mu p(w|C)) / (|d| + mu))."""
    everything = " ".join(texts).split()
    known = [word for word in query.split() if word in everything]
    return [
        sum(
            math.log((text.split().count(w) + mu * everything.count(w) / len(everything)) / (len(text.split()) + mu))
            for w in known
        )
        for text in texts
    ]


def test_query_likelihood_is_the_papers_up_to_a_constant() -> None:
    """Every difference between two texts is that of the plain formula; unknown words of the query change nothing."""
    texts = ["buy fruit at the store", "the dog is at the vet", "fruit fruit fruit", "the the the store"]
    query = "buy some fruit fruit at the store"
    for mu in (1.0, 4.5, 2_000.0):
        ours, papers = scores_of(query, texts, mu), log_likelihood(query, texts, mu)
        np.testing.assert_allclose(np.diff(ours), np.diff(papers), rtol=1e-9)
        assert len(set(ours)) == len(texts)
    mean_length = (5 + 6 + 3 + 4) / 4
    np.testing.assert_allclose(scores_of(query, texts), scores_of(query, texts, mean_length))


def test_words_in_any_script_and_case() -> None:
    likely = scores_of("Купить ФРУКТЫ 買水果", ["купить фрукты", "买房子", "去買水果吧"])
    assert likely[0] > likely[1] and likely[2] > likely[1]


@pytest.mark.parametrize("query", ["", "nothing of this", "?!"])
def test_a_query_without_known_words_ranks_nothing_above_another(query: str) -> None:
    assert scores_of(query, ["buy fruit", "", "the dog is at the vet"]) == [0, 0, 0]


def test_many_pairs_are_scored_like_few(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    words = [f"w{i}" for i in range(40)]
    queries, texts = (pl.Series([" ".join(rng.choice(words, 12)) for _ in range(30)]) for _ in range(2))
    query, candidate = np.repeat(np.arange(30), 30), np.tile(np.arange(30), 30)
    whole = query_likelihood(queries, texts, query, candidate)
    monkeypatch.setattr("user_embeddings_dagster.mining.rankers._PAIRS", 7)
    np.testing.assert_array_equal(query_likelihood(queries, texts, query, candidate), whole)


def test_ranks_share_the_best_place() -> None:
    found = ranks(np.array([0, 0, 0, 1, 1]), np.array([0.5, 0.9, 0.5 + 1e-9, 0.1, 0.2]))
    assert found.tolist() == [2, 1, 2, 2, 1]


def lists_of(n: int = 3) -> CandidateLists:
    """`n` chunks with each other's summaries as candidates; only SUBJECT's word tells them apart."""
    chunks = pl.DataFrame(
        {
            "user_id": [f"u{i}" for i in range(n)],
            "speakers": [["<P1>", "SUBJECT", "SUBJECT"]] * n,
            "turns": [[f"word{(i + 1) % n} word{(i + 1) % n}", f"word{i}", "and"] for i in range(n)],
            "summary": [f"SUBJECT said word{i}" for i in range(n)],
        }
    )
    rows = np.arange(n)
    found = pl.DataFrame({"query": np.repeat(rows, n), "candidate": np.tile(rows, n)})
    score = np.tile(np.linspace(0.9, 0.1, n), n)
    return CandidateLists(found.with_columns(score=pl.Series(score, dtype=pl.Float32)), chunks)


def test_without_a_model_subjects_words_and_the_cosine_rank() -> None:
    """What others say does not count: their turns hold the next chunk's word, twice."""
    lists = lists_of()
    assert subject_texts(lists.chunks).to_list() == ["word0 and", "word1 and", "word2 and"]
    found = FrozenRanker().rank(lists)
    assert found.likelihood.reshape(3, 3).tolist() == [[1, 2, 2], [2, 1, 2], [2, 2, 1]]
    assert found.relevance.reshape(3, 3).tolist() == [[1, 2, 3]] * 3
    assert not found.unranked
    assert "frozen" in FrozenRanker.name and "dirichlet" in FrozenRanker.name


class Scripted:
    """Answers by the owner of the request; late and in reverse order, as a server may."""

    name = "scripted"

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.seen: list[Request] = []

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        unique = {request.id: request for request in requests}
        self.seen += unique.values()
        for request in reversed(unique.values()):
            value = self.values[request.owner]
            if isinstance(value, str):
                yield Failure(request.id, value, "", Usage(calls=3, usd=0.3), 3)  # pyright: ignore[reportArgumentType]
            else:
                yield Completion(request.id, value, Usage(calls=1, usd=0.1))


def test_a_models_rankings_and_its_failures() -> None:
    """C23, C29: a list without a valid answer is unranked with its reason; no other ranker steps in."""
    good = {"query_likelihood": [3, 1, 2], "relevance": [2, 3, 1]}
    bad = {"query_likelihood": [3, 3, 1], "relevance": [2, 3, 1]}
    model = Scripted({"u0": good, "u1": "timeout", "u2": bad})
    found = ModelRanker(model).rank(lists_of())
    assert found.likelihood[:3].tolist() == [2, 3, 1] and found.relevance[:3].tolist() == [3, 1, 2]
    assert np.isnan(found.likelihood[3:]).all() and np.isnan(found.relevance[3:]).all()
    assert found.unranked == {"timeout": 1, NOT_A_RANKING: 1}
    assert found.stats["to_ask_again"] == 1
    assert found.stats["usd"] == pytest.approx(0.5)
    assert {request.owner for request in model.seen} == {"u0", "u1", "u2"}


def test_equal_questions_are_asked_once_and_rank_every_list() -> None:
    lists = lists_of()
    twice = lists.chunks[[0, 0, 2]].with_columns(summary=pl.Series(["a", "a", "c"]))
    found = pl.DataFrame({"query": [0, 0, 1, 1, 2, 2], "candidate": [0, 2, 1, 2, 0, 2], "score": [0.5] * 6})
    value = {"query_likelihood": [2, 1], "relevance": [1, 2]}
    model = Scripted({"u0": value, "u2": value})
    ranked = ModelRanker(model).rank(CandidateLists(found, twice))
    assert len(model.seen) == 2
    assert ranked.likelihood.tolist() == [2, 1] * 3 and ranked.relevance.tolist() == [1, 2] * 3
