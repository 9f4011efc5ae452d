"""C27: the private cache on its three stores: answers, time to live, hit rate, processes, `kill -9`."""

import multiprocessing
import os
import signal
import sqlite3
import sys
import threading
import time

import msgspec
import pytest
import redis

from user_embeddings_dagster.language_models.cache import Cache, open_cache
from user_embeddings_dagster.language_models.cache_stores import SqliteStore, open_store
from user_embeddings_dagster.language_models.protocol import Completion, Message, Request, Usage
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys

MASTER = bytes(range(32))
USAGE = Usage(2, 30, 20, 10, 0.25)


class Clock:
    now = 1_000_000.0

    def __call__(self):
        return self.now


def question(text="what?", owner="ann", program="summarise/1"):
    return Request((Message("user", text),), {"type": "object"}, owner, program)


def answer(request):
    return Completion(request.id, {"summary": "SUBJECT bakes"}, USAGE, attempts=2, seconds=1.5)


def found(cache, request, model="model"):
    return cache.get(model, [request])[0]


def test_an_answer_comes_back_as_it_was_given_with_what_it_cost(url, keys):
    known, unknown = question(), question("another")
    with open_cache(url, keys) as cache:
        cache.put("model", known, answer(known))
        assert cache.get("model", [unknown, known]) == [None, msgspec.structs.replace(answer(known), cached=True)]
    with open_cache(url, keys) as cache:
        assert found(cache, known) == Completion(known.id, answer(known).value, USAGE, 2, 1.5, cached=True)
        stats = cache.stats
        assert (stats.hits, stats.misses, stats.damaged, stats.expired, stats.entries) == (1, 0, 0, 0, 1)


def test_every_json_value_survives(url, keys):
    values = [{"b": 1, "a": [None, True, -0.5, 2**70]}, ["\ud800 lone", "naïve 🍎"], "text", 0, 1e308 * 10, {}]
    with open_cache(url, keys) as cache:
        for i, value in enumerate(values):
            request = question(str(i))
            cache.put("model", request, Completion(request.id, value, USAGE))
            assert (kept := found(cache, request)) is not None and repr(kept.value) == repr(value)


def test_model_program_owner_and_content_are_each_part_of_the_key(url, keys):
    asked = question()
    others = [question("other"), question(owner="ben"), question(program="summarise/2")]
    with open_cache(url, keys) as cache:
        cache.put("model", asked, answer(asked))
        assert found(cache, asked, "other model") is None
        assert cache.get("model", others) == [None, None, None]
        assert found(cache, asked) is not None


def test_a_completion_of_another_request_is_refused(url, keys):
    with open_cache(url, keys) as cache, pytest.raises(ValueError, match="completion of request"):
        cache.put("model", question(), answer(question("other")))


def test_hit_rate_counts_look_ups(url, keys):
    asked = [question(str(i)) for i in range(8)]
    with open_cache(url, keys) as cache:
        assert cache.stats.hit_rate == 0
        for request in asked[:6]:
            cache.put("model", request, answer(request))
        cache.get("model", asked)
        stats = cache.stats
        assert (stats.hits, stats.misses, stats.hit_rate, stats.entries) == (6, 2, 0.75, 6)


def test_an_entry_older_than_the_time_to_live_is_asked_again(url, keys):
    clock, asked = Clock(), question()
    cache = Cache(open_store(url, 60), keys, 60, clock)
    cache.put("model", asked, answer(asked))
    clock.now += 59
    assert found(cache, asked) is not None
    clock.now += 1
    assert found(cache, asked) is None
    assert (cache.stats.expired, cache.stats.misses, cache.stats.hits) == (1, 1, 1)
    cache.put("model", asked, answer(asked))
    assert found(cache, asked) is not None
    cache.close()


def test_a_shorter_time_to_live_holds_for_entries_already_there(url, keys):
    clock, asked = Clock(), question()
    cache = Cache(open_store(url, None), keys, None, clock)
    cache.put("model", asked, answer(asked))
    clock.now += 1e9
    assert found(cache, asked) is not None  # None: for ever
    cache.close()
    cache = Cache(open_store(url, 60), keys, 60, clock)
    assert found(cache, asked) is None
    cache.close()


def test_opening_purges_what_has_expired(file_url, keys):
    clock = Clock()
    cache = Cache(open_store(file_url, 60), keys, 60, clock)
    for i in range(10):
        clock.now += 10
        cache.put("model", question(str(i)), answer(question(str(i))))
    assert cache.stats.entries == 10
    cache.close()
    cache = Cache(open_store(file_url, 60), keys, 60, clock)
    assert cache.stats.entries == 7  # created 0 to 60 s ago
    cache.close()


def test_redis_expires_entries_itself(redis_url, keys):
    asked = question()
    with open_cache(redis_url, keys, ttl=0.3) as cache:
        cache.put("model", asked, answer(asked))
        assert cache.stats.entries == 1
        time.sleep(0.4)
        assert cache.stats.entries == 0


