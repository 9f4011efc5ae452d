"""The landing sensor: DataDAOs and drops are registered once each (C67)."""

import os
import time
from pathlib import Path

import dagster as dg
import pytest

from assets.raw_exports import SETTLE_SECONDS, landing_sensor, registration
from resources.store import Store
from user_embeddings_dagster.exports.build import build_messages
from user_embeddings_dagster.exports.landing import scan
from user_embeddings_dagster.storage.lake import Lake


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    folder = tmp_path / "landing"
    drop(folder / "reddit" / "export.zip")
    drop(folder / "telegram" / "someone" / "result.json")
    return folder


def drop(path: Path, text: str = "{}", age: float = 60.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    then = time.time() - age
    os.utime(path, (then, then))


def tick(tmp_path: Path, instance: dg.DagsterInstance, cursor: str | None = None):
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"store": Store(data=str(tmp_path))})
    return landing_sensor(context)


def test_new_datadaos_become_partitions_with_one_event_each(tmp_path, landing):
    with dg.instance_for_test() as instance:
        result = tick(tmp_path, instance)
    assert [event.partition for event in result.asset_events] == ["reddit", "telegram"]
    assert result.dynamic_partitions_requests[0].partition_keys == ["reddit", "telegram"]


def test_nothing_new_means_nothing_happens(tmp_path, landing):
    with dg.instance_for_test() as instance:
        cursor = tick(tmp_path, instance).cursor
        instance.add_dynamic_partitions("datadao", ["reddit", "telegram"])
        assert isinstance(tick(tmp_path, instance, cursor), dg.SkipReason)


def test_what_the_command_line_registered_is_not_told_again(tmp_path, landing):
    """C67: another event for the same drop would make automation run the DataDAO again."""
    with dg.instance_for_test() as instance:
        for found in scan(landing)[0]:
            instance.report_runless_asset_event(registration(found))
        first = tick(tmp_path, instance)
        drop(landing / "reddit" / "another.zip")
        second = tick(tmp_path, instance, first.cursor)
    assert not first.asset_events
    assert [event.partition for event in second.asset_events] == ["reddit"]


def test_a_second_drop_tells_of_its_datadao_alone(tmp_path, landing):
    with dg.instance_for_test() as instance:
        cursor = tick(tmp_path, instance).cursor
        instance.add_dynamic_partitions("datadao", ["reddit", "telegram"])
        drop(landing / "reddit" / "another.zip")
        result = tick(tmp_path, instance, cursor)
    assert [event.partition for event in result.asset_events] == ["reddit"]
    assert not result.dynamic_partitions_requests


@pytest.mark.parametrize("with_cursor", [True, False])
def test_a_deleted_partition_comes_back_while_its_drop_lies_there(tmp_path, landing, with_cursor):
    """C67: as a partition; automation is not told of the same drop again."""
    with dg.instance_for_test() as instance:
        first = tick(tmp_path, instance)
        for event in first.asset_events:
            instance.report_runless_asset_event(event)
        instance.add_dynamic_partitions("datadao", ["reddit"])
        second = tick(tmp_path, instance, first.cursor if with_cursor else None)
    assert second.dynamic_partitions_requests[0].partition_keys == ["telegram"]
    assert not second.asset_events


def test_a_file_still_being_written_waits(tmp_path, landing):
    with dg.instance_for_test() as instance:
        drop(landing / "reddit" / "upload.zip", age=-SETTLE_SECONDS / 2)  # a busy machine has time to get to the tick
        result = tick(tmp_path, instance)
    assert [event.partition for event in result.asset_events] == ["telegram"]


def test_folders_that_are_no_datadao_names_are_passed_over(tmp_path, landing):
    drop(landing / "Not A Slug" / "x.zip")
    drop(landing / ".hidden" / "x.zip")
    drop(landing / "all" / "x.zip")  # what scores call all DataDAOs together
    (landing / "empty").mkdir()
    drops, unnamed, unread = scan(landing)
    assert [found.datadao for found in drops] == ["reddit", "telegram"]
    assert (unnamed, unread) == (3, [])


def test_what_may_not_be_read_holds_back_its_own_datadao_alone(tmp_path, landing, monkeypatch):
    """An upload with its owner's modes. It is not there as if it had been taken away: that would take its rows."""

    def walk(top, **options):
        if Path(top).name == "telegram":
            options["onerror"](PermissionError(13, "Permission denied", f"{top}/someone"))
        return os_walk(top, **options)

    os_walk = os.walk
    monkeypatch.setattr("user_embeddings_dagster.exports.landing.os.walk", walk)  # root may read everything
    with dg.instance_for_test() as instance:
        result = tick(tmp_path, instance)
        assert [event.partition for event in result.asset_events] == ["reddit"]
    with pytest.raises(PermissionError, match="telegram: a folder in it may not be read") as refused:
        build_messages("telegram", landing, Lake(tmp_path), bytes(32), threads=1)
    assert "someone" not in str(refused.value)
