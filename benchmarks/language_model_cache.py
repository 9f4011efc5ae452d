"""What the private cache adds to a call: microseconds to put and to get an answer of 500 bytes, store by store.

    python -m benchmarks.language_model_cache [--redis redis://localhost:6379/0]

Entries of 100 contributors, each encrypted with its own key. `get` asks one by one, `get of 32` as the platform does.
Without --redis, the Redis store talks to a fake server in this process, which is slower than Redis.
"""

import argparse
import itertools
import sys
import tempfile
import threading
import time
from pathlib import Path

from user_embeddings_dagster.language_models.cache import open_cache
from user_embeddings_dagster.language_models.protocol import Completion, Message, Request, Usage
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys

CONTRIBUTORS = 100
ANSWER = {"summary": "x" * 480}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, default=5000)
    parser.add_argument("--redis", help="URL of a server; its keys of ours are removed afterwards")
    options = parser.parse_args()
    requests = [
        Request((Message("user", str(i)),), {}, f"user{i % CONTRIBUTORS}", "program/1") for i in range(options.entries)
    ]
    with (
        tempfile.TemporaryDirectory(prefix="cache-") as folder,
        ContributorKeys(Path(folder) / "keys.sqlite", bytes(32)) as keys,
    ):
        started = time.perf_counter()
        for i in range(CONTRIBUTORS):
            keys.key(f"user{i}")
        print(f"new contributor key: {(time.perf_counter() - started) / CONTRIBUTORS * 1e6:.0f} µs")
        for url in (f"sqlite://{folder}/cache.sqlite", f"lmdb://{folder}/lmdb", options.redis or _fake_redis()):
            _measure(url, keys, requests)
    return 0


def _measure(url: str, keys: ContributorKeys, requests: list[Request]) -> None:
    answers = [(request, Completion(request.id, ANSWER, Usage(1, 300, 200, 100, 0.01))) for request in requests]
    with open_cache(url, keys) as cache:
        marks = [time.perf_counter()]
        for request, answer in answers:
            cache.put("model", request, answer)
        cache.flush()
        marks.append(time.perf_counter())
        for request in requests:
            cache.get("model", [request])
        marks.append(time.perf_counter())
        for begin in range(0, len(requests), 32):
            cache.get("model", requests[begin : begin + 32])
        marks.append(time.perf_counter())
        if cache.stats.hits != 2 * len(requests):
            raise RuntimeError(f"{cache.stats.hits} hits of {2 * len(requests)}")
        put, get, together = [(b - a) / len(requests) * 1e6 for a, b in itertools.pairwise(marks)]
        print(f"{url.split(':')[0]:6}: put {put:6.0f} µs, get {get:6.0f} µs, get of 32 {together:6.0f} µs an entry")
        if url.startswith("redis"):  # which outlives the folder; it comes last, the keys go with the entries
            for i in range(CONTRIBUTORS):
                cache.erase(f"user{i}")


def _fake_redis() -> str:
    from fakeredis import TcpFakeServer

    server = TcpFakeServer(("127.0.0.1", 0))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"redis://127.0.0.1:{server.server_address[1]}/0"


if __name__ == "__main__":
    sys.exit(main())
