"""The probes of the user embeddings: past of every user → features, future → attributes, one probe for each (C40)."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.attributes import Attribute, attributes_of, chunk_facts, topics
from user_embeddings_dagster.evaluation.baselines import user_pools
from user_embeddings_dagster.evaluation.histories import Histories, NothingToFit
from user_embeddings_dagster.evaluation.inputs import EvaluationInputs
from user_embeddings_dagster.evaluation.measure import SequenceModel
from user_embeddings_dagster.evaluation.probes import SPLITS, ProbeModel, ProbeTask, probe_scores
from user_embeddings_dagster.evaluation.user_suites import temporal_halves
from user_embeddings_dagster.storage.lake import Lake

Features = dict[str, dict[str, np.ndarray]]


def measure_probes(lake: Lake, inputs: EvaluationInputs, models: Mapping[str, SequenceModel]) -> pl.DataFrame:
    """Attributes of the second half of a history from a user embedding of the first, by linear probes.

    Beside the user embeddings: pooled baselines; `random`, as many random numbers as item vectors have
    coordinates; `datadao_only`, what belonging explains; `past_attributes`, the same attributes of the first half,
    what of a person is steady at all. Within a DataDAO the probes are fitted on its own training users.
    """
    try:
        fitted, names = inputs.fitted(), inputs.datadaos
    except NothingToFit as error:
        return inputs.omitted("user_probe_scores", "r2", str(error))
    halves = {split: temporal_halves(inputs.histories(split)) for split in SPLITS}
    facts = chunk_facts(lake, names)
    directions = topics(inputs.histories("train").vectors, fitted.statistics, inputs.seed)

    def described(histories: Histories) -> dict[str, Attribute]:
        return attributes_of(histories, facts, fitted.statistics, directions, names)

    past = {split: described(part.first) for split, part in halves.items()}
    future = {split: described(part.second) for split, part in halves.items()}
    pools = user_pools(fitted.statistics, fitted.two_covariance)
    pools |= {name: model.states for name, model in models.items()}
    features = {name: {split: pool(part.first) for split, part in halves.items()} for name, pool in pools.items()}
    features |= _references(past, len(names), inputs.vectors.shape[1], inputs.seed)
    versions = {name: model.encoder.version for name, model in models.items()}
    users = halves["test"].first.user_ids
    parts = []
    for datadao in ("all", *inputs.held_out("test")):
        here = {split: _members(future[split]["datadao"], datadao) for split in SPLITS}
        tasks = [
            ProbeTask({split: future[split][name].of(here[split]) for split in SPLITS}, users[here["test"]])
            for name in future["test"]
            if datadao == "all" or name != "datadao"
        ]
        chosen = {
            name: ProbeModel(
                {split: rows[here[split]] for split, rows in by_split.items()}, versions.get(name, "baseline")
            )
            for name, by_split in features.items()
            if datadao == "all" or name != "datadao_only"
        }
        scope = inputs.scope("user_probe_scores", datadao)
        parts.append(probe_scores(scope, tasks, chosen, compared=sorted(models)))
    return pl.concat(parts)


def _references(past: Mapping[str, Mapping[str, Attribute]], n_datadaos: int, width: int, seed: int) -> Features:
    """Features that are no user embeddings, by name and split."""
    rng = np.random.default_rng(seed)
    homes = {split: attributes["datadao"].values for split, attributes in past.items()}
    return {
        "random": {split: rng.standard_normal((len(home), width)) for split, home in homes.items()},
        "datadao_only": {split: np.eye(n_datadaos)[home] for split, home in homes.items()},
        "past_attributes": {
            split: np.hstack([attribute.targets for attribute in attributes.values()])
            for split, attributes in past.items()
        },
    }


def _members(home: Attribute, datadao: str) -> np.ndarray:
    """Users of a DataDAO, or of all, as a mask."""
    if datadao == "all":
        return np.ones(len(home.values), dtype=bool)
    return home.values == home.classes.index(datadao)
