"""The job `audit`, and that no asset is left to be materialised by hand alone."""

import pytest

from user_embeddings_dagster.definitions import defs
from user_embeddings_dagster.privacy.access.log import AccessLog
from user_embeddings_dagster.runner import open_instance
from user_embeddings_dagster.settings import Layout


def test_every_asset_is_in_a_job():
    """What no job names, nobody runs: its tables and checks in the UI are those of a day long ago, or none."""
    made = {key for job in defs.jobs or [] for key in defs.resolve_job_def(job.name).asset_layer.executable_asset_keys}
    assert {*defs.resolve_asset_graph().executable_asset_keys} - made == set()


@pytest.mark.parametrize("intact", [True, False])
def test_an_audit_tables_the_access_log_and_tells_of_a_damaged_one(tmp_path, monkeypatch, intact):
    """C18."""
    layout = Layout(tmp_path / "data")
    monkeypatch.setenv("USER_EMBEDDINGS_DATA", str(layout.root))
    monkeypatch.setenv("DAGSTER_HOME", "")
    log = AccessLog.of(layout)
    for _ in range(3):
        log.append("read", "allowed", person="ab" * 16, datadao="alpha")
    if not intact:
        log.path.write_bytes(log.path.read_bytes().replace(b"alpha", b"gamma", 1))
    with open_instance(layout.root / "dagster_home") as instance:
        result = defs.resolve_job_def("audit").execute_in_process(instance=instance, raise_on_error=False)
    assert result.success
    made = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key}
    assert made == {"access_log", "erasures"}
    passed = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert passed == {"chain_intact": intact, "nothing_left": True}
