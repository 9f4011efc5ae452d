"""A language model at its worst: it repeats its whole prompt, or does all that the prompt says.

    with EchoServer(folder / "prompts", "echo") as server: ...

It answers any JSON schema (benchmarks.schema_samples) and writes down every request, as somebody who listens would.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from benchmarks.obedient_model import obeyed
from benchmarks.schema_samples import sample
from user_embeddings_dagster.summaries.subject import MAX_ANSWER_CHARACTERS

MODEL = "worst-case"


class EchoServer:
    """`mode` "echo": every free string of an answer is the prompt, its end where there is no room for all of it;
    "obey": it is what orders in the prompt ask for (benchmarks.injections), and the prompt where there are none."""

    def __init__(self, prompts: Path, mode: str) -> None:
        prompts.mkdir(parents=True, exist_ok=True)
        self._file = (prompts / f"{mode}.ndjson").open("a", encoding="utf-8")
        self._lock, self._mode = threading.Lock(), mode
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self._say(server.answer(body))

            def do_GET(self) -> None:
                self._say({"object": "list", "data": [{"id": MODEL, "object": "model"}]})

            def _say(self, value: Any) -> None:
                data = json.dumps(value).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *arguments: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """Base URL for clients."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """A completion."""
        prompt = "\n".join(message["content"] for message in body["messages"])
        with self._lock:
            self._file.write(json.dumps(body, ensure_ascii=False) + "\n")
        schema = body.get("response_format", {}).get("json_schema", {}).get("schema", {})
        told = obeyed(prompt) if self._mode == "obey" else prompt
        content = json.dumps(_ranked(sample(schema, len(prompt), told[-MAX_ANSWER_CHARACTERS:])))
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": len(content) // 4}
        return {"id": "c", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": usage}

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._file.close()


def _ranked(value: Any) -> Any:
    """Lists of numbers as rankings: every candidate once, the last first."""
    lists = value.values() if isinstance(value, dict) else ()
    if not all(isinstance(part, list) and all(isinstance(item, int) for item in part) for part in lists):
        return value
    return {name: list(range(len(part), 0, -1)) for name, part in value.items()}
