"""Does a search with one person's vectors return another person's items?

Without a filter it must: nearest texts are mostly other people's, at the rate measured here beside that of a random
order. With the search restricted to one person's own ids, as every reader of one person's data has to, it must not,
ever. That a person's two halves find each other is `user_matching_scores`; here: one DataDAO's half finds the other's.
"""

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.histories import Histories
from user_embeddings_dagster.evaluation.ranking import CHANCE, expected_at_random, full_ranks, metrics, unit
from user_embeddings_dagster.evaluation.scores import ScoreSheet
from user_embeddings_dagster.storage.lance_tables import LanceTables, stacked

K = 10
NEAR_COPY = 0.95
"""Cosine from which on two chunks count as saying the same: the margin of the mining."""
NO_FILTER, FILTERED = "no_filter", "filtered_by_user"


def foreign_shares(found: pl.DataFrame, owners: pl.DataFrame, queries: pl.DataFrame) -> np.ndarray:
    """Share of each query's results that belong to another person [n_queries]; 0 without results.

    `found`: query (row of `queries`), id; `owners`: id, user_id; `queries`: user_id, in order of the query number.
    """
    asked = queries.with_row_index("query").select(pl.col("query").cast(pl.Int64), asker="user_id")
    results = found.select(pl.col("query").cast(pl.Int64), "id").join(owners, on="id", how="left")
    shares = (
        results.join(asked, on="query")
        .group_by("query")
        .agg(share=(pl.col("user_id") != pl.col("asker")).fill_null(True).mean())
    )
    return asked.join(shares, on="query", how="left").sort("query")["share"].fill_null(0.0).to_numpy()


def add_item_search(
    sheet: ScoreSheet, lance: LanceTables, datadao: str, owners: pl.DataFrame, queries: pl.DataFrame, version: str
) -> None:
    """Rows of searching a DataDAO's item vectors with those of some of its chunks, with and without a filter by user.

    `owners`: id, user_id of every row of the table; `queries`: id, user_id, vector. `foreign@10`: share of the ten
    nearest that are another person's; `near_copy`: whether one of those is at cosine 0.95 or more.
    """
    vectors = stacked(queries["vector"])
    users = queries["user_id"].to_numpy()
    nearest = lance.search(datadao, "item_embeddings", vectors, K + 1)
    asked = queries.with_row_index("query").select(pl.col("query").cast(pl.Int64), own="id")
    nearest = nearest.with_columns(pl.col("query").cast(pl.Int64)).join(asked, on="query")
    nearest = nearest.filter(pl.col("id") != pl.col("own")).group_by("query", maintain_order=True).head(K)
    close = foreign_shares(nearest.filter(pl.col("similarity") >= NEAR_COPY), owners, queries) > 0
    values = {"foreign@10": foreign_shares(nearest, owners, queries), "near_copy": close.astype(np.float64)}
    task = {"slice_": "item search", "candidates": f"full:{owners.height}"}
    sheet.means(NO_FILTER, values, users, version=version, **task)
    counts = queries.join(owners.group_by("user_id").len("own"), on="user_id", how="left", maintain_order="left")
    random = (owners.height - counts["own"].to_numpy()) / max(1, owners.height - 1)
    sheet.means(CHANCE, {"foreign@10": random}, users, version="exact", **task)
    filtered = np.concatenate(
        [_filtered(lance, datadao, owners, queries.filter(user_id=user)) for user in queries["user_id"].unique().sort()]
    )
    names = queries.sort("user_id", maintain_order=True)["user_id"].to_numpy()
    sheet.means(FILTERED, {"foreign@10": filtered}, names, version=version, **task)


def _filtered(lance: LanceTables, datadao: str, owners: pl.DataFrame, queries: pl.DataFrame) -> np.ndarray:
    """`foreign_shares` of one person's queries among the ids of that person."""
    own = owners.filter(user_id=queries["user_id"][0])["id"].to_list()
    vectors = stacked(queries["vector"])
    return foreign_shares(lance.search(datadao, "item_embeddings", vectors, K, own), owners, queries)


def add_user_search(
    sheet: ScoreSheet, model: str, queries: np.ndarray, candidates: np.ndarray, histories: Histories, version: str
) -> None:
    """Rows of searching all chunks with each user embedding: share of the ten nearest that are another person's.

    queries [n_histories, d], candidates [n_chunks, d] of `histories`, which must not be empty.
    """
    people = np.unique(histories.user_ids, return_inverse=True)[1]
    owner = people[histories.history_of_row]
    candidates, k = unit(candidates), min(K, len(candidates))
    shares = np.empty(len(queries))
    for begin in range(0, len(queries), 512):
        scores = unit(queries[begin : begin + 512]) @ candidates.T
        nearest = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        shares[begin : begin + 512] = (owner[nearest] != people[begin : begin + 512, None]).mean(axis=1)
    own = np.bincount(owner, minlength=people.max() + 1)[people]
    task = {"slice_": "user search", "candidates": f"full:{len(candidates)}"}
    sheet.means(model, {"foreign@10": shares}, histories.user_ids, version=version, **task)
    sheet.means(CHANCE, {"foreign@10": 1 - own / len(candidates)}, histories.user_ids, version="exact", **task)


def add_reidentification(
    sheet: ScoreSheet, model: str, states: np.ndarray, people: np.ndarray, datadaos: np.ndarray, version: str
) -> int:
    """Rows of finding a person's embedding in another DataDAO by the one in a first, among everybody there.

    states [n, d], people [n], datadaos [n] of histories; returns how many pairs there were (0: no row).
    """
    ranks, users, sizes = [], [], []
    for a in np.unique(datadaos):
        for b in np.unique(datadaos[datadaos != a]):
            mine, theirs = np.flatnonzero(datadaos == a), np.flatnonzero(datadaos == b)
            place = {person: row for row, person in enumerate(people[theirs])}
            asked = [row for row in mine if people[row] in place]
            if asked:
                gold = np.array([place[people[row]] for row in asked])
                ranks.append(full_ranks(states[asked], states[theirs], gold))
                users += [people[row] for row in asked]
                sizes.append(len(theirs))
    if not ranks:
        return 0
    found = {name: np.concatenate([metrics(r, (1,))[name] for r in ranks]) for name in ("recall@1", "mrr")}
    chance = {name: np.concatenate([expected_at_random(r, (1,))[name] for r in ranks]) for name in found}
    task = {"slice_": "across DataDAOs", "candidates": f"full:{np.mean(sizes):.0f}"}
    sheet.means(model, found, np.array(users), version=version, **task)
    sheet.means(CHANCE, chance, np.array(users), version="exact", **task)
    return len(users)