@pytest.mark.parametrize(("ttl", "kept", "seconds"), [(None, 90, 90), (60, 90, 60), (90, 60, 60), (None, None, None)])
def test_redis_keeps_nothing_for_longer_than_the_retention_window(redis_url, keys, ttl, kept, seconds):
    """C16: no purge reaches it."""
    client = redis.Redis.from_url(redis_url)
    with open_cache(redis_url, keys, ttl, kept) as cache:
        cache.put("model", question(), answer(question()))
    (left,) = [client.pttl(key) for key in client.scan_iter()]
    assert left == -1 if seconds is None else 0 <= seconds * 1000 - left < 10_000


def _put_until_killed(url, keys_path, acknowledged):
    with ContributorKeys(keys_path, MASTER) as keys, open_cache(url, keys) as cache:
        for i in range(1_000_000):
            request = question(str(i), f"user{i % 7}")
            cache.put("model", request, answer(request))
            acknowledged.value = i + 1


@pytest.mark.parametrize("kill", range(3))
def test_kill_9_of_a_writer_loses_nothing_that_was_put(file_url, tmp_path, kill):
    """C23, C27: put returned, so the answer is there, however soon the process is killed after it."""
    context = multiprocessing.get_context("forkserver")
    path, acknowledged = tmp_path / "keys.sqlite", context.Value("i", 0, lock=False)
    writer = context.Process(target=_put_until_killed, args=(file_url, path, acknowledged))
    writer.start()
    deadline = time.monotonic() + 30
    while acknowledged.value < 40 + 37 * kill and time.monotonic() < deadline:
        time.sleep(0.001)
    os.kill(writer.pid, signal.SIGKILL)
    writer.join(30)
    n = acknowledged.value
    assert n >= 40 and writer.exitcode == -signal.SIGKILL
    with ContributorKeys(path, MASTER) as keys, open_cache(file_url, keys) as cache:
        answers = cache.get("model", [question(str(i), f"user{i % 7}") for i in range(n)])
        assert None not in answers and cache.stats.entries in (n, n + 1)
        cache.put("model", question("after"), answer(question("after")))
        assert found(cache, question("after")) is not None


def _put_part(url, keys_path, part, barrier):
    barrier.wait()  # before store and keys are there
    with ContributorKeys(keys_path, MASTER) as keys, open_cache(url, keys) as cache:
        for i in range(part * 50, part * 50 + 100):  # half of it is written by the next process too
            request = question(str(i), f"user{i % 5}")
            cache.put("model", request, answer(request))
            assert found(cache, request) is not None


def test_processes_share_one_cache(url, tmp_path):
    context = multiprocessing.get_context("forkserver")
    path, barrier = tmp_path / "keys.sqlite", context.Barrier(2)
    writers = [context.Process(target=_put_part, args=(url, path, part, barrier)) for part in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    with ContributorKeys(path, MASTER) as keys, open_cache(url, keys) as cache:
        assert None not in cache.get("model", [question(str(i), f"user{i % 5}") for i in range(150)])
        assert cache.stats.entries == 150 and cache.stats.damaged == 0


def test_threads_share_one_cache(url, keys):
    with open_cache(url, keys) as cache:
        failures = []

        def work(part):
            try:
                for i in range(40):
                    request = question(f"{part} {i}", f"user{i % 3}")
                    cache.put("model", request, answer(request))
                    assert found(cache, request) is not None
            except BaseException as error:
                failures.append(error)
                raise

        threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failures and (cache.stats.hits, cache.stats.entries) == (160, 160)


def test_puts_reach_the_disk_every_64_entries_or_half_second(keys, tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(SqliteStore, "sync", lambda store: synced.append(1))
    clock = Clock()
    monkeypatch.setattr("user_embeddings_dagster.language_models.cache.time.monotonic", clock)
    cache = open_cache(tmp_path / "cache", keys)
    requests = [question(str(i)) for i in range(130)]
    for request in requests[:128]:
        cache.put("model", request, answer(request))
    assert len(synced) == 2
    clock.now += 0.5
    cache.put("model", requests[128], answer(requests[128]))
    cache.put("model", requests[129], answer(requests[129]))
    assert len(synced) == 3
    cache.flush()
    assert len(synced) == 4


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("memcached://localhost", "no such store"),
        ("sqlite://relative/file", "absolute path"),
        ("lmdb://relative", "absolute path"),
    ],
)
def test_an_url_that_names_no_store_is_refused(url, says, keys):
    with pytest.raises(ValueError, match=says):
        open_cache(url, keys)


@pytest.mark.parametrize("package", ["lmdb", "redis"])
def test_a_missing_package_names_the_extra(package, keys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"pip install 'user-embeddings-dagster\[{package}\]'"):
        open_cache(f"{package}://{tmp_path}/cache" if package == "lmdb" else "redis://127.0.0.1:1/0", keys)


def test_a_file_that_is_no_cache_is_named(keys, tmp_path):
    (tmp_path / "cache").write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(sqlite3.DatabaseError, match=r"/cache: file is not a database"):
        open_cache(tmp_path / "cache", keys)


def test_a_new_file_that_another_process_is_setting_up_is_waited_for(tmp_path):
    """SQLite refuses the switch to a write-ahead log at once, whatever the timeout, while another is about to write."""
    path = tmp_path / "cache.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("CREATE TABLE theirs (x)")
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.3, other.rollback)
    timer.start()
    store = SqliteStore(path)
    timer.join()
    store.write(bytes(32), b"value", 0.0)
    assert store.read([bytes(32)]) == {bytes(32): b"value"}
    store.close()
    other.close()
