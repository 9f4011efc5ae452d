"""C16: what is past its window goes from every store, stays away, and younger data keeps its bits."""

import json
import os
import shutil
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
import small_platform

from user_embeddings_dagster.exports.build import build_messages
from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.language_models.cache import open_cache
from user_embeddings_dagster.language_models.cache_stores import KEY_BYTES, open_store
from user_embeddings_dagster.privacy.audit.canaries import scan
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.retention import purge as purging
from user_embeddings_dagster.privacy.retention.content import MaskedChunks, Messages
from user_embeddings_dagster.privacy.retention.purge import (
    as_table,
    as_text,
    evidence,
    nothing_kept_too_long,
    purge,
)
from user_embeddings_dagster.privacy.retention.windows import DEFAULTS, Horizons, windows
from user_embeddings_dagster.schema import RETENTION_PURGES, SCORES
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.durability import Damaged
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.storage.lance_tables import LanceTables, stacked
from user_embeddings_dagster.storage.score_table import ScoreTable
from user_embeddings_dagster.storage.user_memories import UserMemories

KEEP_ALL = dict.fromkeys(DEFAULTS)


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Layout:
    layout = small_platform.materialise(tmp_path_factory.mktemp("built") / "data")
    shutil.rmtree(layout.models / "item_encoder" / ("a" * 32) / "inputs")
    return layout


@pytest.fixture
def layout(built, tmp_path) -> Layout:
    shutil.copytree(built.root, tmp_path / "data", symlinks=True)
    return Layout(tmp_path / "data")


@pytest.fixture(scope="module")
def cut(built) -> datetime:
    """Midnight by which about half of the Telegram messages were written."""
    middle = Lake(built.root).read("messages", "telegram")["created_at"].median()
    assert isinstance(middle, datetime)
    return middle.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def purged(layout: Layout, cut: datetime, **options):
    """A purge whose window of messages ends at `cut`."""
    return purge(layout, KEEP_ALL | {"messages": 100}, cut + timedelta(days=100, hours=5), **options)


def canaries(layout: Layout, cut: datetime) -> tuple[list[str | bytes], list[str | bytes]]:
    """Texts, ids and starts of vectors that are only of old messages or chunks of them; and only of young ones."""
    messages = Lake(layout.root).read("messages", "telegram").with_columns(old=pl.col("created_at") < cut)
    chunks = Lake(layout.root).read("masked_chunks", "telegram")
    turns = chunks.select("chunk_id", message_id="message_ids").explode("message_id").join(messages, on="message_id")
    old_chunk = turns.group_by("chunk_id").agg(pl.col("old").any())
    vectors = LanceTables(layout.lancedb).read("telegram", "item_embeddings", ["id", "vector"])
    starts = dict(zip(vectors["id"], (row[:6].tobytes() for row in stacked(vectors["vector"])), strict=True))
    found = []
    for old in (True, False):
        texts = messages.filter(pl.col("old") == old, pl.col("text").str.len_bytes() >= 40)["text"]
        others = "\n".join(messages.filter(pl.col("old") != old)["text"])
        ids = old_chunk.filter(pl.col("old") == old)["chunk_id"].sort().to_list()[:15]
        found.append([*[text for text in texts if text not in others][:15], *ids, *[starts[name] for name in ids]])
    return found[0], found[1]


def tables(layout: Layout) -> dict[str, Any]:
    """Everything in tables, vectors and memories, for comparison."""
    lake, lance, found = Lake(layout.root), LanceTables(layout.lancedb), dict[str, Any]()
    for pointer in sorted((layout.root / "tables").glob("*/*/current.json")):
        table, partition = pointer.parts[-3:-1]
        found[f"{table}/{partition}"] = lake.read(table, partition)
    for folder in sorted(layout.lancedb.glob("*/*.lance")):
        columns = ["id", "version", "vector"]
        found[f"lance/{folder.parent.name}/{folder.stem}"] = lance.read(folder.parent.name, folder.stem, columns)
    for path in sorted(layout.user_memories.glob("*.sqlite")):
        with UserMemories(path) as memories:
            found[f"memories/{path.stem}"] = memories.content()
    return found


