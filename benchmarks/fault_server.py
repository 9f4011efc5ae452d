"""A small OpenAI-compatible server that misbehaves on purpose: /v1/models and /v1/chat/completions.

    python -m benchmarks.fault_server --port 8001 --behaviour '{"latency": 0.1, "faults": {"reset": 0.05}}'

It stands in for vLLM in tests and benchmarks. Which fault hits is a function of the seed, the prompt and how often
that prompt was asked before, never of time: the same run meets the same faults. It counts what it is asked by prompt,
bills tokens for every answer it sends whole, and answers any JSON schema with a valid value.

From Python, in a process of its own on a loopback port:

    with FaultServer(faults={"http_500": 0.1}) as server:
        model = OpenAICompatible("test-model", server.url, None)
        …
        assert server.stats().asked[prompt_hash(request.messages)] == 2
"""

import argparse
import asyncio
import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import msgspec

MODEL = "test-model"
# What can go wrong with one request.
FAULTS = (
    "hang", "slow_drip", "rate_limited", "rate_limited_silent", "http_500", "http_503", "reset", "cut", "html",
    "malformed_json", "schema_violation", "truncated", "null_content", "duplicate_id", "no_choices", "bad_request",
)  # fmt: skip


class Behaviour(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the server behaves.

    `faults`: probability of each fault at each attempt; or `script`: what happens at a prompt's 1st, 2nd, … attempt
    ("ok" or a fault; after its end all is well); or `scripts`, by the first word of the last message. `mode`: what
    answers say: "sample" (any valid value), "echo" (the end of the prompt in the free strings) or "obey" (what an
    instruction injected into the prompt says). `die_after`: at that request it drops every connection and stops
    listening for `die_seconds`. `refuse_after`: so many requests are served, the others get `refuse_status`.
    `answer_tokens`: what an answer needs, cut off below. Seconds everywhere.
    """

    seed: int = 0
    latency: float = 0.0
    faults: dict[str, float] = {}
    script: list[str] = []
    scripts: dict[str, list[str]] = {}
    mode: str = "sample"
    models: tuple[str, ...] = (MODEL,)
    api_key: str | None = None
    retry_after: float = 1.0
    retry_after_form: str = "seconds"  # or "date", "milliseconds"
    hang_seconds: float = 3600.0
    drip_seconds: float = 0.05  # between two bytes: no read ever waits long
    answer_tokens: int = 0
    die_after: int | None = None
    die_seconds: float = 20.0
    refuse_after: int | None = None
    refuse_status: int = 401


class Event(msgspec.Struct, frozen=True):
    """One request as the server saw it; `at` seconds since its start, `attempt` counts that prompt's from 1."""

    at: float
    prompt: str
    attempt: int
    outcome: str
    body: dict[str, Any]


class Stats(msgspec.Struct):
    """What the server was asked: by prompt hash, outcomes by kind; answers sent whole, and their tokens."""

    asked: dict[str, int] = {}
    outcomes: dict[str, int] = {}
    requests: int = 0
    most_at_once: int = 0
    answers: int = 0
    prompt_tokens: int = 0
    cached_prompt_tokens: int = 0
    completion_tokens: int = 0


def prompt_hash(messages: Iterable[Any]) -> str:
    """What the server calls a prompt: a hash of roles and contents (Message structs or dicts)."""
    turns = [msgspec.to_builtins(message) for message in messages]
    parts = [[turn["role"], turn["content"]] for turn in turns]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


class FaultServer:
    """The server in a process of its own, listening on 127.0.0.1; a context manager."""

    def __init__(self, port: int = 0, **behaviour: Any) -> None:
        self._command = [sys.executable, "-P", "-m", "benchmarks.fault_server", "--port", str(port)]
        self._command += ["--behaviour", json.dumps(behaviour)]
        self._process: subprocess.Popen[str] | None = None
        self.port = port

    def __enter__(self) -> Self:
        # Opacus too installs a package called benchmarks, which would be found before ours.
        paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True, env=environment
        )
        assert self._process.stdout
        self.port = int(self._process.stdout.readline())
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process
        self._process.kill()
        self._process.communicate()

    @property
    def url(self) -> str:
        """Base URL for clients, with /v1."""
        return f"http://127.0.0.1:{self.port}/v1"

    def behave(self, **behaviour: Any) -> None:
        """Start afresh with this behaviour: counts are zero, prompts are forgotten."""
        self._control("behave", behaviour)

    def stats(self) -> Stats:
        """Counts since the last `behave`."""
        return msgspec.convert(self._control("stats"), Stats)

    def events(self) -> list[Event]:
        """Every request since the last `behave`, in order of arrival (only the last 1,000 with a body)."""
        return msgspec.convert(self._control("events"), list[Event])

    def die(self, seconds: float) -> None:
        """Drop every connection now and stop listening for so long."""
        self._control("die", {"seconds": seconds})

    def _control(self, what: str, body: dict[str, Any] | None = None) -> Any:
        data = json.dumps(body or {}).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}/control/{what}", data, timeout=60) as response:
            return json.loads(response.read())


def main() -> int:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=0, help="0: any free port; the port is the first line of stdout")
    parser.add_argument("--behaviour", default="{}", help="JSON object: see Behaviour")
    options = parser.parse_args()
    from benchmarks.fault_endpoint import Endpoint

    asyncio.run(Endpoint(json.loads(options.behaviour)).serve(options.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
