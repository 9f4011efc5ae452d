"""Whose words a model is trained on, written beside it, so that an erasure can name the models it concerns."""

import polars as pl

from user_embeddings_dagster.privacy.tombstones import erasure_id
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.models import ModelFolder, Models


def trained_on(lake: Lake, key: bytes, chunk_ids: pl.Series) -> list[str]:
    """Pseudonyms (privacy.tombstones) of everyone who speaks in these chunks, their SUBJECT or not; sorted."""
    people: set[str] = set()
    for datadao in lake.partitions("masked_chunks"):
        chunks = lake.scan("masked_chunks", datadao).filter(pl.col("chunk_id").is_in(chunk_ids.implode()))
        said = chunks.select("user_id", message_id="message_ids").explode("message_id").collect()
        authors = lake.scan("messages", datadao).select("message_id", "author_id")
        spoke = authors.join(said.lazy().select("message_id"), on="message_id", how="semi").collect()
        people |= {*said["user_id"], *spoke["author_id"].drop_nulls()}
    return sorted(erasure_id(key, user) for user in people)


def descendants(models: Models, erased: frozenset[str]) -> list[tuple[ModelFolder, frozenset[str]]]:
    """The versions trained on any of these people, each with whom; also those on the vectors of one that was.

    A version of which nobody wrote down whom it was trained on counts as trained on all of them.
    """
    found: dict[str, frozenset[str]] = {}
    folders = list(models.versions())
    for folder in folders:
        trained = erased if folder.contributors is None else folder.contributors & erased
        if trained:
            found[folder.record()["data_version"]] = trained
    named = []
    for folder in folders:
        trained = found.get(folder.record()["data_version"], frozenset())
        if folder.basis is not None:
            trained |= found.get(folder.basis, frozenset())
        if trained:
            named.append((folder, trained))
    return named
