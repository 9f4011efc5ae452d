"""F17: writers of the same rows at once. The whole figure, with S3: `python -m benchmarks.concurrent_writers`."""

import pytest

from benchmarks.concurrent_writers import moto_s3, vectors, whole
from benchmarks.write_history import History, Read, Write, check


def test_overlapping_merges_lose_and_double_nothing(tmp_path):
    """C70: 3 processes merge the same new ids at the same moment; without the key's mark they appear twice."""
    assert vectors(f"{tmp_path}/marked", {}, True, 3, 2).good
    # A race: on a quiet machine the merges of one round may happen to follow each other.
    twins = (vectors(f"{tmp_path}/unmarked{attempt}", {}, False, 3, 2) for attempt in range(10))
    assert any(twin.twice and not twin.errors for twin in twins)


def test_overlapping_merges_on_s3():
    pytest.importorskip("moto", reason="not run: no moto")
    with moto_s3() as (place, options):
        verdict = vectors(place, options, True, 2, 1)
    assert verdict.good and verdict.writes == 2, verdict


@pytest.mark.parametrize("store", ["Parquet table", "user memories", "scores"])
def test_the_last_of_two_commits_wins_whole(store, tmp_path):
    verdict = whole(store, tmp_path, 2, 3)
    assert verdict.good and verdict.writes == 6, verdict


def test_a_writer_to_the_final_path_is_caught(tmp_path):
    # A race: beside other load no reader may come between the halves of a file.
    twins = (whole("control: written to the final path", tmp_path, 3, 3) for _ in range(10))
    assert any(not twin.good for twin in twins)


def test_the_checker_sees_lost_stale_and_early_values():
    first, second = Write("1", ("a",), 0, 1), Write("2", ("a",), 2, 3)
    for seen, lost in [({"a": "2"}, 0), ({"a": "1"}, 1), ({}, 1), ({"a": "?"}, 1)]:
        assert check(History([first, second], [Read(seen, 0, 4, 5)])).lost == lost
    for value, began, ended, lost in [("1", 2.5, 4, 0), ("2", 2.5, 4, 0), ("2", 1.2, 1.5, 1)]:  # while and before 2
        assert check(History([first, second], [Read({"a": value}, 0, began, ended)])).lost == lost
