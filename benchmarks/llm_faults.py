"""The language-model client against a server at fault: is every request accounted for, how fast, in how much memory?

    python -m benchmarks.llm_faults --requests 10000

Three measurements on this machine, server in a process of its own, 100 ms latency:

1. Throughput at concurrency 64 against 1, in alternating rounds, without and with the faults.
2. All requests at 20% mixed faults (hang, slow drip, 429 with and without Retry-After, 500, 503, reset, cut off, HTML,
   malformed JSON, schema violation, truncated, empty answers); after a third of them the server drops every
   connection and stops listening for 20 s. Each is to be answered once, validly; tokens are to be the server's bill,
   but for answers on their way when it dropped the connections; memory after the first tenth is not to grow.
3. The twin without retries, on a tenth of them: it loses what the faults hit.
"""

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator

import psutil

from benchmarks.fault_server import FAULTS, FaultServer, prompt_hash
from user_embeddings_dagster.language_models.openai_compatible import OpenAICompatible
from user_embeddings_dagster.language_models.protocol import Completion, Message, Request, Usage
from user_embeddings_dagster.language_models.validation import parse

SHARE = 0.2  # of the attempts meet a fault
KINDS = [fault for fault in FAULTS if fault not in ("bad_request", "duplicate_id")]  # what a later attempt can help
MIX = dict.fromkeys(KINDS, SHARE / len(KINDS))
LATENCY, TIMEOUT, DEAD = 0.1, 2.0, 20.0  # seconds
LEAST_RATIO, MOST_GROWTH_MB = 20.0, 20.0
SCHEMA = {
    "type": "object",
    "properties": {
        "summary": {"type": "string"},
        "topics": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
    },
    "required": ["summary", "topics"],
    "additionalProperties": False,
}
INSTRUCTIONS = Message("system", "Summarise what SUBJECT contributed to the conversation. " * 20)


def requests(count: int, tag: str) -> Iterator[Request]:
    """So many distinct requests with prompts of about 3 kB."""
    for number in range(count):
        text = Message("user", f"{tag} {number}: " + "SUBJECT says that it rains and asks for a table. " * 40)
        yield Request((INSTRUCTIONS, text), SCHEMA, "owner", "benchmark/1")


def main() -> int:
    """Run the measurements; returns 1 if one misses its bar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with FaultServer() as server:
        good = [
            throughput(server, "without faults", options.rounds, {}),
            throughput(server, "at 20% faults", options.rounds, {"faults": MIX, "seed": options.seed}),
            accounting(server, options.requests, options.seed),
            without_retries(server, options.requests // 10, options.seed),
        ]
    return 0 if all(good) else 1


def client(server: FaultServer, concurrency: int = 64, attempts: int = 5, patience: float = 300.0) -> OpenAICompatible:
    """The client under test."""
    return OpenAICompatible("test-model", server.url, None, concurrency, TIMEOUT, attempts, patience)


def throughput(server: FaultServer, name: str, rounds: int, behaviour: dict) -> bool:
    """Requests a second at concurrency 1 and 64, each round one after the other."""
    rates: dict[int, list[float]] = {1: [], 64: []}
    for number in range(rounds):
        for concurrency, count in ((1, 100 if behaviour else 30), (64, 2_000)):
            server.behave(latency=LATENCY, **behaviour)
            started = time.monotonic()
            answers = list(client(server, concurrency).complete(requests(count, f"round {number}")))
            rates[concurrency].append(len(answers) / (time.monotonic() - started))
    ratios = [many / one for one, many in zip(rates[1], rates[64], strict=True)]
    print(
        f"{name}: concurrency 1 {statistics.median(rates[1]):.1f}/s, 64 {statistics.median(rates[64]):.0f}/s, "
        f"ratio by round {', '.join(f'{ratio:.1f}' for ratio in ratios)}, median {statistics.median(ratios):.1f}",
        flush=True,
    )
    return statistics.median(ratios) >= LEAST_RATIO


def accounting(server: FaultServer, count: int, seed: int) -> bool:
    """Every request at 20% faults and with the server away for 20 s."""
    server.behave(latency=LATENCY, faults=MIX, seed=seed, die_after=count // 3, die_seconds=DEAD)
    process, resident, answered = psutil.Process(), [], Counter()
    failures, total, attempts, partial = Counter(), Usage(), 0, 0
    started = time.monotonic()
    for done, answer in enumerate(client(server).complete(requests(count, "chunk")), 1):
        answered[answer.request_id] += 1
        total, attempts = total + answer.usage, attempts + answer.attempts
        if isinstance(answer, Completion):
            partial += parse(json.dumps(answer.value), SCHEMA, "stop") != answer.value
        else:
            failures[answer.reason] += 1
        if done % max(1, count // 100) == 0:
            resident.append(process.memory_info().rss / 1e6)
    seconds = time.monotonic() - started
    stats = server.stats()
    missing = sum(request.id not in answered for request in requests(count, "chunk"))
    never_asked = sum(prompt_hash(request.messages) not in stats.asked for request in requests(count, "chunk"))
    billed = (stats.prompt_tokens, stats.cached_prompt_tokens, stats.completion_tokens)
    counted = (total.prompt_tokens, total.cached_prompt_tokens, total.completion_tokens)
    duplicates = answered.total() - len(answered)
    on_their_way = stats.answers - total.calls
    growth = max(resident[10:]) - resident[9]
    print(
        f"{count} requests at {SHARE:.0%} faults, server away for {DEAD:.0f} s: {len(answered)} accounted for, "
        f"{missing} missing, {never_asked} never asked, {duplicates} duplicates, {partial} partial, "
        f"failures {dict(failures) or 'none'}\n"
        f"  {attempts} attempts, {stats.requests} seen by the server, {total.calls} answered, "
        f"{on_their_way} more billed when the server went; tokens (prompt, cached, completion) counted {counted}, "
        f"billed {billed}\n"
        f"  faults met: {dict(sorted(stats.outcomes.items()))}\n"
        f"  {seconds:.0f} s; resident {resident[9]:.0f} MB after the first tenth, then at most {growth:+.1f} MB",
        flush=True,
    )
    lost = missing or never_asked or duplicates or partial or failures
    paid = counted == billed if on_their_way == 0 else 0 < on_their_way <= 64
    return not lost and paid and growth < MOST_GROWTH_MB


def without_retries(server: FaultServer, count: int, seed: int) -> bool:
    """The same faults when nothing is asked twice: the twin must lose requests, or the faults were none."""
    server.behave(latency=LATENCY, faults=MIX, seed=seed)
    answers = client(server, attempts=1, patience=0.0).complete(requests(count, "chunk"))
    lost = sum(not isinstance(answer, Completion) for answer in answers)
    print(f"without retries: {lost} of {count} lost", flush=True)
    return lost > 0


if __name__ == "__main__":
    sys.exit(main())
