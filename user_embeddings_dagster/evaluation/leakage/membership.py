"""Membership inference against the two trained encoders: does the loss tell who was trained on?

Members are users of split train, non-members of split test: of the same DataDAO and a history of about the same
length, as many of each. Both are scored by the loss that the encoder was trained with, over one pool of negatives for
everybody. Attacks: the loss itself (Yeom et al. 2018, arXiv:1709.01604), and the loss less what an encoder that was
never trained on anybody has on the same text (calibration by difficulty: Watson et al. 2022, arXiv:2111.08440). The
control is the untrained encoder alone: it can know nobody, so what it finds is that the two sets of people differ.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.baselines import DECAY, Predictions, decayed_mean, next_chunk_queries
from user_embeddings_dagster.evaluation.bootstrap import MIN_USERS, NOTHING, Estimate, bootstrap_statistics
from user_embeddings_dagster.evaluation.histories import Histories
from user_embeddings_dagster.evaluation.leakage.audit import chance_tpr, tpr_at
from user_embeddings_dagster.evaluation.probes import auc
from user_embeddings_dagster.evaluation.ranking import CHANCE, unit
from user_embeddings_dagster.evaluation.scores import ScoreSheet
from user_embeddings_dagster.storage.lance_tables import stacked

TEMPERATURE = 0.05
POOL = 1_024
MEMBER, NON_MEMBER = "train", "test"
UNTRAINED, CALIBRATED = "untrained", "calibrated"
METRICS = ("auc", "tpr@1%fpr")


@dataclass(frozen=True)
class Losses:
    """Losses [n] of one encoder and of its untrained reference on the same texts, whose `users` [n] are members or not.

    `candidates` names the pool that the losses are over.
    """

    users: np.ndarray
    member: np.ndarray
    trained: np.ndarray
    untrained: np.ndarray
    candidates: str

    @classmethod
    def of_nobody(cls) -> "Losses":
        """Where no member is like any non-member: every score is then an omission."""
        none = np.zeros(0)
        return cls(np.zeros(0, dtype=str), np.zeros(0, dtype=bool), none, none, "none")

    def by_user(self) -> "Losses":
        """Mean losses of each user; one row per user."""
        names, first, code, counts = np.unique(self.users, return_index=True, return_inverse=True, return_counts=True)
        trained, untrained = (np.bincount(code, weights=part) / counts for part in (self.trained, self.untrained))
        return Losses(names, self.member[first], trained, untrained, self.candidates)

    def sampled(self, per_user: int, seed: int) -> "Losses":
        """At most `per_user` random rows of each user, for intervals that would take long over all."""
        order = np.random.default_rng(seed).permutation(len(self.users))
        frame = pl.DataFrame({"row": order, "user": self.users[order]})
        rows = frame.filter(pl.int_range(pl.len()).over("user") < per_user)["row"].sort().to_numpy()
        columns = (self.users, self.member, self.trained, self.untrained)
        users, member, trained, untrained = (column[rows] for column in columns)
        return Losses(users, member, trained, untrained, self.candidates)

    @property
    def attacks(self) -> dict[str, np.ndarray]:
        """Scores [n] by attack, higher for members."""
        return {"trained": -self.trained, CALIBRATED: self.untrained - self.trained, UNTRAINED: -self.untrained}


def matched_users(snapshot: pl.DataFrame, seed: int, at_least: int = 1) -> pl.DataFrame:
    """As many members as non-members of each DataDAO and length of history: datadao, user_id, member.

    Lengths count as equal within a factor of two; histories shorter than `at_least` chunks are left out.
    """
    people = (
        snapshot.filter(pl.col("split").is_in([MEMBER, NON_MEMBER]))
        .group_by("datadao", "user_id", "split")
        .len()
        .filter(pl.col("len") >= at_least)
        .with_columns(length=pl.col("len").log(2).floor())
        .sort("datadao", "user_id")
    )
    drawn = pl.Series(np.random.default_rng(seed).permutation(people.height))
    people = people.with_columns(drawn=drawn, member=pl.col("split") == MEMBER).sort("drawn")
    side = pl.int_range(pl.len()).over("datadao", "length", "member")
    members = pl.col("member").sum().over("datadao", "length")
    fewest = pl.min_horizontal(members, pl.len().over("datadao", "length") - members)
    return people.filter(side < fewest).select("datadao", "user_id", "member").sort("datadao", "user_id")


def item_losses(pairs: pl.DataFrame, seed: int) -> Losses:
    """InfoNCE of chunks against their own summaries, of the item encoder and of the frozen base encoder.

    `pairs`: chunk_id, user_id, member, window_id, and lists item_vector, chunk_vector, summary_vector.
    """
    rng = np.random.default_rng(seed)
    chosen = pairs.sort("chunk_id")
    summaries = stacked(chosen["summary_vector"])
    pool = _pool(len(summaries), rng)
    windows = np.unique(chosen["window_id"].to_numpy(), return_inverse=True)[1]
    trained, untrained = (
        info_nce(unit(stacked(chosen[column])), summaries, np.arange(len(summaries)), pool, windows)
        for column in ("item_vector", "chunk_vector")
    )
    users, member = chosen["user_id"].to_numpy(), chosen["member"].to_numpy()
    return Losses(users, member, trained, untrained, f"pool:{len(pool)}")


def sequence_losses(histories: Histories, member: np.ndarray, predictions: Predictions, seed: int) -> Losses:
    """InfoNCE of each next chunk, of a sequence encoder and of the decayed mean of the frozen encoder's vectors.

    `member` [n_histories]; `predictions` of the encoder on these histories. Raises ValueError without contexts.
    """
    if histories.contexts is None:
        raise ValueError("the untrained reference reads the frozen encoder's vectors of the chunks")
    gold = next_chunk_queries(histories)
    people = np.unique(histories.user_ids, return_inverse=True)[1][histories.history_of_row]
    pool = _pool(len(people), np.random.default_rng(seed))
    context = unit(histories.contexts)
    untrained = Predictions(decayed_mean(histories.with_vectors(context), DECAY), context)
    trained, reference = (
        info_nce(unit(p.queries[gold - 1]), unit(p.candidates), gold, pool, people) for p in (predictions, untrained)
    )
    owner = histories.history_of_row[gold]
    return Losses(histories.user_ids[owner], member[owner], trained, reference, f"pool:{len(pool)}")


def info_nce(
    queries: np.ndarray, candidates: np.ndarray, gold: np.ndarray, pool: np.ndarray, groups: np.ndarray
) -> np.ndarray:
    """-log p of candidate `gold[i]` against the candidates `pool` that are not of its group [n]: van den Oord et al.
    2018, eq. 4. queries [n, d], candidates [c, d] of length 1, `groups` [c]."""
    own = np.einsum("nd,nd->n", queries, candidates[gold]) / TEMPERATURE
    losses = np.empty(len(gold))
    for begin in range(0, len(gold), 4_096):
        part = slice(begin, begin + 4_096)
        logits = (queries[part] @ candidates[pool].T / TEMPERATURE).astype(np.float64)
        logits[groups[pool][None, :] == groups[gold[part]][:, None]] = -np.inf
        top = np.maximum(logits.max(axis=1, initial=-np.inf), own[part])
        rest = np.exp(logits - top[:, None]).sum(axis=1) + np.exp(own[part] - top)
        losses[part] = np.log(rest) + top - own[part]
    return losses


def add_membership(sheet: ScoreSheet, model: str, slices: Sequence[tuple[str, Losses]], version: str) -> None:
    """Rows of each slice: AUC and TPR at 1% FPR of the attacks, the untrained control and chance, and what the trained
    encoder has over the control (`_difference`), with intervals over users."""
    for slice_, losses in slices:
        names = [model, f"{model} {CALIBRATED}", UNTRAINED, f"{model} - {UNTRAINED}"]
        estimates = _estimates(losses, sheet.scope.seed)
        for name, pair in zip(names, estimates, strict=True):
            own_version = "base" if name == UNTRAINED else version
            for metric, estimate in zip(METRICS, pair, strict=True):
                metric = f"{metric}_difference" if " - " in name else metric
                sheet.add(name, metric, estimate, slice_=slice_, candidates=losses.candidates, version=own_version)
        others = int((~losses.member).sum())
        expected = (0.5, chance_tpr(others) if others else None)
        for metric, value in zip(METRICS, expected, strict=True):
            exact = Estimate(value, None, None, len(losses.member), len(np.unique(losses.users))) if others else NOTHING
            sheet.add(CHANCE, metric, exact, slice_=slice_, candidates=losses.candidates, version="exact")


def _estimates(losses: Losses, seed: int) -> list[tuple[Estimate, Estimate]]:
    """(AUC, TPR) of each attack, and of the first less the control."""
    member, attacks = losses.member, losses.attacks
    sides = [len(np.unique(losses.users[member])), len(np.unique(losses.users[~member]))]
    if min(sides) < MIN_USERS:
        return [(NOTHING, NOTHING)] * (len(attacks) + 1)

    def statistic(weights: np.ndarray) -> np.ndarray:
        found = {n: (auc(member, s, weights), tpr_at(member, s, weights)) for n, s in attacks.items()}
        gained = [a - b for a, b in zip(found["trained"], found[UNTRAINED], strict=True)]
        return np.stack([*(column for pair in found.values() for column in pair), *gained], axis=1)

    flat = bootstrap_statistics(statistic, losses.users, seed=seed)
    return list(zip(flat[::2], flat[1::2], strict=True))


def _pool(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.choice(n, min(n, POOL), replace=False))
