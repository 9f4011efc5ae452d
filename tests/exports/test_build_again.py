"""The messages build, repeated: same bytes, nothing read twice, killed at random moments."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

from user_embeddings_dagster.exports import build as module
from user_embeddings_dagster.exports import lines, merge, reading
from user_embeddings_dagster.exports.build import build_messages
from user_embeddings_dagster.storage.lake import Lake

KEY = bytes(range(32))
LONG = "This sentence is surely longer than twenty characters"


def record(id: str, author: str, body: str, at: int = 1_000_000, link: str = "L1", parent: str | None = None) -> dict:
    return {
        "id": id, "author": author, "body": body, "created_utc": at, "edited": False, "subreddit": "pics",
        "link_id": f"t3_{link}", "parent_id": parent or f"t3_{link}",
    }  # fmt: skip


def dump(folder: Path, *records: dict | str, name: str = "RC.ndjson") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [r if isinstance(r, str) else json.dumps(r) for r in records]
    (folder / name).write_text("\n".join(rows) + "\n")


@pytest.fixture
def landing(tmp_path) -> Path:
    return tmp_path / "landing"


def build(landing: Path, name: str = "lake", **kwargs):
    lake = Lake(landing.parent / name)
    return build_messages("reddit", landing, lake, KEY, **kwargs), lake


def drops(lake: Lake) -> dict[str, int]:
    frame = lake.read("dropped_messages", "reddit").group_by("reason").agg(pl.col("n").sum())
    return dict(frame.iter_rows())


def conserved(lake: Lake) -> bool:
    read = lake.read("raw_files", "reddit")["n_messages"].sum()
    return read == lake.read("messages", "reddit").height + sum(drops(lake).values())


def big_landing(landing: Path, n: int = 6000) -> None:
    rng = random.Random(3)
    people = [f"user{i}" for i in range(60)]
    records = [
        record(f"{i:x}", rng.choice(people), " ".join(rng.choices(LONG.split(), k=9)), 1_000_000 + rng.randrange(10**6),
               link=f"l{rng.randrange(200)}")
        for i in range(n)
    ]  # fmt: skip
    dump(landing / "reddit", *records[: n // 2], name="RC_1.ndjson")
    dump(landing / "reddit", *records[n // 3 :], name="RC_2.ndjson")


def hashes(result) -> dict[str, str]:
    return {name: commit.content_hash for name, commit in result.commits.items()}


def test_the_same_files_give_the_same_bytes_and_are_not_read_again(landing):
    """Threads, memory and a second lake change nothing; a second build of one lake reads nothing."""
    big_landing(landing)
    stages: list[str] = []
    first, lake = build(landing, "one", threads=1)
    second, _ = build(landing, "two", threads=2, memory=150)
    assert hashes(first) == hashes(second)
    assert conserved(lake)
    again, _ = build(landing, "one", progress=lambda stage, figures: stages.append(stage))
    assert again.reused
    assert hashes(again) == hashes(first)
    assert again.stats == first.stats
    assert set(stages) == {"hash"}
    dump(landing / "reddit", record("new", "zed", "a new drop"), name="RC_3.ndjson")
    third, _ = build(landing, "one")
    assert not third.reused
    assert third.stats["n_read"] == 7001
    assert not list((landing.parent / "one" / "staging").iterdir())


def test_a_merge_with_too_little_memory_begins_again_with_more(landing):
    big_landing(landing)
    one, _ = build(landing, "one")
    shares: list[int] = []
    few, lake = build(
        landing,
        "few",
        memory=2,
        progress=lambda stage, it: shares.append(it["memory_mb"]) if stage == "merge" else None,
    )
    assert len(shares) > 1
    assert shares == [2 << time for time in range(len(shares))]
    assert hashes(few) == hashes(one)
    assert conserved(lake)


def test_long_texts_need_no_more_memory_to_merge(landing):
    """F11: texts do not pass through DuckDB, which gathered those of 2,048 messages at once: 4 GB for 1 GB of them."""
    texts = ["short", *(f"{n} of " + LONG * 10_000 for n in range(80))]  # of half a megabyte
    dump(landing / "reddit", *(record(f"c{n}", f"p{n % 7}", text, 10**6 * n) for n, text in enumerate(texts, 1)))
    shares: list[int] = []
    _, lake = build(
        landing,
        "long",
        progress=lambda stage, it: shares.append(it["memory_mb"]) if stage == "merge" else None,
    )
    assert shares == [merge.memory_for(len(texts))]
    messages = lake.read("messages", "reddit")
    assert sorted(messages["text"]) == sorted(texts)
    assert pq.read_metadata(lake.path("messages", "reddit")).num_row_groups > 5


def test_a_merge_that_half_the_machines_memory_is_too_little_for_fails(landing, monkeypatch):
    big_landing(landing)
    monkeypatch.setattr(module, "most_memory", lambda: 3)
    with pytest.raises(merge.TooLittleMemory):
        build(landing, "few", memory=2)
    assert not list((landing.parent / "few" / "staging").iterdir())


@pytest.mark.parametrize(("told", "kind"), [("Out of Memory Error", merge.TooLittleMemory), ("no", OSError)])
def test_memory_that_ends_between_rows(told, kind, tmp_path):
    """What DuckDB raises then comes as Arrow's OSError."""
    for name in ("messages", "names", "rejected"):
        pl.DataFrame({"seq": [1], "text": ["a"]}).write_parquet(tmp_path / f"{name}-0.parquet")
    some = merge.Merge(tmp_path, pl.Series("author_id", [], pl.String), 100)
    with contextlib.closing(some), pytest.raises(kind, match=told):
        list(some._stream(f"SELECT IF(i = 180000, error('{told}')::INT, i) FROM range(200000) t(i)"))


