"""C7, F10 to F12: hostile exports cost their own records, never the good ones beside them, the build or the machine."""

import json
import random
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.hostile_attacks import attacks
from benchmarks.hostile_exports import LARGE, PEAK_MB, naive_peak, withstood
from benchmarks.hostile_mutations import KINDS, TOKENS, Mutation, check, fuzz, mutated, originals, random_mutations
from benchmarks.hostile_shapes import SHAPES
from user_embeddings_dagster.exports import archive, bounds, json_array, json_repair, lines, telegram
from user_embeddings_dagster.exports.normalise import Normaliser
from user_embeddings_dagster.exports.reader import RawFile
from user_embeddings_dagster.exports.registry import FORMATS

PLACE = st.floats(0, 1)
MUTATIONS = st.lists(st.builds(Mutation, st.sampled_from(KINDS), PLACE, PLACE, st.integers(0, 999)), max_size=6)
QUICK = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def normaliser():
    made = Normaliser("fuzz", bytes(32), {}, threads=1)
    yield made
    made.close()


def faults(names: tuple[str, ...], megabytes: int = 2) -> dict[str, tuple[str, ...]]:
    """What was not withstood of the attacks with one of the words in their name."""
    chosen = [attack for attack in attacks() if any(name in attack.name for name in names)]
    assert len(chosen) >= len(names)
    found = withstood(chosen, megabytes, seconds=20)
    return {attack.name: outcome.faults for attack, outcome in found if outcome.faults}


def test_hostile_content_and_archives_are_withstood():
    """C7: nothing raised, good rows kept, bad ones located, nothing written elsewhere, at most 256 MB."""
    content = ("nested 100,000 deep, chatgpt", "envelopes", "surrogates, telegram_desktop", "NaN, telegram_dfusion",
               "cycl", "ids that are SQL", "wrong extensions", "hostile file names")  # fmt: skip
    archives = (
        "path traversal, chatgpt",
        "symlink, reddit",
        "duplicate member",
        "encrypted member, t",
        "size that lies",
    )
    assert faults((*content, *archives)) == {}


def test_floods_and_bombs_are_withstood():
    """F11: rejected in bounded memory and processor time."""
    assert faults(("gz bomb of bad lines", "single line, chatgpt", "elements {}, telegram_desktop")) == {}


def test_a_naive_loader_takes_more_memory_than_is_allowed():
    """Positive control of F11: the same small chats that are withstood."""
    assert naive_peak(LARGE) > PEAK_MB


@pytest.mark.parametrize("format", originals())
@QUICK
@given(mutations=MUTATIONS)
def test_any_mutation_of_an_export_gives_records_or_located_errors(format, tmp_path, normaliser, mutations):
    """F12: and accepted + rejected = total wherever another parser can tell the total."""
    name, data = originals()[format]
    path = tmp_path / name
    path.write_bytes(mutated(data, mutations))
    check(FORMATS[format], RawFile(path, name, "0" * 64), normaliser)


@pytest.mark.parametrize("format", FORMATS)
@QUICK
@given(data=st.binary(max_size=300) | st.lists(st.sampled_from(TOKENS), max_size=40).map(b"".join))
def test_any_bytes_give_records_or_located_errors(format, tmp_path, normaliser, data):
    """F12: whatever a file is called and holds, every reader of the registry survives being asked to read it."""
    name = originals().get(format, ("ip_logs.csv", b""))[0]
    path = tmp_path / name
    path.write_bytes(data)
    check(FORMATS[format], RawFile(path, name, "0" * 64), normaliser)


def test_a_reader_that_raises_is_found(tmp_path, monkeypatch):
    """Broken twin: bytes that are no UTF-8 are not mended."""
    for module in (json_array, json_repair):
        monkeypatch.setattr(module, "repair", lambda raw: raw.decode().encode())
        monkeypatch.setattr(module, "UnicodeDecodeError", KeyError, raising=False)
    found = fuzz("telegram_desktop", range(120), tmp_path, report=lambda line: None)
    assert any("UnicodeDecodeError" in failure for failure in found.failures)


def test_a_reader_that_loses_records_is_found(tmp_path, monkeypatch):
    """Broken twin: rejected records are swallowed."""
    read = FORMATS["pushshift"].read
    silent = replace(FORMATS["pushshift"], read=lambda file: (replace(batch, rejected=()) for batch in read(file)))
    monkeypatch.setitem(FORMATS, "pushshift", silent)
    found = fuzz("pushshift", range(40), tmp_path, report=lambda line: None)
    assert any("records" in failure for failure in found.failures)


