"""C27, C19: what a model is asked and answers is nowhere on disk in clear but in the tables that are made of it."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from user_embeddings_dagster.privacy.audit.canaries import scan

CANARY = "Zwetschgenkuchen-4711"
ROOT = Path(__file__).parents[2]

_PREDICT = """
import json, sys, threading
how, url, canary = sys.argv[1:]
from user_embeddings_dagster.language_models.dspy_settings import quiet_dspy
if how == "quiet in a thread":
    thread = threading.Thread(target=quiet_dspy)
    thread.start()
    thread.join()
import dspy
from dspy.clients import base_lm

if how == "our engine":
    from user_embeddings_dagster.language_models.dspy_lm import dspy_lm
    from user_embeddings_dagster.language_models.openai_compatible import OpenAICompatible
    lm = dspy_lm(OpenAICompatible("test-model", url, None), owner="ann", program="p/1")
else:
    lm = dspy.LM("openai/test-model", api_base=url, api_key="none")
predict = dspy.Predict("question -> answer")
answers = []

def ask(i):
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        answers.append(predict(question=f"{canary} {i}").answer)

ask(0)
thread = threading.Thread(target=ask, args=(1,))
thread.start()
thread.join()
histories = len(base_lm.GLOBAL_HISTORY) + len(lm.history) + len(predict.history)
print(json.dumps({"answers": answers, "histories": histories, "litellm": "litellm" in sys.modules}))
"""


def _redirected(folder: Path, **more: str) -> dict[str, str]:
    """An environment whose every place to write to is below `folder`."""
    places = {"HOME": "home", "TMPDIR": "tmp", "DSPY_CACHEDIR": "dspy", "DAGSTER_HOME": "dagster"}
    places |= {f"XDG_{kind}_HOME": f"xdg/{kind.lower()}" for kind in ("CACHE", "CONFIG", "DATA", "STATE")}
    for place in places.values():
        (folder / place).mkdir(parents=True, exist_ok=True)
    paths = {name: str(folder / place) for name, place in places.items()}
    return os.environ | paths | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more


class Echo(BaseHTTPRequestHandler):
    """Any chat completion: the whole conversation as the answer."""

    asked = 0

    def do_POST(self):
        type(self).asked += 1
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        said = " ".join(message["content"] for message in body["messages"])
        message = {"role": "assistant", "content": json.dumps({"answer": said})}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        answer = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [choice],
            "usage": usage,
        }
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture(scope="module")
def echo():
    with ThreadingHTTPServer(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def _predict(how, folder, url):
    before = Echo.asked
    command = [sys.executable, "-c", _PREDICT, how, url, CANARY]
    done = subprocess.run(command, env=_redirected(folder), cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert Echo.asked > before
    told = json.loads(done.stdout)
    assert len(told["answers"]) == 2 and all(CANARY in answer for answer in told["answers"])  # the model echoes
    return told, scan(folder, [CANARY])


def test_dspy_by_default_leaves_prompts_on_disk(tmp_path, echo):
    """The control: without our settings the very same calls are found in DSPy's cache and histories."""
    told, found = _predict("default", tmp_path, echo)
    assert found.canaries == {CANARY} and all(file.startswith("dspy/") for file in found.by_file)
    assert told["histories"]


@pytest.mark.parametrize("how", ["quiet in a thread", "our engine"])
def test_dspy_leaves_nothing(how, tmp_path, echo):
    """No cache, no history, whichever thread settles it and whichever asks; litellm is not even imported."""
    told, found = _predict(how, tmp_path, echo)
    assert not found.hits and not found.undecoded
    assert told["histories"] == 0 and not told["litellm"]


