"""F1, C12, in small: canaries in every string field of every export format, and the scan that looks for them.

`python -m benchmarks.leaks` is the whole of it: 50 canaries of each kind, all stages, three language models.
"""

import gzip
import json
import re
import sqlite3
from collections import Counter
from datetime import UTC, datetime
from random import Random

import duckdb
import lance
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from safetensors.numpy import save_file

from benchmarks.leaks import lineage
from benchmarks.leaks.exports import FORMATS, write_exports
from benchmarks.leaks.kinds import KINDS, NAMES, canaries
from benchmarks.leaks.planting import source
from benchmarks.leaks.search import Finder, fragments
from benchmarks.leaks.stores import LAWFUL, Auditor
from user_embeddings_dagster.conversations import chunks as chunking
from user_embeddings_dagster.conversations.chunks import build_chunks
from user_embeddings_dagster.exports.build import build_messages
from user_embeddings_dagster.keys import load_or_create_key
from user_embeddings_dagster.language_models.cache import open_cache
from user_embeddings_dagster.language_models.protocol import Completion, Message, Request, Usage
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.privacy.masking import MaskedTexts
from user_embeddings_dagster.privacy.pii import mask_patterns
from user_embeddings_dagster.samples import generate
from user_embeddings_dagster.schema import CHUNK_SUMMARIES, MASKED_CHUNKS
from user_embeddings_dagster.settings import Layout
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.summaries.build import extractive_summaries


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Every format with one canary of each kind in each class, read, masked, and (beside it) not masked."""
    root = tmp_path_factory.mktemp("planted")
    layout = Layout(root / "data")
    sources = write_exports(layout.landing, each=1)
    auditor = Auditor(sources)
    raw = auditor.scan(root)
    lake, key = Lake(layout.root), load_or_create_key(layout.key)
    unmasked = tmp_path_factory.mktemp("unmasked")
    plain = Lake(unmasked / "data")
    for datadao in sorted({one.datadao for one in sources}):
        build_messages(datadao, layout.landing, lake, key, threads=1)
        messages, people = lake.read("messages", datadao), lake.read("participants", datadao)
        chunks = build_chunks(messages, people).chunks
        lake.commit(MASKED_CHUNKS, chunks, datadao)
        lake.commit(CHUNK_SUMMARIES, extractive_summaries(chunks).frame(CHUNK_SUMMARIES), datadao)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(chunking, "mask_messages", lambda messages, *_, **__: MaskedTexts(messages["text"], {}, {}))
            patch.setattr(chunking, "check_residual_names", lambda *_: None)
            plain.commit(MASKED_CHUNKS, build_chunks(messages, people).chunks, datadao)
    return auditor, raw, auditor.scan(root), auditor.scan(unmasked)


def test_there_are_enough_kinds_and_formats():
    assert len(KINDS) >= 40 and len(FORMATS) == 10 and len(NAMES) == 5


def test_the_scan_finds_every_canary_in_the_raw_input(planted):
    """The control."""
    auditor, raw, _, _ = planted
    assert {key[1:] for key in raw.whole} == set(auditor.planted) and not raw.undecoded


def test_no_canary_is_anywhere_but_where_it_may_be(planted):
    """F1: what is said is masked, what is dropped is not read, in all ten formats and 69 kinds."""
    _, _, found, _ = planted
    assert found.unlawful() == {} and not found.undecoded
    assert {"tables/masked_chunks", "tables/chunk_summaries"} <= found.files.keys() - LAWFUL.keys()


def test_what_is_said_was_read(planted):
    """A field that is called spoken and is not read would prove nothing."""
    auditor, _, found, _ = planted
    said = {key for key in auditor.planted if key[1] == "spoken"}
    assert said <= {key[1:] for key in found.whole if key[0] == "tables/messages"}


def test_without_masking_nearly_all_of_it_leaks(planted):
    """The control: the same chunks, unmasked, are full of canaries. What is missing was cut away as context."""
    auditor, _, _, found = planted
    said = {key for key in auditor.planted if key[1] == "spoken"}
    leaked = {key[1:] for key in found.unlawful()}
    assert sorted(said - leaked) == []


def _leaves(value, path=()):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(item, (*path, key))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, path)
    elif isinstance(value, str):
        yield path


def _keys(folder, pattern):
    return {path[-1] for file in folder.rglob(pattern) for path in _leaves(json.loads(file.read_text())) if path}


@pytest.mark.parametrize(("datadao", "pattern"), [("telegram", "result.json"), ("chatgpt", "conversations.json")])
def test_every_string_field_of_the_sample_exports_is_planted_too(datadao, pattern, tmp_path):
    """The sample exports, written by other code, know no field that the planted ones lack."""
    generate(tmp_path / "samples", seed=3, contributors=20)
    write_exports(tmp_path / "planted", each=1, formats=[name for name in FORMATS if name.startswith(datadao)])
    known = _keys(tmp_path / "planted", "*.json")
    assert _keys(tmp_path / "samples" / datadao, pattern) - known - {"date_unixtime"} <= {"edited", "edited_unixtime"}


def test_the_graph_with_a_model_that_repeats_its_prompt(tmp_path):
    """F1 through Dagster: tables, event log, logs, cache, what the model was sent, and every folder of a library."""
    kinds = ["email", "phone_us", "api_key_github", "seed_phrase", "wallet_eth", "telegram_handle", "ipv4", "url_user"]
    sources = write_exports(tmp_path / "data" / "landing", each=2, kinds=kinds, formats=["telegram_chat"])
    auditor = Auditor(sources)
    assert lineage.run(tmp_path, "echo", "--prepare-only") == []
    found = auditor.scan(tmp_path)
    assert found.unlawful() == {} and not found.undecoded
    stores = {"tables/chunk_summaries", "tables/koais", "prompts", "cache", "cache, opened", "dagster", "output"}
    assert stores <= found.files.keys() - LAWFUL.keys()
    assert found.bytes["prompts"] > 50_000 and found.bytes["cache, opened"] > 10_000


def _parquet(folder, text):
    pl.DataFrame({"a": [text]}).write_parquet(folder / "x.parquet")


def _lance(folder, text):
    table = pa.table({"id": [text, "b"]})
    lance.write_dataset(table, folder / "t.lance")
    lance.dataset(folder / "t.lance").delete("id <> 'b'")  # an old version still has it


def _duckdb(folder, text):
    with duckdb.connect(str(folder / "x.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT ? AS a", [text])


def _sqlite(folder, text):
    connection = sqlite3.connect(folder / "x.db")
    connection.execute("CREATE TABLE t (a)")
    connection.execute("INSERT INTO t VALUES (?)", (gzip.compress(text.encode()),))
    connection.commit()
    connection.close()


def _safetensors(folder, text):
    save_file({"w": np.zeros(2, np.float32)}, folder / "x.safetensors", {"note": text})


def _program(folder, text):
    (folder / "program.json").write_text(json.dumps({"demos": [{"text": text}]}))


def _log(folder, text):
    (folder / "compute.err").write_bytes(f"ERROR ValueError: {json.dumps(json.dumps(text))}".encode())


def _name(folder, text):
    (folder / text.replace("/", "_")).touch()


def _image(folder, text):
    (folder / "plot.svg").write_text(f"<svg><text>{text}</text></svg>")


WRITERS = [_parquet, _lance, _duckdb, _sqlite, _safetensors, _program, _log, _name, _image]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__.strip("_"))
def test_a_leak_in_each_kind_of_store_would_be_found(write, tmp_path):
    """The control."""
    made = source("reddit_dump", "pushshift", 1, 1, classes=["spoken"], names=[], kinds=["email", "api_key_github"])
    folder = tmp_path / "data" / "models"
    folder.mkdir(parents=True)
    write(folder, made.planted["spoken"][0].written)
    [(store, _, of, _)] = Auditor([made]).scan(tmp_path).unlawful()
    assert (store, of) == ("models", "spoken")


def test_a_leak_in_an_encrypted_answer_would_be_found(tmp_path):
    """The control: the cache is opened with the contributors' keys."""
    made = source("reddit_dump", "pushshift", 1, 1, classes=["spoken"], names=[], kinds=["email"])
    layout = Layout(tmp_path / "data")
    owner, text = "0" * 32, made.planted["spoken"][0].written
    at, numbers = datetime(2024, 1, 1, tzinfo=UTC), dict.fromkeys(("n_subject_turns", "n_tokens", "n_masked"), 1)
    row = (
        dict.fromkeys(MASKED_CHUNKS.schema, "")
        | numbers
        | {
            "user_id": owner,
            "started_at": at,
            "ended_at": at,
            "speakers": [],
            "turns": [],
            "message_ids": [],
            "context_free": False,
        }
    )
    Lake(layout.root).commit(MASKED_CHUNKS, pl.DataFrame([row], MASKED_CHUNKS.schema), "pushshift")
    with (
        ContributorKeys.of(layout) as keys,
        open_cache(layout.language_model_cache, keys) as cache,
    ):
        request = Request((Message("user", "x"),), {"type": "object"}, owner, "p/1")
        cache.put("m", request, Completion(request.id, {"summary": text}, Usage()))
    assert {key[0] for key in Auditor([made]).scan(tmp_path).unlawful()} == {"cache, opened"}


