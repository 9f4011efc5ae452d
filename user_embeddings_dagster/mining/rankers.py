"""Two rankings of candidate summaries for a chunk: by query likelihood and by relevance.

Gecko (Lee et al. 2024, arXiv:2403.20327, section 3.2) asks one language model for both: how likely the query is,
given the passage, and how relevant the passage is to the query. `FrozenRanker` needs no language model and says so
in its name; `ModelRanker` asks one.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import polars as pl

from user_embeddings_dagster.conversations.rendering import SUBJECT
from user_embeddings_dagster.language_models.protocol import TRANSIENT, Failure, LanguageModel, Request
from user_embeddings_dagster.mining.candidates import rank_candidates, ranking_inputs
from user_embeddings_dagster.summaries.asking import Spending

SCRIPTS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}"
WORD = rf"[{SCRIPTS}]|[\w--[{SCRIPTS}]]+"  # scripts without spaces by character
NOT_A_RANKING = "not_a_ranking"  # JSON of the right form, but no permutation of the candidates
_PAIRS = 100_000  # pairs scored at once: about 40 words each, 30 MB a column


@dataclass(frozen=True)
class CandidateLists:
    """What is ranked: `found` (query, candidate, score: cosine), rows of `chunks`, by query and then candidate.

    `chunks` has user_id, speakers, turns and summary, row by row of the training corpus.
    """

    found: pl.DataFrame
    chunks: pl.DataFrame


@dataclass(frozen=True)
class Rankings:
    """Ranks from 1 (best; equals share the best) by row of `found`, NaN in a list that could not be ranked.

    `unranked` counts those lists by reason; `stats` is what ranking cost.
    """

    likelihood: np.ndarray
    relevance: np.ndarray
    unranked: Mapping[str, int] = field(default_factory=dict)
    stats: Mapping[str, float] = field(default_factory=dict)


class Ranker(Protocol):
    """Ranks candidate lists; `name` is what rows record."""

    @property
    def name(self) -> str: ...

    def rank(self, lists: CandidateLists) -> Rankings: ...


class FrozenRanker:
    """Without a language model: relevance is the frozen encoder's cosine of chunk and summary, query likelihood that of
    SUBJECT's words in the chunk under the summary's smoothed word distribution (`query_likelihood`)."""

    name = "dirichlet_query_likelihood+frozen_encoder_cosine"

    def rank(self, lists: CandidateLists) -> Rankings:
        """Every list is ranked."""
        said = subject_texts(lists.chunks)
        query, candidate = (lists.found[name].to_numpy() for name in ("query", "candidate"))
        likelihood = query_likelihood(said, lists.chunks["summary"], query, candidate)
        return Rankings(ranks(query, likelihood), ranks(query, lists.found["score"].to_numpy()))


class ModelRanker:
    """A language model gives both rankings of a chunk's candidates, by RankCandidates.

    The candidates are in the order of their chunk_id, which says nothing about them. A list without a valid answer
    is unranked, with the reason; nothing else ranks it. Its prompt holds summaries of other contributors, its answer
    (which is cached under the chunk's contributor) numbers alone. `settings` as of Program.
    """

    def __init__(
        self, model: LanguageModel, progress: Callable[[int, int], None] | None = None, settings: str = ""
    ) -> None:
        self._model, self._progress, self._settings = model, progress, settings

    @property
    def name(self) -> str:
        """The language model's name."""
        return self._model.name

    def rank(self, lists: CandidateLists) -> Rankings:
        """Rankings of the lists that got a valid answer. `to_ask_again` counts failures that may pass with time."""
        query, candidate = (lists.found[name].to_numpy() for name in ("query", "candidate"))
        starts = np.flatnonzero(np.diff(query, prepend=-1))
        places = [slice(*ends) for ends in zip(starts, [*starts[1:], len(query)], strict=True)]
        asked: list[str] = []

        def requests() -> Iterator[Request]:
            speakers, turns, owners, summaries = (
                lists.chunks[name] for name in ("speakers", "turns", "user_id", "summary")
            )
            for place in places:
                row, others = int(query[place.start]), summaries.gather(candidate[place])
                inputs = ranking_inputs(speakers[row].to_list(), turns[row].to_list(), others.to_list())
                program = rank_candidates(len(others)).with_settings(self._settings)
                request = program.request(inputs, owner=owners[row])
                asked.append(request.id)
                yield request

        spending, answers = Spending(), {}
        for answer in self._model.complete(requests()):
            spending.add(answer)
            answers[answer.request_id] = answer.reason if isinstance(answer, Failure) else answer.value
            if self._progress:
                self._progress(spending.answers, len(places))
        result, unranked = np.full((2, len(query)), np.nan), Counter[str]()
        for place, request_id in zip(places, asked, strict=True):
            read = _ranks_of(answers[request_id], int(place.stop - place.start))
            if isinstance(read, str):
                unranked[read] += 1
            else:
                result[:, place] = read
        again = sum(unranked[reason] for reason in TRANSIENT)
        stats = {"to_ask_again": again, "usd": spending.total.usd, **spending.stats}
        return Rankings(result[0], result[1], dict(unranked), stats)


def _ranks_of(answer: Any, n: int) -> np.ndarray | str:
    """Ranks by query likelihood and by relevance [2, n], or the reason why there are none."""
    if isinstance(answer, str):
        return answer
    try:
        rankings = rank_candidates(n).parse(answer)
    except ValueError:
        return NOT_A_RANKING
    ordered = np.array([rankings.query_likelihood, rankings.relevance])  # candidates from 1, best first
    return np.argsort(ordered, axis=1) + 1.0


def ranks(query: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Rank of each row within its query, the highest score first; scores equal to six digits share the best rank."""
    frame = pl.DataFrame({"query": query, "score": np.round(scores.astype(np.float64), 6)})
    return frame.select(pl.col("score").rank("min", descending=True).over("query")).to_series().to_numpy() * 1.0


def subject_texts(chunks: pl.DataFrame) -> pl.Series:
    """What SUBJECT says in each chunk, in one text."""
    turns = chunks.select(pl.row_index("row"), "speakers", "turns").explode("speakers", "turns")
    own = turns.filter(pl.col("speakers") == SUBJECT).group_by("row").agg(pl.col("turns").str.join(" "))
    rows = pl.DataFrame({"row": pl.Series(range(chunks.height), dtype=own.schema["row"])})
    return rows.join(own, on="row", how="left").sort("row")["turns"].fill_null("")


def query_likelihood(
    queries: pl.Series, texts: pl.Series, query: np.ndarray, candidate: np.ndarray, mu: float | None = None
) -> np.ndarray:
    """log p(queries[query[i]] | texts[candidate[i]]) [n], up to a constant of the query.

    Unigrams with Dirichlet smoothing: Zhai & Lafferty (SIGIR 2001, sections 2 and 3): sum over the words that both
    have of c(w; q) · ln(1 + c(w; d) / (mu · p(w | C))), plus |q| · ln(mu / (mu + |d|)). The collection C is all of
    `texts`; words of the query that are in none of them say nothing. `mu`, in words: the mean length of the texts.
    """
    counted = _counts(texts)
    vocabulary = counted.group_by("word").agg(total=pl.col("n").sum()).sort("word").with_row_index("term")
    lengths = _lengths(counted, len(texts))
    mu = max(float(lengths.sum()) / max(len(texts), 1), 1.0) if mu is None else mu
    of_text = counted.join(vocabulary, on="word").with_columns(
        key=pl.col("row").cast(pl.Int64) * vocabulary.height + pl.col("term"),
        gain=(1 + pl.col("n") * lengths.sum() / (mu * pl.col("total"))).log(),
    )
    of_text = of_text.sort("key")
    asked = _counts(queries).join(vocabulary, on="word").sort("row", "term")
    first = np.searchsorted(asked["row"].to_numpy(), np.arange(len(queries) + 1))
    terms, times = asked["term"].to_numpy().astype(np.int64), asked["n"].to_numpy()
    keys, gains = of_text["key"].to_numpy(), of_text["gain"].to_numpy()
    result = _lengths(asked, len(queries))[query] * np.log(mu / (mu + lengths[candidate]))
    for start in range(0, len(query), _PAIRS):
        rows = slice(start, start + _PAIRS)
        result[rows] += _matched(first, terms, times, keys, gains, query[rows], candidate[rows], vocabulary.height)
    return result


def _matched(
    first: np.ndarray,
    terms: np.ndarray,
    times: np.ndarray,
    keys: np.ndarray,
    gains: np.ndarray,
    query: np.ndarray,
    candidate: np.ndarray,
    n_terms: int,
) -> np.ndarray:
    """Sum over the words of both, by pair. Words of query q are `terms[first[q]:first[q + 1]]`, `times` each."""
    width = first[query + 1] - first[query]
    pair = np.repeat(np.arange(len(query)), width)
    word = np.arange(len(pair)) - np.repeat(np.cumsum(width) - width, width) + np.repeat(first[query], width)
    wanted = candidate[pair] * n_terms + terms[word]
    place = np.minimum(np.searchsorted(keys, wanted), max(len(keys) - 1, 0))
    hit = keys[place] == wanted if len(keys) else np.zeros(len(wanted), dtype=bool)
    return np.bincount(pair[hit], times[word[hit]] * gains[place[hit]], minlength=len(query))


def _counts(texts: pl.Series) -> pl.DataFrame:
    """How often (n) each word is in each text: row, word, n."""
    words = pl.DataFrame({"word": texts}).select(
        pl.row_index("row"), pl.col("word").str.to_lowercase().str.extract_all(WORD)
    )
    return words.explode("word").drop_nulls("word").group_by("row", "word").agg(n=pl.len())


def _lengths(counted: pl.DataFrame, n: int) -> np.ndarray:
    """Words of each text [n]."""
    return np.bincount(counted["row"].to_numpy(), counted["n"].to_numpy(), minlength=n)
