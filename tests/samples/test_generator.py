"""The sample exports: determinism, true formats, counts that match the manifest, planted oddities."""

import csv
import io
import json
import zipfile
from collections import Counter
from pathlib import Path
from time import perf_counter

import pytest
import zstandard

from user_embeddings_dagster.privacy.sealed_format import SUFFIX
from user_embeddings_dagster.samples import SampleManifest, generate
from user_embeddings_dagster.samples.bank import LANGUAGES, foreign, parse_topic, topics
from user_embeddings_dagster.samples.generator import MARK

SEED = 7


@pytest.fixture(scope="module")
def landing(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("landing")


@pytest.fixture(scope="module")
def manifest(landing) -> SampleManifest:
    begun = perf_counter()
    written = generate(landing, SEED)
    assert perf_counter() - begun < 30
    return written


def _bytes(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _lines(path: Path) -> list[str]:
    if path.suffix == ".bz2":
        import bz2

        return bz2.decompress(path.read_bytes()).decode().split("\n")
    with path.open("rb") as raw, zstandard.ZstdDecompressor(max_window_size=2**31).stream_reader(raw) as stream:
        return stream.read().decode().split("\n")


def _dump(folder: Path) -> tuple[list[dict], int]:
    """Records of every dump below `folder`, and the number of lines that are no JSON."""
    records, broken = [], 0
    for path in sorted(folder.rglob("R[CS]_*")):
        for line in filter(None, _lines(path)):
            try:
                records.append(json.loads(line))
            except ValueError:
                broken += 1
    return records, broken


def _rows(path: Path, member: str) -> list[dict[str, str]]:
    with zipfile.ZipFile(path) as archive:
        return list(csv.DictReader(io.StringIO(archive.read(member).decode(), newline="")))


def _telegram(folder: Path) -> list[dict]:
    exports = [json.loads(p.read_text("utf-8")) for p in sorted(folder.rglob("result.json"))]
    for path in folder.rglob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            exports.append(json.loads(archive.read("result.json")))
    return exports


def _conversations(folder: Path) -> list[dict]:
    found = []
    for path in sorted(folder.rglob("*.zip")):
        with zipfile.ZipFile(path) as archive:
            found += json.loads(archive.read("conversations.json"))
    return found


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path):
    generate(tmp_path / "one", 3, contributors=24)
    generate(tmp_path / "two", 3, contributors=24)
    generate(tmp_path / "other", 4, contributors=24)
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")
    assert _bytes(tmp_path / "one") != _bytes(tmp_path / "other")


def test_running_again_rewrites_nothing(tmp_path):
    first = generate(tmp_path, 3, contributors=24)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    assert generate(tmp_path, 3, contributors=24) == first
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_samples_that_are_there_are_left_as_they_are(tmp_path):
    """Sealed ones too, and a consent that was changed; where one is gone, or others are asked for, all are written."""
    first = generate(tmp_path, 3, contributors=24)
    gone = tmp_path / next(name for name in first.files if name.endswith(".zip"))
    account = gone.name.partition("-")[0].encode()
    assert account not in (tmp_path / MARK).read_bytes(), "it would outlive the account's erasure"
    sealed = gone.rename(gone.with_name(gone.name + SUFFIX))
    consent = tmp_path / "reddit" / "consent.csv"
    whole = consent.read_bytes()
    consent.write_bytes(whole[:-1])
    before = _bytes(tmp_path)
    assert generate(tmp_path, 3, contributors=24) == first
    assert _bytes(tmp_path) == before
    sealed.unlink()
    assert generate(tmp_path, 3, contributors=24) == first
    assert gone.exists() and consent.read_bytes() == whole
    assert generate(tmp_path, 4, contributors=24).seed == 4


def test_samples_of_another_generator_are_written_anew(tmp_path, monkeypatch):
    generate(tmp_path, 3, contributors=24)
    changed = tmp_path / "reddit" / "contributors.csv"
    whole = changed.read_bytes()
    changed.write_bytes(b"")
    monkeypatch.setattr("user_embeddings_dagster.samples.generator._generator", lambda: "of another version")
    generate(tmp_path, 3, contributors=24)
    assert changed.read_bytes() == whole


def test_too_few_contributors_are_refused(tmp_path):
    with pytest.raises(ValueError, match="fewer than 20"):
        generate(tmp_path, contributors=3)
    assert not list(tmp_path.iterdir())


def test_size_of_the_whole(manifest, landing):
    """At least 120 contributors and 8,000 messages; every file that is listed exists and no other."""
    assert manifest.people >= 120
    assert 8_000 <= sum(manifest.messages.values()) <= 12_500
    assert min(manifest.messages.values()) >= 1_500
    assert sorted([*manifest.files, MARK]) == sorted(_bytes(landing))


def test_some_people_contribute_to_two_datadaos(manifest, landing):
    contributors = {}
    for name in ("reddit", "telegram", "chatgpt"):
        rows = list(csv.DictReader((landing / name / "contributors.csv").open(encoding="utf-8")))
        assert list(rows[0]) == ["contributor", "account"]
        contributors[name] = {row["contributor"] for row in rows}
        assert len(contributors[name]) == len(rows) == len({row["account"] for row in rows})
    counts = Counter(wallet for wallets in contributors.values() for wallet in wallets)
    assert set(counts.values()) == {1, 2}
    assert sum(n == 2 for n in counts.values()) == manifest.in_two
    assert 0.12 <= manifest.in_two / manifest.people <= 0.18


def test_reddit_matches_the_manifest(manifest, landing):
    records, broken = _dump(landing / "reddit")
    odd = manifest.oddities["reddit"]
    assert broken == odd["broken_records"] + odd["truncated_ends"] == 2
    requests = sorted((landing / "reddit" / "requests").glob("*.zip"))
    rows = [r for p in requests for member in ("comments.csv", "posts.csv") for r in _rows(p, member)]
    assert len(rows) == odd["request_rows"]
    assert len(rows) + len(records) == odd["records"]
    bare = {row["id"].removeprefix("t1_").removeprefix("t3_") for row in rows}
    dumped = Counter(record["id"] for record in records)
    assert len(bare | set(dumped)) == manifest.messages["reddit"]
    assert sum(n - 1 for n in dumped.values()) == odd["repeated_records"] > 0
    assert len(bare - set(dumped)) == odd["unhydrated_records"] > 0
    assert sum(r["author"] == "[deleted]" for r in {r["id"]: r for r in records}.values()) == odd["deleted_authors"]
    assert sum(bool(row["ip"]) for row in rows) <= odd["ip_column_values"]


def test_reddit_request_has_the_columns_of_a_data_request(landing):
    path = next((landing / "reddit" / "requests").glob("*.zip"))
    with zipfile.ZipFile(path) as archive:
        head = {name: archive.read(name).decode().splitlines()[0] for name in archive.namelist()}
    assert head["comments.csv"] == "id,permalink,date,ip,subreddit,gildings,link,parent,body,media"
    assert head["posts.csv"] == "id,permalink,date,ip,subreddit,gildings,title,url,body"
    statistics = {row["statistic"]: row["value"] for row in _rows(path, "statistics.csv")}
    accounts = {row["account"] for row in csv.DictReader((landing / "reddit" / "contributors.csv").open())}
    assert statistics["account name"] in accounts


def test_reply_oddities_of_the_dumps(manifest, landing):
    records = {r["id"]: r for r in _dump(landing / "reddit")[0]}
    odd = manifest.oddities["reddit"]
    replies = [r for r in records.values() if r.get("parent_id", "").startswith("t1_")]
    selves = [r for r in replies if r["parent_id"] == f"t1_{r['id']}"]
    missing = {r["parent_id"] for r in replies if r["parent_id"][3:] not in records}
    parents = {r["id"]: r["parent_id"][3:] for r in replies}
    cycles = [i for i, p in parents.items() if parents.get(p) == i and p != i]
    assert len(selves) == odd["self_replies"] > 0
    assert len(missing) >= odd["missing_parents"] > 0
    assert len(cycles) == 2 * odd["reply_cycles"] > 0
    assert any(
        int(r["created_utc"]) < int(records[r["parent_id"][3:]]["created_utc"])
        for r in replies
        if r["parent_id"][3:] in records
    )


def test_dumps_come_in_several_eras_and_containers(landing):
    paths = sorted(path for path in (landing / "pushshift").iterdir() if path.name != "datadao.json")
    assert {p.suffix for p in paths} == {".zst", ".bz2"}
    for path in paths:
        if path.suffix == ".zst":
            assert zstandard.get_frame_parameters(path.read_bytes()).window_size == 2**31
    records, broken = _dump(landing / "pushshift")
    assert broken == 0
    assert {type(r["created_utc"]) for r in records} == {int, str}
    assert {type(r["edited"]) for r in records} >= {bool, int, float}
    assert len({frozenset(r) for r in records}) >= 6


def test_pushshift_matches_the_manifest(manifest, landing):
    records, _ = _dump(landing / "pushshift")
    assert len(records) == manifest.oddities["pushshift"]["records"]
    assert len({r["id"] for r in records}) == manifest.messages["pushshift"]


def test_telegram_matches_the_manifest(manifest, landing):
    exports = _telegram(landing / "telegram")
    accounts = [e for e in exports if "chats" in e]
    singles = [e for e in exports if "chats" not in e]
    assert len(accounts) >= 20 and 1 <= len(singles) <= 2
    assert {e["type"] for e in singles} == {"public_supergroup"}
    chats = [c for e in accounts for c in e["chats"]["list"]] + singles
    assert {c["type"] for c in chats} >= {"personal_chat", "private_supergroup", "saved_messages"}
    rows = [(c["id"], m) for c in chats for m in c["messages"] if m["type"] == "message"]
    odd = manifest.oddities["telegram"]
    assert len(rows) == odd["records"]
    assert len({(chat, m["id"]) for chat, m in rows}) == manifest.messages["telegram"] < len(rows)
    assert {type(m["text"]) for _, m in rows} == {str, list}
    kinds = Counter(m.get("media_type", "photo" if "photo" in m else None) for _, m in rows)
    assert all(kinds[kind] for kind in ("photo", "voice_message", "sticker", "video_file"))
    assert any("poll" in m for _, m in rows) and any("forwarded_from" in m for _, m in rows)
    assert {type(m["from_id"]) for _, m in rows} == {str, int}  # one account has the form of 2020
    assert any(m["from"] is None for _, m in rows)


def test_telegram_ids_rise_with_time_and_entities_give_the_text(landing):
    for export in _telegram(landing / "telegram"):
        for chat in export["chats"]["list"] if "chats" in export else [export]:
            ids = [m["id"] for m in chat["messages"]]
            assert ids == sorted(ids) and len(ids) == len(set(ids))
            for message in chat["messages"]:
                if "text_entities" in message:
                    text = message["text"]
                    whole = (
                        text if isinstance(text, str) else "".join(p if isinstance(p, str) else p["text"] for p in text)
                    )
                    assert whole == "".join(e["text"] for e in message["text_entities"])


def test_chatgpt_trees_are_sound_and_match_the_manifest(manifest, landing):
    told = branches = null_times = 0
    kinds: Counter[str] = Counter()
    for conversation in _conversations(landing / "chatgpt"):
        mapping = conversation["mapping"]
        for key, node in mapping.items():
            assert node["id"] == key
            assert all(mapping[child]["parent"] == key for child in node["children"])
            if node["message"]:
                kinds[node["message"]["content"]["content_type"]] += 1
        branches += sum(len(node["children"]) > 1 for node in mapping.values())
        null_times += all(
            n["message"]["create_time"] is None
            for n in mapping.values()
            if n["message"] and n["message"]["author"]["role"] == "user"
        )
        node = conversation["current_node"]
        while node:
            message = mapping[node]["message"]
            told += bool(message and message["author"]["role"] != "system")
            node = mapping[node]["parent"]
    odd = manifest.oddities["chatgpt"]
    assert told == manifest.messages["chatgpt"]
    assert branches == odd["branches"] > 0
    assert odd["null_times"] > 0 and null_times > 0
    assert kinds["multimodal_text"] == odd["image_parts"] + odd["voice_parts"] > 0
    assert kinds["execution_output"] == odd["tool_messages"] > 0


def test_every_kind_of_oddity_occurs(manifest):
    total = sum((Counter(kinds) for kinds in manifest.oddities.values()), Counter())
    wanted = ["edits", "emoji", "empty_texts", "exact_duplicates", "near_duplicates", "clock_skew", "missing_parents"]
    wanted += ["han_names_inside_text", "service_messages", "polls", "forwards"]
    wanted += [f"pii_{kind}" for kind in ("email", "phone", "ip", "btc", "eth", "card", "iban")]
    wanted += [f"script_{name}" for name in ("arabic", "cyrillic", "devanagari", "han")]
    assert not [kind for kind in wanted if not total[kind]]


def test_banks_are_complete():
    """Every topic has at least five stages with a title, openers and advice; each language covers stages that exist."""
    bank = topics()
    assert len(bank) >= 25
    for topic in bank.values():
        assert len(topic.stages) >= 5 and topic.subs and topic.groups and len(topic.disputes) == 2
        assert all(following in bank for following in topic.next)
        for stage in topic.stages:
            assert stage.label and all(stage.lines.get(kind) for kind in "tqdasf"), (topic.name, stage.key)
    for language in LANGUAGES:
        for name, topic in foreign(language).items():
            assert {s.key for s in topic.stages} <= {s.key for s in bank[name].stages}
            assert all(stage.lines.get(kind) for stage in topic.stages for kind in "tqaf")


def test_a_line_that_is_no_bank_line_is_refused():
    with pytest.raises(ValueError, match=r"mine\.txt:3"):
        parse_topic("topic x\nstage one: a\nzz what", "mine.txt")


def test_every_datadao_says_who_has_consented_to_what(landing):
    """C14: most to everything, some to less, one has revoked, one let it expire; a public archive by a statement."""
    for platform in ("reddit", "telegram", "chatgpt"):
        rows = list(csv.DictReader((landing / platform / "consent.csv").open()))
        accounts = {row["account"] for row in csv.DictReader((landing / platform / "contributors.csv").open())}
        assert {row["account"].removeprefix(f"{platform}:") for row in rows} == accounts
        assert sum(bool(row["revoked_at"]) for row in rows) == sum(bool(row["expires_at"]) for row in rows) == 1
        assert {row["purposes"] for row in rows} >= {"train evaluate serve compare", "evaluate serve", "serve"}
    assert json.loads((landing / "pushshift" / "datadao.json").read_text())["consent"]["basis"] == "public archive"
