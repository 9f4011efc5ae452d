"""C19: an erasure reaches backups that were made before it; the others are restored bit for bit."""

import csv
import shutil

import polars as pl
import pytest
from sealed_platform import canaries, empty_with_keys_of, looked_at
from small_platform import person

from user_embeddings_dagster.exports.build import build_messages
from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.privacy.backup.restore import DAMAGED, SHREDDED, restore
from user_embeddings_dagster.privacy.backup.write import back_up
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.erasure import identity, report, stores
from user_embeddings_dagster.privacy.erasure.erase import erase
from user_embeddings_dagster.privacy.tombstones import Tombstones
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.models import Models, TaintedModel


def tables(layout: Layout) -> dict[str, pl.DataFrame]:
    """Messages, chunks and summaries of every DataDAO, computed from what is in the landing folder."""
    lake = Lake(layout.root.with_name(f"{layout.root.name} again"))
    key, found = load_or_create_key(layout.key), {}
    with ContributorKeys.of(layout) as keys:
        for folder in sorted(layout.landing.glob("[a-z]*")):
            erased = Tombstones.load(layout.erased, key)
            build_messages(folder.name, layout.landing, lake, key, keys=keys, erased=erased, threads=1)
            for table in ("messages", "participants", "raw_files"):
                found[f"{table}/{folder.name}"] = lake.read(table, folder.name)
    return found


def test_restoring_a_backup_made_before_an_erasure_brings_nobody_back_and_loses_nobody(layout, backup):
    """C19, F4: backup, erase, lose everything but the keys, restore: 0 found of the erased, the others' rows the same.

    Control: with the key store as it was before the erasure, the same restore brings everything back.
    """
    users = person(layout)
    wanted = canaries(layout, users)
    before = empty_with_keys_of(layout, "keys of before")
    assert len(looked_at(layout, backup, wanted).canaries) > 20, "the audit sees what is in the backup"
    receipt = erase(layout, users)
    assert receipt.clean and receipt.removed[stores.OWN_SEALED] >= 1 and receipt.removed["keys"] == 1
    told = report.as_text(receipt)
    assert "shredded: " in told and "sealed under the DataDAO's key" in told
    new = empty_with_keys_of(layout, "new")
    done = restore(new, backup)
    assert done.counts[SHREDDED] >= receipt.removed[stores.OWN_SEALED] and not done.counts[DAMAGED]
    after = looked_at(new, new.root, wanted)
    assert not after.hits and not after.undecoded and after.files > 30
    ours, theirs = tables(layout), tables(new)
    assert ours.keys() == theirs.keys() and sum(frame.height for frame in ours.values()) > 500
    assert [name for name in ours if not ours[name].equals(theirs[name])] == []
    restore(before, backup)
    assert len(looked_at(before, before.root, wanted).canaries) > 20


def test_what_was_erased_in_the_backed_up_rows_does_not_come_back(layout, backup):
    """contributors.csv and consent.csv: each row is under the key of its person."""
    users = person(layout)
    people = identity.contributors(layout.landing, load_or_create_key(layout.key), users)
    old = {path: path.read_bytes() for path in sorted(layout.landing.glob("*/*.csv"))}
    assert people
    erase(layout, users)
    new = empty_with_keys_of(layout, "new")
    restore(new, backup)
    for path, content in old.items():
        rows = list(csv.DictReader((new.landing / path.relative_to(layout.landing)).read_text().splitlines()))
        kept = list(csv.DictReader(path.read_text().splitlines()))
        assert rows == kept and len(kept) <= len(content.splitlines()) - 1
        assert not people & {row.get("contributor") for row in rows}


def test_a_model_trained_on_somebody_erased_since_is_marked_again(layout, backup):
    erase(layout, person(layout))
    new = empty_with_keys_of(layout, "new")
    done = restore(new, backup)
    assert done.counts["models marked: trained on somebody who was erased"] == 2
    with pytest.raises(TaintedModel):
        Models(new.models).current("item_encoder")
    assert Models(new.models).current("summary_program").complete


def test_tombstones_of_the_backup_hold_where_the_platform_lost_its_own(layout, tmp_path):
    """C19: erase, back up, and restore with an older copy of the key store, which still has the key."""
    users = person(layout)
    wanted = canaries(layout, users)
    old_keys = empty_with_keys_of(layout, "old keys")
    shutil.copytree(layout.landing, tmp_path / "landing")
    erase(layout, users)
    back_up(layout, tmp_path / "after")
    restore(old_keys, tmp_path / "after")
    assert not looked_at(old_keys, old_keys.landing, wanted).hits
    for folder in sorted((tmp_path / "landing").glob("[a-z]*")):  # the same exports turn up again
        shutil.copytree(folder, old_keys.landing / folder.name, dirs_exist_ok=True)
    assert Tombstones.load(old_keys.erased, load_or_create_key(old_keys.key))
    authors = {user for frame in tables(old_keys).values() if "author_id" in frame for user in frame["author_id"]}
    assert authors and not authors & users
