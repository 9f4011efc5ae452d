"""What each evaluation asset measures: loads, runs every model, calls its suite."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.baselines import Predictions, baselines, user_pools
from user_embeddings_dagster.evaluation.comparison import (
    common_budget,
    datadao_comparison,
    equal_samples,
    equal_statistics,
    transfer_models,
)
from user_embeddings_dagster.evaluation.histories import Histories, NothingToFit
from user_embeddings_dagster.evaluation.inputs import EvaluationInputs
from user_embeddings_dagster.evaluation.suites import ItemModel, item_encoder_scores, sequence_encoder_scores
from user_embeddings_dagster.evaluation.user_suites import (
    sparse_cases,
    sparse_model,
    sparse_user_scores,
    temporal_halves,
    user_matching_scores,
    user_models,
)
from user_embeddings_dagster.mining.pairs import training_pairs, vector_frame
from user_embeddings_dagster.privacy.consent.grants import COMPARE
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables, stacked

REFERENCE = "whitened_decayed_mean_tuned"
IN_CONTEXT = "whitened_in_context_tuned"
REFERENCES = (REFERENCE, "decayed_mean_tuned", IN_CONTEXT)
SPARSE_BASELINES = frozenset({"popularity", "mean_pool", REFERENCE, IN_CONTEXT})


class Encoder(Protocol):
    """A trained sequence encoder (training.sequence_inference.SequenceEncoder)."""

    version: str

    def encode_positions(self, sequences: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Per row: state [n, dimension] and query [n, D] after that chunk."""
        ...

    def targets(self, vectors: np.ndarray, contexts: np.ndarray | None = None) -> np.ndarray:
        """Candidates [n, D] in the space of the queries."""
        ...

    def prior(self) -> tuple[np.ndarray, np.ndarray]:
        """State and query of a user without any chunk."""
        ...


class SequenceModel:
    """A sequence encoder as a function of histories."""

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder

    def __call__(self, histories: Histories) -> Predictions:
        """Queries after every chunk, candidates, prior."""
        _, queries = self.encoder.encode_positions(_frame(histories))
        candidates = self.encoder.targets(histories.vectors, histories.contexts)
        return Predictions(queries, candidates, self.encoder.prior()[1], self.encoder.version)

    def states(self, histories: Histories) -> np.ndarray:
        """User state [n_histories, dimension] after each history's last chunk."""
        return self.encoder.encode_positions(_frame(histories))[0][histories.last_rows]


def _frame(histories: Histories) -> pl.DataFrame:
    """As rows; one user per history, because a person's two DataDAOs are two histories."""
    columns = {
        "user_id": np.char.mod("%09d", histories.history_of_row),
        "position": histories.positions,
        "ended_at": pl.Series(histories.ended * 1_000_000).cast(pl.Datetime("us", "UTC")),
        "vector": pl.Series(histories.vectors).cast(pl.List(pl.Float32)),
    }
    if histories.contexts is not None:
        columns["context"] = pl.Series(histories.contexts).cast(pl.List(pl.Float32))
    return pl.DataFrame(columns)


def measure_item_encoder(
    lake: Lake,
    lance: LanceTables,
    seed: int,
    tuned_version: str,
    max_queries: int | None = None,
    split: str = "test",
) -> pl.DataFrame:
    """Tuned and untuned item encoder: chunk to its own summary, and the right SUBJECT in its window."""
    inputs = EvaluationInputs.load(lake, lance, "item_embeddings", seed)
    if inputs.snapshot.is_empty():
        return inputs.omitted("item_encoder_scores", "mrr", "nobody has consented to 'train' or 'evaluate'")
    pairs = training_pairs(inputs.snapshot, lake, lance)
    tuned = vector_frame(lance, "item_embeddings", inputs.datadaos).rename({"vector": "item_vector"})
    rows = pairs.join(tuned, on="chunk_id", how="left").sort("chunk_id")
    summaries = stacked(rows["summary_vector"])
    models = {
        "untuned": ItemModel(stacked(rows["chunk_vector"]), summaries, "base"),
        "item_encoder": ItemModel(stacked(rows["item_vector"]), summaries, tuned_version),
    }
    scope = inputs.scope("item_encoder_scores")
    parts = [item_encoder_scores(scope, rows, models, split=split, max_queries=max_queries)]
    for datadao in inputs.held_out(split):
        mine = (rows["datadao"] == datadao).to_numpy()
        own = {
            name: ItemModel(model.chunk_vectors[mine], model.summary_vectors[mine], model.version)
            for name, model in models.items()
        }
        scope = inputs.scope("item_encoder_scores", datadao)
        parts.append(item_encoder_scores(scope, rows.filter(mine), own, split=split, max_queries=max_queries))
    return pl.concat(parts)


