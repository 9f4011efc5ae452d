"""Where everything is stored."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg

from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.language_models.cache import Cache, open_cache
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.retention.windows import Horizons
from user_embeddings_dagster.settings import Layout, data_root, release_tainted
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables
from user_embeddings_dagster.storage.models import Models
from user_embeddings_dagster.storage.score_table import ScoreTable
from user_embeddings_dagster.storage.user_memories import UserMemories


class Store(dg.ConfigurableResource):
    """The data root and the stores below it. `data` empty: USER_EMBEDDINGS_DATA, or ./data."""

    data: str = ""

    @property
    def layout(self) -> Layout:
        """Paths below the data root."""
        return Layout(Path(self.data) if self.data else data_root())

    @property
    def lake(self) -> Lake:
        """Parquet tables."""
        return Lake(self.layout.root)

    @property
    def lance(self) -> LanceTables:
        """LanceDB tables, one database per DataDAO."""
        return LanceTables(self.layout.lancedb)

    def user_memories(self, datadao: str) -> UserMemories:
        """What the user embeddings of a DataDAO advance from; to be closed."""
        return UserMemories(self.layout.user_memories / f"{datadao}.sqlite")

    @property
    def models(self) -> Models:
        """Trained encoders."""
        return Models(self.layout.models, release_tainted())

    @property
    def scores(self) -> ScoreTable:
        """DuckDB table of scores."""
        return ScoreTable(self.layout.scores)

    @property
    def key(self) -> bytes:
        """Secret of the keyed hashes; created on first use."""
        return load_or_create_key(self.layout.key)

    @property
    def horizons(self) -> Horizons:
        """Up to which date each stage was purged."""
        return Horizons.load(self.layout.horizons)

    @property
    def contributor_keys(self) -> ContributorKeys:
        """One key per contributor, wrapped under the platform's master key; to be closed."""
        return ContributorKeys.of(self.layout)

    @contextmanager
    def language_model_cache(self, ttl: float | None = None, kept: float | None = None) -> Iterator[Cache]:
        """Answers of language models, encrypted; entries older than `ttl` seconds are not used, and a server forgets
        those older than `kept`."""
        with self.contributor_keys as keys, open_cache(self.layout.language_model_cache_url, keys, ttl, kept) as cache:
            yield cache