def test_the_digits_of_a_time_are_no_leak(tmp_path):
    """Half a coordinate in a Unix time or a time of day came up by chance; beside one it is still found."""
    made = source("x", "x", 3, 40, classes=("spoken",), names=(), kinds=["coordinates_decimal"])
    needles = {part: one.needles[0] for one in made.planted["spoken"] for part in one.needles[1:]}
    seconds = next(part for part in needles if re.fullmatch(r"[1-5]\d\.\d{6}", part))
    (tmp_path / "prompts").mkdir()
    for time in (f"17953691{seconds}", f"2026-11-22 21:42:{seconds}"):
        for text, leaks in ((time, 0), (f"{time} {seconds}", 1), (f"{time} {needles[seconds]}", 1)):
            (tmp_path / "prompts" / "said.txt").write_text(text)
            assert Auditor([made]).scan(tmp_path).unlawful().total() == leaks, text


def test_no_two_canaries_are_alike():
    """A hit says which field it came from: two draws of one seed would else give the same."""
    taken: set[str] = set()
    drawn = [list(canaries(Random(seed), 300, ["phone_ru"], taken)) for seed in (1, 1)]
    needles = Counter(needle for part in drawn for one in part for needle in one.needles)
    assert max(needles.values()) == 1 and len(drawn[1]) == 300


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_a_canary_is_found_too(kind):
    """The control: what half a masking leaves behind."""
    [one] = canaries(Random(3), 1, [kind])
    parts = sorted(fragments(one))
    assert parts and min(map(len, parts)) >= 5
    assert Finder([one]).parts(b"... " + parts[len(parts) // 2] + b" ...")
    assert not Finder([one]).parts(b"nothing of the kind in 1234 words of 2024-01-01T00:00:00")


def test_no_part_of_a_canary_is_what_a_hash_may_hold():
    """Ten digits of a key stood in one of some hundred thousand ids; fourteen do not."""
    for one in canaries(Random(3), 50, ["api_key_twilio"]):
        parts = fragments(one)
        assert len(parts) > 10
        assert all(len(part) == 14 for part in parts if re.fullmatch(b"[0-9a-f]+", part))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("I noted AKIABMFPEOOFRAFDJOLR yesterday", "AKIABM"),  # an AWS id without a digit
        ("my number: 07870 931797 (07870 931797) here", "931797"),  # two numbers side by side
        ("and 0049 30 7464720 (0049 30 7464720)", "7464720"),
        ("day 7. 090-3714-9567 is my new number", "3714"),  # a count before a number
        ("day 124. (11) 90980-0281 is my new number", "0281"),  # and an area code that no other country has
    ],
)
def test_what_the_leak_test_found_stays_masked(text, kept):
    masked, _ = mask_patterns(pl.Series([text]))
    assert kept not in masked[0]