def measure_sequence_encoders(
    inputs: EvaluationInputs,
    models: Mapping[str, SequenceModel],
    max_queries: int | None = None,
    split: str = "test",
) -> pl.DataFrame:
    """Next chunk: every baseline and every sequence encoder, over all DataDAOs and within each."""
    try:
        functions = baselines(inputs.fitted(), inputs.seed)
    except NothingToFit as error:
        return inputs.omitted("sequence_encoder_scores", "mrr", str(error))
    parts = []
    for datadao in ("all", *inputs.held_out(split)):
        histories = inputs.histories(split, datadao)
        predictions = {name: function(histories) for name, function in {**functions, **models}.items()}
        parts.append(
            sequence_encoder_scores(
                inputs.scope("sequence_encoder_scores", datadao),
                histories,
                predictions,
                references=REFERENCES,
                baseline_names=frozenset(functions),
                max_queries=max_queries,
            )
        )
    return pl.concat(parts)


def measure_matching(
    inputs: EvaluationInputs,
    models: Mapping[str, SequenceModel],
    max_queries: int | None = None,
    split: str = "test",
) -> pl.DataFrame:
    """Same user, temporal halves: pooled baselines and user embeddings, over all DataDAOs and within each."""
    try:
        fitted = inputs.fitted()
    except NothingToFit as error:
        return inputs.omitted("user_matching_scores", "mrr", str(error))
    pools = user_pools(fitted.statistics, fitted.two_covariance)
    parts = []
    for datadao in ("all", *inputs.held_out(split)):
        halves = temporal_halves(inputs.histories(split, datadao))
        everyone = user_models(halves, pools)
        for name, model in models.items():
            everyone |= user_models(halves, {name: model.states}, model.encoder.version)
        scope = inputs.scope("user_matching_scores", datadao)
        parts.append(user_matching_scores(scope, halves, everyone, max_queries=max_queries))
    return pl.concat(parts)


def measure_sparse_users(
    inputs: EvaluationInputs,
    models: Mapping[str, SequenceModel],
    max_queries: int | None = None,
    split: str = "test",
) -> pl.DataFrame:
    """Next chunk by length of history, over all DataDAOs and within each: some baselines and the sequence encoders."""
    try:
        functions = baselines(inputs.fitted(), inputs.seed)
    except NothingToFit as error:
        return inputs.omitted("sparse_user_scores", "mrr", str(error))
    chosen = {name: functions[name] for name in sorted(SPARSE_BASELINES & functions.keys())} | dict(models)
    parts = []
    for datadao in ("all", *inputs.held_out(split)):
        cases = sparse_cases(inputs.histories(split, datadao), max_queries=max_queries, seed=inputs.seed)
        answers = {name: sparse_model(cases, function) for name, function in chosen.items()}
        parts.append(
            sparse_user_scores(
                inputs.scope("sparse_user_scores", datadao),
                cases,
                answers,
                reference=REFERENCE,
                baseline_names=SPARSE_BASELINES,
            )
        )
    return pl.concat(parts)


def compare_datadaos(
    lake: Lake, lance: LanceTables, seed: int, models: Mapping[str, SequenceModel], tuned_version: str
) -> pl.DataFrame:
    """Every DataDAO on an equal budget of held-out users, chunks and queries; of people who consented to `compare`."""
    inputs = EvaluationInputs.of_users(lake, lance, seed, COMPARE)
    if inputs.snapshot.is_empty():
        return inputs.omitted("datadao_comparison", "mrr", "nobody has consented to 'compare'")
    held_out = {name: inputs.histories("test", name) for name in inputs.datadaos}
    budget = common_budget(held_out)
    samples = equal_samples(held_out, budget, seed)
    training = {name: inputs.histories("train", name).vectors for name in samples}
    statistics = equal_statistics({name: vectors for name, vectors in training.items() if len(vectors)}, seed)
    functions = transfer_models(statistics) | dict(models)
    summaries = EvaluationInputs.load(lake, lance, "summary_embeddings", seed, COMPARE)
    base = EvaluationInputs.load(lake, lance, "chunk_embeddings", seed, COMPARE)
    return datadao_comparison(
        inputs.scope("datadao_comparison"),
        samples,
        {name: {model: function(sample) for model, function in functions.items()} for name, sample in samples.items()},
        statistics=statistics,
        items={
            name: {
                "untuned": ItemModel(base.vectors_of(sample.chunk_ids), summaries.vectors_of(sample.chunk_ids), "base"),
                "item_encoder": ItemModel(sample.vectors, summaries.vectors_of(sample.chunk_ids), tuned_version),
            }
            for name, sample in samples.items()
        },
        omitted=budget.omitted,
    )