def test_quiet_dspy_does_not_take_the_settings_from_their_owner(tmp_path):
    """dspy.configure belongs to the first thread that calls it: we do not become that thread."""
    code = (
        "import threading, dspy\n"
        "from user_embeddings_dagster.language_models.dspy_settings import quiet_dspy\n"
        "def work():\n"
        "    quiet_dspy()\n"
        "thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        "dspy.configure(num_threads=3)\n"
        "quiet_dspy()\n"
        "assert dspy.settings.disable_history and dspy.settings.num_threads == 3\n"
        "with dspy.context(disable_history=False):\n"
        "    try: quiet_dspy()\n"
        "    except RuntimeError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=_redirected(tmp_path), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "before dspy.context" in done.stdout, done.stderr


_SUMMARISE = """
import sys
from datetime import UTC, datetime
port, data, canary, tests = sys.argv[1:]
sys.path.insert(0, tests + "/support")
from user_embeddings_dagster.settings import prepare_environment
prepare_environment()
import dagster as dg, polars as pl
from assets.chunk_summaries import chunk_summaries
from assets.partitions import DATADAO
from benchmarks.fault_server import FaultServer
from granting import grant
from resources.language_model import LanguageModelResource
from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.schema import MASKED_CHUNKS

at = datetime(2024, 1, 1, tzinfo=UTC)
rows = []
for i in range(40):
    turns = [f"what do you bake, number {i}?", f"I bake {canary} with cream, every {i} days"]
    rows.append({
        "chunk_id": f"{i:032x}", "datadao": "dao", "user_id": f"user{i % 5}", "thread_id": "t", "window_id": f"w{i}",
        "started_at": at, "ended_at": at, "speakers": ["<P1>", "SUBJECT"], "turns": turns, "text": chr(10).join(turns),
        "message_ids": ["a", "b"], "n_subject_turns": 1, "n_tokens": 20, "n_masked": 0, "context_free": False,
        "community": None,
    })
store, server = Store(data=data), FaultServer(int(port))
store.lake.commit(MASKED_CHUNKS, pl.DataFrame(rows, MASKED_CHUNKS.schema), "dao")
grant(store.lake, "dao", [row["user_id"] for row in rows])
instance = dg.DagsterInstance.get()
instance.add_dynamic_partitions(DATADAO, ["dao"])
model = LanguageModelResource(
    kind="openai_compatible", name="test-model", base_url=server.url, concurrency=8, timeout_seconds=2,
    max_attempts=2, patience_seconds=1,
)

def materialise(**behaviour):
    server.behave(mode="echo", **behaviour)
    return dg.materialize(
        [chunk_summaries], instance=instance, partition_key="dao", raise_on_error=False,
        resources={"store": store, "language_model": model, "training_jobs": TrainingJobs()},
    ).success

assert not materialise(refuse_after=15)
faults = "http_500", "malformed_json", "schema_violation", "truncated", "cut", "html"
assert materialise(faults={fault: 0.05 for fault in faults})
"""
TABLES = ("data/tables/masked_chunks/", "data/tables/chunk_summaries/")


def test_summarising_leaves_texts_in_their_tables_alone(tmp_path, fault_server):
    """C27, law 5: the worst model there is repeats its whole prompt, turns its back mid-way, and fails in every way.

    In data root, DAGSTER_HOME, HOME, TMPDIR and the process's output, only the chunks' and the summaries' tables
    hold what was said.
    """
    environment = _redirected(tmp_path)
    (tmp_path / "dagster" / "dagster.yaml").write_text((ROOT / "user_embeddings_dagster" / "dagster.yaml").read_text())
    command = [sys.executable, "-c", _SUMMARISE, str(fault_server.port), str(tmp_path / "data"), CANARY]
    command.append(str(ROOT / "tests"))
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240)
    (tmp_path / "output").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr
    found = scan(tmp_path, [CANARY])
    assert not found.undecoded
    assert not [file for file in found.by_file if not file.startswith(TABLES)]
    for table in TABLES:  # the control: the scan sees what is there
        assert any(file.startswith(table) for file in found.by_file)
    with sqlite3.connect(tmp_path / "data" / "cache" / "language_models.sqlite") as cache:
        assert cache.execute("SELECT count(*) FROM entries").fetchone()[0] >= 30
    assert list((tmp_path / "dagster" / "history").rglob("*.db"))  # the event log was among what was scanned