def in_stores(layout: Layout, wanted: list[str | bytes]) -> int:
    """Hits outside of the landing folder, whose files have a window of their own."""
    found = scan(layout.root, wanted)
    assert not found.undecoded
    return sum(n for file, n in found.by_file.items() if not file.startswith("landing/"))


def test_nothing_past_the_window_is_left_and_nothing_younger_changed(layout, cut):
    """C16: the scan finds every old canary before and none after; younger rows are the same bits."""
    old, young = canaries(layout, cut)
    assert len(old) > 30 and len(young) > 30
    before = tables(layout)
    held = scan(layout.root, old)
    assert len({canary for canary in old if canary in held.canaries}) == len(old)  # the control
    young_before = in_stores(layout, young)
    report = purged(layout, cut)
    assert in_stores(layout, old) == 0
    assert in_stores(layout, young) > young_before * 0.5  # answers and memories of the same users went with the old
    assert report["messages"].n_purged > 100 and report["messages"].oldest_kept >= cut
    assert report["masked_chunks"].n_purged > 10 and report["summaries"].n_purged > 10
    after = tables(layout)
    for datadao in ("telegram", "chatgpt"):
        messages = before[f"messages/{datadao}"].filter(pl.col("created_at") >= cut)
        assert messages.equals(after[f"messages/{datadao}"])
        chunks = before[f"masked_chunks/{datadao}"]
        quoted = chunks.select("chunk_id", message_id="message_ids").explode("message_id")
        gone = quoted.join(messages, on="message_id", how="anti")["chunk_id"]
        young_chunks = chunks.filter(~pl.col("chunk_id").is_in(gone.implode()))
        assert young_chunks.equals(after[f"masked_chunks/{datadao}"]) and young_chunks.height
        offered = pl.col("option_chunk_ids").list.set_intersection(pl.lit(gone.unique().implode())).list.len()
        tasks = before[f"insight_tasks/{datadao}"].filter(~pl.col("chunk_id").is_in(gone.implode()), offered == 0)
        assert tasks.equals(after[f"insight_tasks/{datadao}"])
        assert tasks.height < young_chunks.height or gone.is_empty()  # also young ones, that offered what is old
        for table in ("chunk_embeddings", "summary_embeddings", "item_embeddings"):
            vectors = before[f"lance/{datadao}/{table}"].filter(pl.col("id").is_in(young_chunks["chunk_id"].implode()))
            assert vectors.equals(after[f"lance/{datadao}/{table}"]) and vectors.height


def test_a_purged_message_does_not_come_back_with_its_raw_file(layout, cut):
    """C16: the next reading of the same file leaves out what lies before the horizon, and counts it."""
    report = purged(layout, cut)
    lake, key = Lake(layout.root), load_or_create_key(layout.key)
    left = lake.read("messages", "telegram")
    again = {"datadao": "telegram", "landing": layout.landing, "lake": lake, "key": key, "threads": 1}
    result = build_messages(**again, horizons=Horizons.load(layout.horizons))
    assert lake.read("messages", "telegram")["message_id"].sort().equals(left["message_id"].sort())
    assert int(result.stats["dropped_past_retention"]) >= report["messages"].n_purged > 0
    assert build_messages(**again, horizons=Horizons.load(layout.horizons)).reused
    build_messages(**again)  # the control: without the horizon they are back
    assert lake.read("messages", "telegram").height > left.height


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_killed_in_any_stage_of_content_and_run_again_it_gives_the_same(layout, cut, stage, monkeypatch, tmp_path):
    """C16: whichever stage a purge is killed in, the next one ends in the same tables and the same evidence."""
    twin = Layout(tmp_path / "twin")
    shutil.copytree(layout.root, twin.root, symlinks=True)
    whole = purged(twin, cut)
    victim = purging.STAGES[stage]
    remove = type(victim).remove

    def killed(self, sweep, found):
        if stage == 2:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(LanceTables, "purge", lambda *_: (_ for _ in ()).throw(Killed))
                remove(self, sweep, found)
        remove(self, sweep, found)
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(type(victim), "remove", killed)
        purged(layout, cut)
    # Whatever the clock says by then, the purge that was begun is finished.
    again = purge(layout, KEEP_ALL, cut + timedelta(days=999))
    assert again == whole
    one, other = tables(layout), tables(twin)
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert value.equals(other[name]) if isinstance(value, pl.DataFrame) else value == other[name], name


