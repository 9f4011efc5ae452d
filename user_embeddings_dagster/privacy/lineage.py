"""Whose words a model is trained on, written beside it, so that erasures and revocations can name the models."""

from collections.abc import Mapping, Sequence

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
    folders = list(models.versions())
    trained = [erased if folder.contributors is None else folder.contributors & erased for folder in folders]
    return [(folder, people) for folder, people in _with_their_basis(folders, trained) if people]


def subjects_of(key: bytes, snapshot: pl.DataFrame) -> dict[str, list[str]]:
    """Pseudonyms of the SUBJECTs (`user_id`) of a snapshot's rows, by `datadao`."""
    people = snapshot.select("datadao", "user_id").unique().sort("datadao", "user_id")
    by_datadao = people.group_by("datadao", maintain_order=True).agg("user_id")
    return {name: sorted(erasure_id(key, user) for user in users) for name, users in by_datadao.iter_rows()}


def withdrawn(
    models: Models, consenting: Mapping[str, frozenset[str]], ended: frozenset[str]
) -> list[tuple[ModelFolder, frozenset[str]]]:
    """Every version, each with the people it is trained on who are not `consenting` (by DataDAO) any more.

    Also by the vectors of another version, as `descendants`; the erased, with whom it is marked already, are left out.
    A version of which nobody wrote down whose consent it rests on counts as trained on all whose consent has `ended`.
    """

    def of(folder: ModelFolder) -> frozenset[str]:
        if folder.subjects is None:
            return ended
        gone = (people - consenting.get(name, frozenset()) for name, people in folder.subjects.items())
        return frozenset().union(*gone)

    folders = list(models.versions())
    found = _with_their_basis(folders, [of(folder) for folder in folders])
    return [(folder, people - folder.tainted) for folder, people in found]


def _with_their_basis(
    folders: Sequence[ModelFolder], trained: Sequence[frozenset[str]]
) -> list[tuple[ModelFolder, frozenset[str]]]:
    """Each version with the people it is trained on, and those of the version whose vectors it is trained on."""
    versions = [folder.record()["data_version"] for folder in folders]
    of_version = dict.fromkeys(versions, frozenset[str]())
    for version, people in zip(versions, trained, strict=True):
        of_version[version] |= people
    return [
        (folder, of_version[version] | of_version.get(folder.basis or "", frozenset()))
        for folder, version in zip(folders, versions, strict=True)
    ]
