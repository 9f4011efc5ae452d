"""What exports are read from is gone, links no accounts or is damaged: no retry mends it, and the tables stay."""

import shutil

import dagster as dg
import pytest
from served_assets import served

from resources.store import Store
from user_embeddings_dagster.exports.landing import link


@pytest.fixture
def landed(tmp_path):
    folder = tmp_path / "data" / "landing" / "dao"
    folder.mkdir(parents=True)
    return folder


def fails(tmp_path) -> str:
    """What `messages` of the code location says when it fails, at its first attempt."""
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("datadao", ["dao"])
        resources = {"store": Store(data=str(tmp_path / "data"))}
        result = dg.materialize(
            [served("messages")], instance=instance, partition_key="dao", resources=resources, raise_on_error=False
        )
    assert not result.success
    assert not [event for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
    (failed,) = result.get_step_failure_events()
    return failed.step_failure_data.error.message


def test_a_landing_folder_that_was_deleted_is_not_tried_again(tmp_path, landed):
    shutil.rmtree(landed)
    said = fails(tmp_path)
    assert "dao: no landing folder; put it back" in said and "docs/operations.md, New data" in said


def test_a_linked_export_that_is_gone_is_not_tried_again(tmp_path, landed):
    link(landed, tmp_path / "unmounted" / "export.json", "export.json")
    assert "dao: 1 linked exports are not there" in fails(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("who,what\nann,x\n", "dao/contributors.csv: expected the columns contributor and account"),
        ("contributor,account\nann,x\nbob,X\n", "dao/contributors.csv, line 3: account of another contributor"),
        ("contributor,account\nann,\n", "dao/contributors.csv, line 2: no contributor or no account"),
    ],
)
def test_a_contributors_csv_that_somebody_has_to_mend_is_not_tried_again(tmp_path, landed, content, said):
    (landed / "contributors.csv").write_text(content)
    assert said in fails(tmp_path)


@pytest.mark.parametrize("content", ["zz", "{}"])
def test_tombstones_that_are_damaged_are_not_taken_for_none_nor_tried_again(tmp_path, landed, content):
    """The erased would be read in again."""
    erased = Store(data=str(tmp_path / "data")).layout.erased
    erased.parent.mkdir(parents=True)
    erased.write_text(content)
    assert "erased.json: damaged" in fails(tmp_path)
