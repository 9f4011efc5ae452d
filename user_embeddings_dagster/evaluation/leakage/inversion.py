"""What can be read back from a vector: the text it was made from, or its words.

- Retrieval: an attacker who holds candidate texts encodes them with the frozen encoder, which is public, and takes the
  nearest. For user embeddings the candidates are each person's last chunk, through the released sequence encoder.
- Words: a linear decoder from the vector to the words of its text, fitted on people whose texts the attacker has,
  applied to people whose texts they have not (Song and Raghunathan 2020, "Information Leakage in Embedding Models",
  arXiv:2004.00053, section 4, with a linear decoder).

A vector is meant to hold what its text says: these figures are not near chance, and vectors must be protected as texts.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.attributes import Attribute
from user_embeddings_dagster.evaluation.bootstrap import MIN_USERS, NOTHING, bootstrap_statistics
from user_embeddings_dagster.evaluation.probes import ProbeModel, ProbeTask, Statistic, probe
from user_embeddings_dagster.evaluation.ranking import CHANCE, expected_at_random, full_ranks, metrics, sampled
from user_embeddings_dagster.evaluation.scores import ScoreSheet

CANDIDATES = 5_000
VOCABULARY = 300
DOCUMENT_SHARE = (0.01, 0.2)
WORD = r"[a-z]{3,}"
PLACEHOLDER = r"<[^<>\s]*>|\b(?:SUBJECT|ASSISTANT)\b"
RATES = (1.0, 0.5, 0.75, 1.5, 2.0, 3.0, 4.0)
NO_VECTOR = "most_frequent_words"


@dataclass(frozen=True)
class WordTask:
    """Vectors [n, d] by model and presence of words [n, v] of the same texts, both by split; `users` [n] of test."""

    vectors: Mapping[str, Mapping[str, np.ndarray]]
    words: Mapping[str, np.ndarray]
    users: np.ndarray


def add_retrieval(
    sheet: ScoreSheet, model: str, queries: np.ndarray, candidates: np.ndarray, users: np.ndarray, *,
    slice_: str, version: str,
) -> None:  # fmt: skip
    """Does vector i find candidate i among all: recall@1, @10 and MRR beside chance; intervals over `users` [n]."""
    rows = sampled(np.arange(len(queries)), CANDIDATES, sheet.scope.seed)
    ranks = full_ranks(queries[rows], candidates[rows], np.arange(len(rows)))
    task = {"slice_": slice_, "candidates": f"full:{len(rows)}"}
    sheet.means(model, metrics(ranks, (1, 10)), users[rows], version=version, **task)
    sheet.means(CHANCE, expected_at_random(ranks, (1, 10)), users[rows], version="exact", **task)


def vocabulary(texts: pl.Series) -> list[str]:
    """The most frequent words that stand in between 1% and 20% of the texts: neither names of one nor stop words."""
    found = words_of(texts).list.unique().explode().drop_nulls().value_counts(name="n")
    low, high = (share * len(texts) for share in DOCUMENT_SHARE)
    return (
        found.filter(pl.col("n").is_between(low, high))
        .sort("n", texts.name, descending=[True, False])[texts.name]
        .to_list()[:VOCABULARY]
    )


def words_of(texts: pl.Series) -> pl.Series:
    """Lower-case words of each text, without placeholders."""
    return texts.str.replace_all(PLACEHOLDER, " ").str.to_lowercase().str.extract_all(WORD)


def presence(texts: pl.Series, words: list[str]) -> np.ndarray:
    """Which of `words` [v] stand in each text: [n, v] float64 of 0 and 1."""
    place = pl.DataFrame({"word": words, "column": np.arange(len(words))}, {"word": pl.String, "column": pl.Int64})
    rows = pl.DataFrame({"row": np.arange(len(texts)), "word": words_of(texts)}).explode("word").join(place, on="word")
    table = np.zeros((len(texts), len(words)))
    table[rows["row"].to_numpy(), rows["column"].to_numpy()] = 1.0
    return table


def add_words(sheet: ScoreSheet, task: WordTask, versions: Mapping[str, str], *, slice_: str) -> None:
    """F1 over all (text, word) pairs of the decoded words, beside the best guess that looks at no vector."""
    users, truth = task.users, task.words["test"]
    enough = truth.shape[1] > 0 and len(np.unique(users)) >= MIN_USERS and len(task.words["train"]) >= MIN_USERS
    guesses: dict[str, np.ndarray | None] = (
        {NO_VECTOR: frequent_guess(task.words["train"], len(truth))} if enough else {NO_VECTOR: None}
    )
    for name, vectors in task.vectors.items():
        guesses[name] = decoded(vectors, task.words, users) if enough else None
    for name, guess in guesses.items():
        estimate = (
            NOTHING if guess is None else bootstrap_statistics(_f1(guess, truth), users, seed=sheet.scope.seed)[0]
        )
        candidates = f"words:{truth.shape[1]}"
        sheet.add(name, "f1", estimate, slice_=slice_, candidates=candidates, version=versions.get(name, "exact"))


def decoded(vectors: Mapping[str, np.ndarray], words: Mapping[str, np.ndarray], users: np.ndarray) -> np.ndarray:
    """Guess [n_test, v] bool by a ridge decoder.

    Each word is guessed in the texts that score highest, in c times as large a share of them as in training, with the c
    of `RATES` that has the best F1 on the validation texts (1 without any).
    """
    n_valid = len(words["valid"])
    both = {**vectors, "test": np.concatenate([vectors["valid"], vectors["test"]])}
    task = ProbeTask({split: Attribute("words", table) for split, table in words.items()}, users)
    scores = probe(ProbeModel(both, ""), task)
    place = np.argsort(np.argsort(-scores, axis=0, kind="stable"), axis=0)

    def guessed(rate: float) -> np.ndarray:
        return place < np.round(rate * words["train"].mean(axis=0) * len(scores))

    def f1(rate: float) -> float:
        guess = guessed(rate)[:n_valid]
        return float((guess * words["valid"]).sum() / max(1.0, guess.sum() + words["valid"].sum()))

    return guessed(max(RATES, key=f1) if n_valid else 1.0)[n_valid:]


def frequent_guess(train: np.ndarray, n: int) -> np.ndarray:
    """Guess [n, v] bool: in every text the m most frequent words, with the m that has the best F1 in training."""
    shares = np.sort(train.mean(axis=0))[::-1]
    f1 = 2 * np.cumsum(shares) / (np.arange(1, len(shares) + 1) + shares.sum())
    chosen = np.argsort(-train.mean(axis=0), kind="stable")[: int(f1.argmax()) + 1]
    guess = np.zeros((n, train.shape[1]), dtype=bool)
    guess[:, chosen] = True
    return guess


def _f1(guess: np.ndarray, truth: np.ndarray) -> Statistic:
    right, said, there = (guess * truth).sum(axis=1), guess.sum(axis=1), truth.sum(axis=1)

    def statistic(weights: np.ndarray) -> np.ndarray:
        total = weights @ (said + there)
        return (2 * (weights @ right) / np.where(total > 0, total, np.nan))[:, None]

    return statistic
