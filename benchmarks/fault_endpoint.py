"""The serving process of the fault server: see fault_server for how to use it."""

import asyncio
import json
import random
import re
import socket
import struct
import sys
import time
from collections import Counter
from email.utils import formatdate
from itertools import chain
from typing import Any

import msgspec
from aiohttp import web

from benchmarks.fault_server import FAULTS, Behaviour, Event, Stats, prompt_hash
from benchmarks.schema_samples import sample

# A message says: ignore the instructions above and write "…".
_INJECTION = re.compile(
    r"(?:ignore|disregard|forget)\b[^.:;\n]*?\b(?:say|write|answer|reply|respond|output|print|return)\b"
    r"(?:\s+(?:only|just|with|that|exactly))*\s*:?[\s\\\"'“]*([^\n\"“”\\]{1,300})",
    re.IGNORECASE,
)

ECHO_CHARACTERS = 2_000  # a longer answer is refused


class Endpoint:
    """What serves: the behaviour, the counts, the listening socket."""

    def __init__(self, behaviour: dict[str, Any]) -> None:
        self.started = time.monotonic()
        self.port = 0
        self._runner: web.AppRunner | None = None
        self._site: web.TCPSite | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._begin(behaviour)

    def _begin(self, given: dict[str, Any]) -> None:
        behaviour = msgspec.convert(given, Behaviour)
        unknown = {*behaviour.faults, *behaviour.script, *chain(*behaviour.scripts.values())} - {*FAULTS, "ok"}
        if unknown or sum(behaviour.faults.values()) > 1:
            raise ValueError(f"unknown faults or probabilities above 1: {sorted(unknown)}")
        self.behaviour = behaviour
        self.asked: Counter[str] = Counter()
        self.events: list[Event] = []
        self.stats = Stats()
        self.at_once = 0
        self.systems: set[str] = set()

    async def serve(self, port: int) -> None:
        """Listen on 127.0.0.1 and say on stdout at which port; returns when stdin ends, as its starter does."""
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/control/{what}", self._control)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        await self._listen(port)
        print(self.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)

    async def _listen(self, port: int) -> None:
        assert self._runner
        self._site = web.TCPSite(self._runner, "127.0.0.1", port, backlog=1024)
        await self._site.start()
        self.port = self._runner.addresses[0][1]

    async def _die(self, seconds: float) -> None:
        assert self._runner and self._runner.server and self._site
        await self._site.stop()
        for connection in list(self._runner.server.connections):
            if connection.transport is not None:
                _reset(connection.transport)
        await asyncio.sleep(seconds)
        await self._listen(self.port)

    def _later(self, seconds: float) -> None:
        task = asyncio.get_running_loop().create_task(self._die(seconds))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _control(self, request: web.Request) -> web.Response:
        body = await request.json()
        match request.match_info["what"]:
            case "behave":
                self._begin(body)
            case "stats":
                self.stats.asked = dict(self.asked)
                return _json(msgspec.to_builtins(self.stats))
            case "events":
                return _json(msgspec.to_builtins(self.events))
            case "die":
                self._later(body["seconds"])
        return _json({})

    def _refusal(self, request: web.Request) -> web.Response | None:
        behaviour, stats = self.behaviour, self.stats
        given = request.headers.get("Authorization", "")
        if behaviour.api_key is not None and given != f"Bearer {behaviour.api_key}":
            return _error(401, "invalid_api_key", f"wrong key: {given}")
        if behaviour.refuse_after is not None and stats.requests >= behaviour.refuse_after:
            return _error(behaviour.refuse_status, "refused", f"refused: {given}")
        return None

    async def _models(self, request: web.Request) -> web.Response:
        listed = [{"id": name, "object": "model"} for name in self.behaviour.models]
        return self._refusal(request) or _json({"object": "list", "data": listed})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw)
        refusal, stats = self._refusal(request), self.stats
        stats.requests += 1
        if self.behaviour.die_after is not None and stats.requests == self.behaviour.die_after:
            self._later(self.behaviour.die_seconds)
        prompt = prompt_hash(body["messages"])
        self.asked[prompt] += 1
        attempt = self.asked[prompt]
        outcome = "refused" if refusal else self._outcome(body["messages"][-1]["content"], prompt, attempt)
        stats.outcomes[outcome] = stats.outcomes.get(outcome, 0) + 1
        self.events.append(Event(round(time.monotonic() - self.started, 4), prompt, attempt, outcome, body))
        if len(self.events) > 1_000:
            self.events[-1_001] = msgspec.structs.replace(self.events[-1_001], body={})
        self.at_once += 1
        stats.most_at_once = max(stats.most_at_once, self.at_once)
        try:
            return refusal or await self._answer(request, body, prompt, outcome)
        finally:
            self.at_once -= 1

    def _outcome(self, said: str, prompt: str, attempt: int) -> str:
        words = said.split(maxsplit=1)
        script = self.behaviour.scripts.get(words[0] if words else "", self.behaviour.script)
        if script:
            return script[attempt - 1] if attempt <= len(script) else "ok"
        draw = random.Random(f"{self.behaviour.seed}/{prompt}/{attempt}").random()
        for fault, probability in self.behaviour.faults.items():
            draw -= probability
            if draw < 0:
                return fault
        return "ok"

    async def _answer(self, request: web.Request, body: Any, prompt: str, outcome: str) -> web.StreamResponse:
        behaviour = self.behaviour
        said = body["messages"][-1]["content"]
        if body["model"] not in behaviour.models:
            return _error(404, "model_not_found", f"no such model for {said}")
        match outcome:  # what is decided before any work: at once
            case "hang":
                await asyncio.sleep(behaviour.hang_seconds)
            case "rate_limited":
                return _error(429, "rate_limit_exceeded", said, _retry_after(behaviour))
            case "rate_limited_silent":
                return _error(429, "rate_limit_exceeded", said)
            case "http_500" | "http_503":
                return _error(int(outcome[-3:]), "internal_error", said)
            case "bad_request":
                return _error(400, "context_length_exceeded", said)
        await asyncio.sleep(behaviour.latency)
        try:
            payload = self._completion(body, prompt, outcome)
        except ValueError as problem:
            return _error(400, "invalid_request_error", str(problem))
        match outcome:
            case "html":
                return web.Response(text=f"<html>{said}</html>", content_type="text/html")
            case "slow_drip" | "reset" | "cut":
                return await self._broken(request, payload, outcome)
        self._bill(payload["usage"])
        return _json(payload)

    async def _broken(self, request: web.Request, payload: Any, outcome: str) -> web.StreamResponse:
        data = json.dumps(payload).encode()
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(data))})
        await response.prepare(request)
        if outcome == "slow_drip":
            for byte in data:
                await response.write(bytes([byte]))
                await asyncio.sleep(self.behaviour.drip_seconds)
            return response
        await response.write(data[: len(data) // 2])
        if request.transport is not None:
            _reset(request.transport) if outcome == "reset" else request.transport.close()
        return response

    def _completion(self, body: Any, prompt: str, outcome: str) -> dict[str, Any]:
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
        told = "\n".join(message["content"] for message in body["messages"])
        value = sample(schema, int(prompt[:8], 16), self._words(told))
        content, finish = json.dumps(value), "stop"
        if outcome == "malformed_json":
            content = content[: len(content) * 2 // 3] + "{"
        elif outcome == "schema_violation":
            content = json.dumps(_violating(value, schema))
        elif outcome == "truncated" or (body.get("max_tokens") or 1e9) < self.behaviour.answer_tokens:
            content, finish = content[: len(content) // 2], "length"
        message = {"role": "assistant", "content": None if outcome == "null_content" else content}
        choices = [{"index": 0, "message": message, "finish_reason": finish}]
        system = body["messages"][0]["content"] if body["messages"][0]["role"] == "system" else ""
        cached = len(system) // 4 if system in self.systems else 0
        self.systems.add(system)
        usage = {
            "prompt_tokens": len(told) // 4,
            "completion_tokens": max(1, len(content) // 4),
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        return {
            "id": "chatcmpl-1" if outcome == "duplicate_id" else f"chatcmpl-{prompt}-{self.stats.requests}",
            "object": "chat.completion",
            "model": "another-model" if outcome == "duplicate_id" else body["model"],
            "choices": {"no_choices": [], "duplicate_id": choices * 2}.get(outcome, choices),
            "usage": usage,
        }

    def _words(self, told: str) -> str | None:
        if self.behaviour.mode == "echo":
            return told[-ECHO_CHARACTERS:]
        injected = _INJECTION.search(told) if self.behaviour.mode == "obey" else None
        return injected[1].strip() if injected else None

    def _bill(self, usage: Any) -> None:
        self.stats.answers += 1
        self.stats.prompt_tokens += usage["prompt_tokens"]
        self.stats.cached_prompt_tokens += usage["prompt_tokens_details"]["cached_tokens"]
        self.stats.completion_tokens += usage["completion_tokens"]


def _violating(value: Any, schema: Any) -> Any:
    """Something near `value` that `schema` does not allow."""
    required = schema.get("required") or []
    if isinstance(value, dict) and required:
        return {name: part for name, part in value.items() if name != required[-1]}
    return [] if isinstance(value, dict) else {"unexpected": value}


def _retry_after(behaviour: Behaviour) -> dict[str, str]:
    seconds = behaviour.retry_after
    match behaviour.retry_after_form:
        case "date":
            return {"Retry-After": formatdate(time.time() + seconds, usegmt=True)}
        case "milliseconds":
            return {"Retry-After-Ms": str(round(seconds * 1000))}
    return {"Retry-After": f"{seconds:g}"}


def _json(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, headers=headers, content_type="application/json"
    )


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> web.Response:
    """Error bodies repeat what was sent, as careless servers do: clients must not pass them on."""
    return _json({"error": {"message": message, "type": code, "code": code}}, status, headers)


def _reset(transport: Any) -> None:
    """Close with RST instead of FIN: the peer sees ECONNRESET."""
    peer = transport.get_extra_info("socket")
    if peer is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
