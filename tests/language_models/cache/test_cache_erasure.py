"""C27, C19: who reads the cache's files learns nothing, and nothing at all once the contributor's key is gone."""

import shutil
import sqlite3
import time

import pytest

from user_embeddings_dagster.language_models.cache import Cache, open_cache
from user_embeddings_dagster.language_models.cache_stores import open_store
from user_embeddings_dagster.language_models.protocol import Completion, Message, Request, Usage
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys, WrongMasterKey

MASTER = bytes(range(32))
CANARY = "Zwetschgenkuchen-4711"
USAGE = Usage(2, 30, 20, 10, 0.25)


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


def question(text=CANARY, owner="ann", program="summarise/1"):
    return Request((Message("user", text),), {"type": "object"}, owner, program)


def answer(request):
    return Completion(request.id, {"summary": f"SUBJECT likes {CANARY}"}, USAGE, attempts=2, seconds=1.5)


def found(cache, request, model="model"):
    return cache.get(model, [request])[0]


def test_erasing_a_contributor_empties_the_cache_of_them_alone(url, keys):
    ann, ben = [[question(str(i), owner) for i in range(30)] for owner in ("ann", "ben")]
    with open_cache(url, keys) as cache:
        for request in ann + ben:
            cache.put("model", request, answer(request))
        before = cache.get("model", ben)
        assert cache.erase("ann") == 30 and cache.erase("ann") == 0
        assert cache.get("model", ann) == [None] * 30
        assert cache.get("model", ben) == before and None not in before
        assert cache.stats.entries == 30 and keys.existing("ann") is None
        cache.put("model", ann[0], answer(ann[0]))  # who contributes again is cached again
        assert found(cache, ann[0]) is not None


def test_an_old_copy_of_the_store_is_unreadable_once_the_contributor_is_erased(file_url, keys, tmp_path):
    """C19: crypto-shredding. A backup brought back yields nothing of the erased one, all of the others."""
    ann, ben = question(owner="ann"), question(owner="ben")
    with open_cache(file_url, keys) as cache:
        for request in (ann, ben):
            cache.put("model", request, answer(request))
    shutil.copytree(tmp_path / "folder", tmp_path / "backup")
    with open_cache(file_url.replace("folder", "backup"), keys) as cache:
        assert None not in cache.get("model", [ann, ben])  # before: the copy is good
    with open_cache(file_url, keys) as cache:
        cache.erase("ann")
    with open_cache(file_url.replace("folder", "backup"), keys) as cache:
        assert cache.stats.entries == 2
        assert [entry is None for entry in cache.get("model", [ann, ben])] == [True, False]
        cache.put("model", question("new", "ann"), answer(question("new", "ann")))  # under a new key
        assert found(cache, ann) is None and cache.stats.damaged == 2


def test_an_erasure_that_was_killed_half_way_finishes_when_run_again(url, keys):
    asked = question()
    with open_cache(url, keys) as cache:
        cache.put("model", asked, answer(asked))
        keys.destroy("ann")  # the first half of erase
        assert found(cache, asked) is None and cache.stats.entries == 1
        assert cache.erase("ann") == 1 and cache.stats.entries == 0


def test_the_files_show_neither_who_nor_what(file_url, keys, tmp_path):
    """C27: nothing in clear, also not the owner, the model, the program and the request's public hash."""
    asked = question(owner="canary-owner", program="canary-program")
    with open_cache(file_url, keys) as cache:
        cache.put("canary-model", asked, answer(asked))
        stored = _bytes(tmp_path)
    stored += _bytes(tmp_path)
    told = [CANARY, "summary", "canary-owner", "canary-program", "canary-model", asked.id]
    assert not [text for text in told if text.encode() in stored or text.encode().hex() in stored.hex()]
    assert bytes.fromhex(asked.id) not in stored
    assert all(path.stat().st_mode & 0o77 == 0 for path in tmp_path.rglob("cache*") if path.is_file())


def test_erased_entries_leave_no_bytes_in_the_sqlite_files(keys, tmp_path):
    asked = question()
    with open_cache(tmp_path / "folder" / "cache", keys) as cache:
        cache.put("model", asked, answer(asked))
        key = cache._key("model", asked)
        sealed = cache._store.read([key])[key]
        assert key in _bytes(tmp_path) and sealed[:64] in _bytes(tmp_path)
        cache.erase("ann")
        assert key not in _bytes(tmp_path) and sealed[:64] not in _bytes(tmp_path)


def test_a_reader_that_holds_the_log_makes_erasing_say_so(keys, tmp_path, monkeypatch):
    monkeypatch.setattr("user_embeddings_dagster.language_models.cache_stores.BUSY_SECONDS", 0.1)
    path, asked = tmp_path / "cache", question()
    with open_cache(path, keys) as cache:
        cache.put("model", asked, answer(asked))
        reader = sqlite3.connect(path, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entries").fetchall()
        with pytest.raises(sqlite3.OperationalError, match="still in its log; try again"):
            cache.erase("ann")
        reader.execute("COMMIT")
        assert cache.erase("ann") == 0
        assert found(cache, asked) is None


@pytest.mark.parametrize("change", ["swap", "other owner", "flip", "cut", "empty"])
def test_an_entry_that_was_tampered_with_is_a_counted_miss(url, keys, change):
    ann, other, ben = question(), question("other"), question(owner="ben")
    with open_cache(url, keys) as cache:
        for request in (ann, other, ben):
            cache.put("model", request, answer(request))
        store = cache._store
        key = cache._key("model", ann)
        value = store.read([key])[key]
        source = {"swap": other, "other owner": ben}.get(change)
        changed = (
            {
                "flip": value[:-1] + bytes([value[-1] ^ 1]),
                "cut": value[:20],
                "empty": b"",
            }.get(change)
            if source is None
            else store.read([k := cache._key("model", source)])[k]
        )
        store.write(key, changed, time.time())
        assert found(cache, ann) is None
        assert (cache.stats.damaged, cache.stats.misses, cache.stats.hits) == (1, 1, 0)
        assert found(cache, other) is not None and found(cache, ben) is not None
        cache.put("model", ann, answer(ann))
        assert found(cache, ann) is not None


def test_an_entry_replayed_over_a_newer_one_of_the_same_request_is_an_older_answer_at_most(url, keys):
    """What encryption cannot tell: an older answer to the very same question. Its age is sealed in, so it expires."""
    clock, asked = Clock(), question()
    cache = Cache(open_store(url, 100), keys, 100, clock)
    cache.put("model", asked, answer(asked))
    key = cache._key("model", asked)
    old = cache._store.read([key])[key]
    clock.now += 200
    cache._store.write(key, old, clock.now)
    assert found(cache, asked) is None and cache.stats.expired == 1
    cache.close()


def test_another_master_key_is_an_error_and_no_miss_storm(url, keys, tmp_path):
    asked = question()
    with open_cache(url, keys) as cache:
        cache.put("model", asked, answer(asked))
    with pytest.raises(WrongMasterKey):
        ContributorKeys(tmp_path / "keys" / "contributors.sqlite", bytes(32))


def _bytes(folder):
    return b"".join(path.read_bytes() for path in sorted((folder / "folder").rglob("*")) if path.is_file())