def test_purging_again_finds_nothing_and_keeps_the_evidence(layout, cut):
    first = purged(layout, cut)
    files = {path: path.stat().st_mtime_ns for path in (layout.root / "tables").rglob("*.parquet")}
    assert purged(layout, cut) == first == evidence(layout)
    assert files == {path: path.stat().st_mtime_ns for path in (layout.root / "tables").rglob("*.parquet")}
    frame = as_table(evidence(layout))
    assert Lake(layout.root).commit(RETENTION_PURGES, frame).rows == len(purging.STAGES)
    assert "messages" in as_text(first)


def test_a_dry_run_says_the_same_and_changes_nothing(layout, cut):
    files = {path: path.read_bytes() for path in layout.root.rglob("*") if path.is_file()}
    told = purged(layout, cut, dry_run=True)
    assert files == {p: p.read_bytes() for p in layout.root.rglob("*") if p.is_file() and p.name != ".lock"}
    assert purged(layout, cut) == told


def test_an_old_raw_file_goes_with_everything_read_from_it(layout):
    """Ages of files are those of their drop; the same bytes dropped again later stay."""
    folder = layout.landing / "telegram"
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "contributors.csv")
    now = datetime.now(UTC)
    long_ago = (now - timedelta(days=50)).timestamp()
    os.utime(paths[0], (long_ago, long_ago))
    os.utime(paths[1], (long_ago, long_ago))
    shutil.copy(paths[1], folder / f"again-{paths[1].name}")
    sha = Lake(layout.root).read("raw_files", "telegram").filter(raw_file=paths[0].relative_to(folder).as_posix())
    sha = sha["raw_sha256"][0]
    assert Lake(layout.root).read("messages", "telegram").filter(raw_sha256=sha).height
    report = purge(layout, KEEP_ALL | {"raw_files": 30}, now)
    assert not paths[0].exists() and paths[1].exists() and report["raw_files"].n_purged == 1
    for table in ("messages", "raw_files", "dropped_messages", "rejected_records"):
        assert not Lake(layout.root).read(table, "telegram").filter(raw_sha256=sha).height, table
    assert not Horizons.load(layout.horizons).of("messages") or report["messages"].n_purged


def test_by_products_go_and_what_is_current_stays(layout):
    """Cache, replaced versions, free blocks, leftovers, models: each found, removed, and not found again."""
    now = datetime.now(UTC) + timedelta(days=365)
    staging = layout.root / "staging" / "telegram-1"
    staging.mkdir(parents=True)
    (staging / "rows").write_text("somebody's words")
    stale = layout.root / "tables" / "messages" / "telegram" / ("0" * 32 + ".parquet")
    stale.write_bytes(b"old")
    unused = layout.models / "summary_program" / ("d" * 32)
    shutil.copytree(layout.models / "summary_program" / ("c" * 32), unused)
    rows = pl.DataFrame(
        [{name: "old-model" if t == pl.String else 1 for name, t in SCORES.schema.items()} for _ in range(1)],
        schema=SCORES.schema,
    )
    many = pl.concat([rows.with_columns(metric=pl.lit(f"m{n}-{'x' * 200}")) for n in range(4000)])
    ScoreTable(layout.scores).replace("old-model", many)
    ScoreTable(layout.scores).replace("old-model", rows)
    before = tables(layout)
    report = purge(layout, windows(None), now)
    assert report["language_model_cache"].n_purged > 10 and report["language_model_cache"].n_kept == 0
    assert report["leftovers"].n_purged >= 1 and not staging.exists()
    assert report["models"].n_purged == 1 and not unused.exists() and report["models"].n_kept == 3
    assert nothing_kept_too_long(as_table({stage: purging.Evidence(None) for stage in DEFAULTS} | report), now).passed
    assert report["table_versions"].n_purged > 3 and not stale.exists()
    assert b"m399" not in layout.scores.read_bytes()
    assert ScoreTable(layout.scores).read().equals(SCORES.conform(rows))
    after = tables(layout)
    assert all(v.equals(after[k]) if isinstance(v, pl.DataFrame) else v == after[k] for k, v in before.items())
    for folder in layout.lancedb.glob("*/*.lance"):
        assert len(list((folder / "_versions").glob("*.manifest"))) == 1
    with (
        ContributorKeys.of(layout) as keys,
        open_cache(layout.language_model_cache_url, keys) as cache,
    ):
        assert cache.stats.entries == 0
    again = purge(layout, windows(None), now)
    assert all(again[stage].purged_hash == report[stage].purged_hash for stage in report)


