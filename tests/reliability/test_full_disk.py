"""F21: a full disk, in coarse steps of free room. The whole figure: `python -m benchmarks.full_disk` (as root)."""

import subprocess

import pytest

from benchmarks.commit_stages import STAGES
from benchmarks.full_disk import full_disk, small_disk, stub_of_torch_save


@pytest.fixture(autouse=True, scope="module")
def mounting_is_allowed(tmp_path_factory):
    try:
        with small_disk(tmp_path_factory.mktemp("probe")):
            pass
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("not run: mounting a tmpfs needs root")


NAMES = ["Parquet table", "vectors, merge", "user memories", "scores, first", "training checkpoint"]


@pytest.mark.parametrize("name", NAMES)
def test_the_state_before_stands_and_the_error_names_stage_and_path(name, tmp_path):
    outcome = full_disk(STAGES[name], tmp_path, growth=8)
    assert outcome.failed and outcome.unclear == outcome.bad == []


def test_torch_save_leaves_a_stub(tmp_path):
    assert stub_of_torch_save(tmp_path), "the twin that writes to the final path"