def test_many_parts_of_a_file_give_the_same_bytes(landing, monkeypatch):
    """A staged part is closed after some frames, as its writer holds something of each."""
    big_landing(landing)
    one, _ = build(landing, "one")
    seen: set[int] = set()
    monkeypatch.setattr(reading, "_MOST_FRAMES", 1)
    monkeypatch.setattr(lines, "CHUNK", 200_000)
    staged = landing.parent / "many" / "staging"
    many, _ = build(landing, "many", progress=lambda *_: seen.add(len([*staged.glob("*/messages-*")])))
    assert max(seen) > 4
    assert hashes(many) == hashes(one)


def test_progress_tells_rows_bytes_and_time_left(landing):
    """C6: the figures grow to the whole, and the seconds left end at zero."""
    big_landing(landing)
    seen: list[dict] = []
    build(landing, progress=lambda stage, figures: seen.append(figures) if stage == "read" else None)
    assert [f["bytes"] for f in seen] == sorted(f["bytes"] for f in seen)
    assert seen[-1]["bytes"] == seen[-1]["bytes_total"] == sum(p.stat().st_size for p in (landing / "reddit").iterdir())
    assert seen[-1]["rows"] == 7000
    assert seen[-1]["seconds_left"] == 0
    assert set(seen[0]) == {"file", "files", "rows", "bytes", "bytes_total", "seconds", "seconds_left"}


KILLED = """
import sys
from pathlib import Path
from user_embeddings_dagster.exports.build import build_messages
from user_embeddings_dagster.storage.lake import Lake
print("ready", flush=True)
build_messages("reddit", Path(sys.argv[1]), Lake(Path(sys.argv[2])), bytes(range(32)))
"""


def test_killed_at_random_moments_then_run_again_gives_the_same_hashes(landing):
    """Law 4: kill -9 anywhere leaves neither torn tables nor other results, and no staged rows behind."""
    big_landing(landing)
    undisturbed, _ = build(landing, "calm")
    rng, killed = random.Random(5), 0
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(landing), str(landing.parent / "shaken")],
            stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        assert process.stdout and process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.02, 0.6))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    result, lake = build(landing, "shaken")
    assert killed
    assert hashes(result) == hashes(undisturbed)
    assert conserved(lake)
    assert not list((landing.parent / "shaken" / "staging").iterdir())
    assert not list((landing.parent / "shaken").rglob("staged-*"))