@pytest.mark.parametrize("url", ["sqlite://{}/elsewhere.sqlite", "{}/elsewhere.sqlite", "lmdb://{}/elsewhere"])
def test_a_cache_that_lies_elsewhere_is_purged_too(url, tmp_path, monkeypatch):
    """And looking for it does not make it."""
    monkeypatch.setenv("USER_EMBEDDINGS_LANGUAGE_MODEL_CACHE", url.format(tmp_path / "other"))
    layout, now = Layout(tmp_path / "data"), datetime.now(UTC)
    assert purge(layout, windows(None), now)["language_model_cache"].n_kept == 0
    assert not (tmp_path / "other").exists()
    store = open_store(layout.language_model_cache_url, None)
    for days in (400, 1):
        store.write(os.urandom(KEY_BYTES), b"an answer", (now - timedelta(days=days)).timestamp())
    store.close()
    found = purge(layout, windows(None), now)["language_model_cache"]
    assert (found.n_purged, found.n_kept) == (1, 1)
    store = open_store(layout.language_model_cache_url, None)
    assert store.count() == 1
    store.close()


def test_settings_say_days_or_keep():
    assert windows(None)["messages"] is None and windows(None)["leftovers"] == 1
    changed = windows('{"messages": 730, "models": "keep"}')
    assert changed["messages"] == 730 and changed["models"] is None
    for wrong in ("[]", "{", '{"massages": 1}', '{"messages": 0}', '{"messages": "1"}', '{"messages": true}'):
        with pytest.raises(ValueError, match=r"^USER_EMBEDDINGS_RETENTION: "):
            windows(wrong)
    with pytest.raises(ValueError, match=r"no stages \['massages'\]"):
        windows('{"massages": 1, "messages": 1}')


def test_horizons_only_move_on_and_reach_what_is_made_of_them():
    early, late = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)
    horizons = Horizons({"messages": late}).moved({"messages": early, "summaries": early})
    assert horizons.of("messages") == horizons.of("masked_chunks") == horizons.of("summaries") == late
    frame = pl.DataFrame({"at": [None, early, late]}, schema={"at": pl.Datetime("us", "UTC")})
    assert frame.select(horizons.past("messages", "at")).to_series().to_list() == [True, True, False]
    assert not Horizons() and Horizons().version("messages") == () != horizons.version("messages")


def test_damaged_horizons_are_named(tmp_path):
    path = tmp_path / "horizons.json"
    for content in ("zz", "[]", '{"messages": "of somebody\'s"}'):
        path.write_text(content)
        with pytest.raises(Damaged, match=r"horizons\.json: damaged, (not|no dict in) JSON; put back a copy of it$"):
            Horizons.load(path)


def test_the_check_sees_what_was_kept_too_long_and_stages_not_looked_at(layout, cut):
    report = purged(layout, cut)
    now = cut + timedelta(days=100, hours=5)
    frame = as_table({**{stage: purging.Evidence(None) for stage in DEFAULTS}, **report})
    assert nothing_kept_too_long(frame, now).passed
    assert nothing_kept_too_long(frame, now + timedelta(days=60)).metrics["late"] == 1
    assert nothing_kept_too_long(as_table(report), now).metrics["missing"] == 2


def test_stages_are_purged_in_the_order_of_the_defaults():
    assert [stage.name for stage in purging.STAGES] == list(DEFAULTS)[: len(purging.STAGES)]
    assert {Messages.name, MaskedChunks.name} <= set(json.loads(json.dumps(list(DEFAULTS))))
