"""Summaries of 10,000 chunks from a server at fault, killed half-way: is every chunk accounted for, and paid once?

    python -m benchmarks.summary_faults [--chunks 10000]

A process summarises the chunks through the private cache, 64 requests in flight, 20% mixed faults, 100 ms latency.
It is killed (SIGKILL) when about 40% of the answers are in the cache, and run again by another process. Then: every
chunk has a summary or a reason, no chunk two; no request whose answer was in the cache at the kill was asked again;
what was asked twice in vain is at most what was in flight; the tokens of the rows are those of the server's answers,
less what the kill lost. The twin without a cache asks everything again.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import psutil

from benchmarks.fault_server import MODEL, FaultServer, prompt_hash
from benchmarks.llm_faults import LATENCY, MIX, TIMEOUT
from user_embeddings_dagster.keys import content_id, load_or_create_key
from user_embeddings_dagster.language_models.cache import Cache, open_cache
from user_embeddings_dagster.language_models.cached import Cached
from user_embeddings_dagster.language_models.openai_compatible import OpenAICompatible
from user_embeddings_dagster.language_models.protocol import Request
from user_embeddings_dagster.privacy.contributor_keys import ContributorKeys
from user_embeddings_dagster.quality.domain import summaries_account_for_chunks
from user_embeddings_dagster.schema import CHUNK_SUMMARIES, MASKED_CHUNKS, UNSUMMARISED_CHUNKS
from user_embeddings_dagster.storage.lake import Lake
from user_embeddings_dagster.summaries.build import summarise_with
from user_embeddings_dagster.summaries.subject import chunk_inputs, summarise_subject

CONCURRENCY = 64
KILLED_AT = 0.4  # of the answers are in the cache


def chunks(count: int) -> pl.DataFrame:
    """So many distinct chunks of 200 people, about 1 kB each."""
    now = datetime(2024, 1, 1, tzinfo=UTC)
    said = "I would rather take the early train, since the later one has no seats left. " * 8
    rows = [
        {
            "chunk_id": content_id("chunk", str(i)), "datadao": "sample", "user_id": content_id("user", str(i % 200)),
            "thread_id": "t", "window_id": "w", "started_at": now, "ended_at": now, "speakers": ["<P1>", "SUBJECT"],
            "turns": [f"What about number {i}?", said], "text": "", "message_ids": ["m", "n"],
            "n_subject_turns": 1, "n_tokens": 250, "n_masked": 0, "context_free": False, "community": None,
        }
        for i in range(count)
    ]  # fmt: skip
    return MASKED_CHUNKS.conform(pl.DataFrame(rows))


def cache(root: Path) -> Cache:
    """The private cache below `root`."""
    keys = ContributorKeys(root / "contributors.sqlite", load_or_create_key(root / "master.key"))
    return open_cache(root / "answers.sqlite", keys)


def work(root: Path, url: str) -> int:
    """Summarise the chunks of `root` and commit both tables, as the asset does; prints its peak memory in MB."""
    lake, process = Lake(root), psutil.Process()
    resident: list[float] = []
    with cache(root) as answers:
        model = Cached(OpenAICompatible(MODEL, url, None, CONCURRENCY, TIMEOUT), answers)

        def progress(done: int, total: int) -> None:
            if done % max(1, total // 50) == 0:
                resident.append(process.memory_info().rss / 1e6)

        result = summarise_with(model, summarise_subject(), lake.read("masked_chunks", "sample"), progress=progress)
    for table in (CHUNK_SUMMARIES, UNSUMMARISED_CHUNKS):
        lake.commit(table, result.frame(table), "sample", stats=result.stats)
    print(f"{resident[5]:.0f} {max(resident):.0f}")
    return 0


def run(root: Path, url: str, kill_at: int | None = None) -> str:
    """`work` in a process of its own; killed once the cache holds `kill_at` answers."""
    command = [sys.executable, "-m", "benchmarks.summary_faults", "--work", str(root), "--url", url]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    while kill_at is not None and process.poll() is None:
        time.sleep(0.2)
        if (root / "answers.sqlite").exists() and held(root) >= kill_at:
            process.send_signal(signal.SIGKILL)
            break
    output, _ = process.communicate()
    if kill_at is None and process.returncode != 0:
        raise RuntimeError(f"summarising exited with code {process.returncode}")
    return output


def held(root: Path) -> int:
    """Answers in the cache."""
    with cache(root) as answers:
        return answers.stats.entries


def requests(table: pl.DataFrame) -> list[Request]:
    """What is asked about the chunks."""
    program = summarise_subject()
    rows = table.select("user_id", "speakers", "turns").iter_rows()
    return [program.request(chunk_inputs(speakers, turns), owner=user) for user, speakers, turns in rows]


def main() -> int:
    """Run it; returns 1 if a chunk is lost, doubled, or asked again although its answer was there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        return work(options.work, options.url)
    with tempfile.TemporaryDirectory() as folder, FaultServer(latency=LATENCY, faults=MIX) as server:
        return measured(Path(folder), server, options.chunks)


def measured(root: Path, server: FaultServer, count: int) -> int:
    """Kill, run again, compare what was asked before and after."""
    table, started = chunks(count), time.monotonic()
    lake = Lake(root)
    lake.commit(MASKED_CHUNKS, table, "sample")
    asked = requests(table)
    run(root, server.url, kill_at=int(KILLED_AT * count))
    before = server.stats().asked
    with cache(root) as answers:
        finished = [prompt_hash(request.messages) for request in asked if answers.get(MODEL, [request])[0]]
    memory = run(root, server.url).split()
    after = server.stats().asked
    summaries, rest = lake.read("chunk_summaries", "sample"), lake.read("unsummarised_chunks", "sample")
    account = summaries_account_for_chunks(table, summaries, rest)
    repeated = sum(after[prompt] - before[prompt] for prompt in finished)
    stats = server.stats()
    rows = pl.concat([frame.select("prompt_tokens", "completion_tokens") for frame in (summaries, rest)]).sum().row(0)
    lost = stats.prompt_tokens - rows[0], stats.completion_tokens - rows[1]
    print(
        f"{count} chunks at 20% faults, killed at {len(finished)} answers: {summaries.height} summaries, "
        f"{rest['reason'].value_counts().rows() or 'none'} listed; {account.metrics}\n"
        f"  finished requests asked again: {repeated}; tokens billed but in no row: {lost} of {stats.prompt_tokens}, "
        f"{stats.completion_tokens} (in flight at the kill: at most {CONCURRENCY} requests and their attempts)\n"
        f"  {time.monotonic() - started:.0f} s in all; resident {memory[0]} MB after a tenth, at most {memory[1]} MB"
    )
    return 0 if account.passed and not repeated else 1


if __name__ == "__main__":
    sys.exit(main())
