"""What every evaluation asset starts from: the snapshot's histories and their vectors, per split."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from user_embeddings_dagster.evaluation.baselines import Fitted, fit_baselines
from user_embeddings_dagster.evaluation.bootstrap import MIN_USERS
from user_embeddings_dagster.evaluation.histories import Histories, histories_of
from user_embeddings_dagster.evaluation.scores import Scope, ScoreSheet
from user_embeddings_dagster.evaluation.splits import split_hash
from user_embeddings_dagster.mining.pairs import vector_frame
from user_embeddings_dagster.privacy.consent.live import consented_snapshot
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables, stacked


@dataclass(frozen=True)
class EvaluationInputs:
    """The snapshot and the vectors of its chunks in one vector table."""

    snapshot: pl.DataFrame
    chunk_ids: pl.Series
    vectors: np.ndarray  # [n, d] float32
    seed: int
    contexts: np.ndarray | None = None  # [n, c] float32

    @classmethod
    def load(cls, lake: Lake, lance: LanceTables, table: str, seed: int, *also: str) -> "EvaluationInputs":
        """Of every DataDAO in the current snapshot. Raises FileNotFoundError naming what was not materialised.

        Of users who have consented to what their split needs (train, evaluate), and to the purposes `also`.
        """
        snapshot = consented_snapshot(lake, *also)
        frame = vector_frame(lance, table, snapshot["datadao"].unique().sort().to_list())
        return cls(snapshot, frame["chunk_id"], stacked(frame["vector"]), seed)

    @classmethod
    def of_users(cls, lake: Lake, lance: LanceTables, seed: int, *also: str) -> "EvaluationInputs":
        """Item vectors with their contexts: what user embeddings are made from."""
        items = cls.load(lake, lance, "item_embeddings", seed, *also)
        contexts = cls.load(lake, lance, "chunk_embeddings", seed, *also).vectors_of(items.chunk_ids)
        return replace(items, contexts=contexts)

    def vectors_of(self, chunk_ids: Iterable[str]) -> np.ndarray:
        """Vectors [n, d] of chunks. Raises KeyError if one has none."""
        place = dict(zip(self.chunk_ids, range(len(self.chunk_ids)), strict=True))
        return self.vectors[[place[chunk] for chunk in chunk_ids]]

    @property
    def datadaos(self) -> list[str]:
        """DataDAOs in the snapshot, sorted."""
        return self.snapshot["datadao"].unique().sort().to_list()

    def held_out(self, split: str) -> list[str]:
        """DataDAOs with at least `MIN_USERS` users in a split, where one DataDAO alone can be measured."""
        users = self.snapshot.filter(split=split).group_by("datadao").agg(pl.col("user_id").n_unique())
        return users.filter(pl.col("user_id") >= MIN_USERS)["datadao"].sort().to_list()

    def scope(self, asset: str, datadao: str = "all") -> Scope:
        """Who measures what, with seed and split hash."""
        return Scope(asset, datadao, self.seed, split_hash(self.snapshot))

    def omitted(self, asset: str, metric: str, reason: str) -> pl.DataFrame:
        """The scores of an asset that can measure nothing: one explicit row that says why."""
        sheet = ScoreSheet(self.scope(asset))
        sheet.omit("none", metric, reason=reason, slice_="all", version="none")
        return sheet.frame()

    def histories(self, split: str, datadao: str = "all") -> Histories:
        """Histories of one split, of one DataDAO or of all."""
        rows = self.snapshot.filter(pl.col("split") == split)
        if datadao != "all":
            rows = rows.filter(pl.col("datadao") == datadao)
        return histories_of(rows, self.chunk_ids, self.vectors, self.contexts)

    def fitted(self) -> Fitted:
        """The baselines, fitted on training users and tuned on validation users. Raises NothingToFit."""
        return fit_baselines(self.histories("train"), self.histories("valid"))