def test_the_mutations_reach_both_outcomes(tmp_path):
    """Mutations that all were rejected, or all accepted, would show nothing."""
    for format in ("telegram_desktop", "chatgpt"):
        found = fuzz(format, range(60), tmp_path)
        assert found.failures == ()
        assert found.accepted > 60
        assert found.rejected > 60
    assert mutated(b"abc", random_mutations(random.Random(1))) == mutated(b"abc", random_mutations(random.Random(1)))


def test_without_the_ratio_a_bomb_is_read_to_its_end(monkeypatch, tmp_path):
    """Positive control of the bombs: the same file without the limit goes on for all its bytes."""
    attack = next(attack for attack in attacks() if attack.name == "gz bomb of one line")
    attack.write(tmp_path, 6)
    (path,) = tmp_path.iterdir()
    reasons = [record.reason for chunk in lines.chunks(path) for record in chunk.rejected]
    monkeypatch.setattr(lines, "MAX_RATIO", 1 << 40)
    unlimited = [record.reason for chunk in lines.chunks(path) for record in chunk.rejected]
    assert ("compression_ratio" in reasons, "compression_ratio" in unlimited) == (True, False)


def test_a_file_that_is_mostly_broken_is_given_up_and_says_where(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_REJECTED", 100)
    shape = SHAPES["pushshift"]
    path = tmp_path / shape.file
    path.write_bytes(shape.around(*[b"{"] * 150_000))
    batches = list(bounds.bounded(FORMATS["pushshift"].read(RawFile(path, path.name, "0" * 64))))
    last = batches[-1].rejected[-1]
    assert last.reason == "too_many_rejected"
    assert last.location == sum(batch.messages.height + len(batch.rejected) for batch in batches)


def test_a_text_that_is_too_long_is_rejected_where_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "MAX_TEXT", 100)
    shape = SHAPES["chatgpt"]
    path = tmp_path / shape.file
    path.write_bytes(shape.around(shape.element(9).replace(b"good", b"odd" * 100)))
    batches = list(bounds.bounded(FORMATS["chatgpt"].read(RawFile(path, path.name, "0" * 64))))
    assert [(r.location, r.reason) for batch in batches for r in batch.rejected] == [(1, "too_long")]
    assert sum(batch.messages.height for batch in batches) == 3


def test_the_first_of_two_equal_names_is_the_one_that_is_opened(tmp_path):
    attack = next(attack for attack in attacks() if attack.name == "duplicate member, chatgpt")
    attack.write(tmp_path, 1)
    (path,) = tmp_path.iterdir()
    with archive.Archive(path) as opened, opened.open(opened.members[0]) as stream:
        assert b"good" in stream.read()


def test_a_directory_of_too_many_members_is_not_read(tmp_path, monkeypatch):
    attack = next(attack for attack in attacks() if attack.name == "duplicate member, chatgpt")
    attack.write(tmp_path, 1)
    monkeypatch.setattr(archive, "MAX_DIRECTORY", 50)
    with pytest.raises(archive.BROKEN):
        archive.Archive(next(tmp_path.iterdir()))


def test_documents_without_messages_cost_a_part_of_others(tmp_path: Path):
    """F11: an archive of a thousand of them is refused in seconds."""

    def seconds(name: str, *messages: dict) -> float:
        """Of processor, of the quickest of three readings of 200 documents of one chat."""
        with zipfile.ZipFile(tmp_path / name, "w") as out:
            for number in range(200):
                chat = {"name": "c", "type": "private_supergroup", "id": 7, "messages": messages}
                out.writestr(f"{number}/result.json", json.dumps(chat))
        found = []
        for _ in range(3):
            started = time.process_time()
            read = list(telegram.read(RawFile(tmp_path / name, name, "0" * 64)))
            found.append(time.process_time() - started)
            assert sum(batch.messages.height for batch in read) == 200 * len(messages)
        return min(found)

    one = {"id": 1, "type": "message", "date_unixtime": "1704067200", "from": "A", "from_id": "user1", "text": "hello"}
    assert seconds("empty.zip") < 0.5 * seconds("full.zip", one)
