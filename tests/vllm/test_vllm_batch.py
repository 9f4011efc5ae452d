"""The batch job with the real `vllm.LLM`: resume by shard after kill -9, and the client protocol above it."""

import json
import os
import signal
import subprocess
import sys
import time

import jsonschema
import psutil
import pytest

from user_embeddings_dagster.keys import file_sha256
from user_embeddings_dagster.language_models import batch_files
from user_embeddings_dagster.language_models.batch_files import BatchModel, batch_key
from user_embeddings_dagster.language_models.protocol import Completion, Failure, Message, Request

pytestmark = pytest.mark.vllm
KEY = batch_key(b"platform secret of the test")
SECONDS = 400


@pytest.fixture(scope="module")
def settings(tiny_qwen3):
    return {"model": str(tiny_qwen3), "dtype": "float32", "max_model_len": 8192, "enforce_eager": True}


def start(inputs, output, log):
    command = [sys.executable, "-P", "-m", "training.vllm_batch", "--inputs", str(inputs), "--output", str(output)]
    environment = {**os.environ, batch_files.KEY_VARIABLE: KEY.hex()}
    with log.open("ab") as stream:
        return subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)


def finish(process, log):
    assert process.wait(SECONDS) == 0, log.read_text()[-4000:]


def metadata(output):
    return json.loads((output / "job.json").read_bytes())["metadata"]


@pytest.fixture(scope="module")
def killed(settings, samples, tmp_path_factory):
    """A job of 40 requests in 10 shards, killed after two and started again: folder, what was there in between."""
    folder = tmp_path_factory.mktemp("killed")
    inputs, output, log = folder / "inputs", folder / "output", folder / "log"
    assert batch_files.write_requests(inputs, samples.requests(40), settings, KEY, shard_size=4) == 40
    finished = folder / "output.work" / "answers"
    process = start(inputs, output, log)
    deadline = time.monotonic() + SECONDS
    while len(list(finished.glob("*.bin"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
        time.sleep(0.01)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    survivors = psutil.wait_procs(children, timeout=5)[1]
    before = {path.name: (file_sha256(path), path.stat().st_mtime_ns) for path in finished.glob("*.bin")}
    assert not output.exists()
    finish(start(inputs, output, log), log)
    return folder, before, survivors


def test_a_killed_job_goes_on_after_its_last_whole_shard(killed, samples, figures):
    """C22, C23: finished shards are kept as they are, every id is answered once, no engine outlives the job."""
    folder, before, survivors = killed
    assert 2 <= len(before) < 10
    assert not survivors
    for name, (digest, modified) in before.items():
        path = folder / "output" / "answers" / name
        assert (file_sha256(path), path.stat().st_mtime_ns) == (digest, modified), "made once"
    answers = list(batch_files.read_answers(folder / "output", KEY))
    assert sorted(answer.request_id for answer in answers) == sorted(request.id for request in samples.requests(40))
    figures["batch: shards kept of 10 after kill -9"] = len(before)


def test_answers_are_what_the_schema_asks_for_and_the_prefix_is_cached(killed, samples, figures):
    """C22: valid JSON from random weights; the shared instruction is computed once."""
    folder, *_ = killed
    answers = list(batch_files.read_answers(folder / "output", KEY))
    for answer in answers:
        assert isinstance(answer, Completion), answer
        jsonschema.validate(answer.value, samples.SCHEMA)
        assert answer.usage.calls == answer.attempts and answer.usage.completion_tokens > 0
    measured = metadata(folder / "output")
    assert measured["completions"] == 40 and measured["failures"] == 0
    assert measured["prefix_cache_hit_share"] > 0.5
    names = ("seconds", "peak_memory_mb", "tokens_per_second", "prefix_cache_hit_share", "completion_tokens")
    for name in names:
        figures[f"batch: {name} (killed and resumed)"] = round(measured[name], 2)


def test_behind_the_client_protocol_the_same_requests_get_the_same_answers(killed, settings, samples, tmp_path):
    """C22: `BatchModel`, undisturbed, in other shards, with one request that the model cannot take."""
    folder, *_ = killed
    log = tmp_path / "log"
    model = BatchModel(
        "tiny-qwen3", lambda inputs, output, _: finish(start(inputs, output, log), log), tmp_path / "batch", KEY,
        settings, shard_size=16,
    )  # fmt: skip
    long = Request((Message("user", "apple pear " * 2000),), samples.SCHEMA, "user-1", "summarise/1")
    answers = {answer.request_id: answer for answer in model.complete([*samples.requests(40), long])}
    refused = answers.pop(long.id)
    assert isinstance(refused, Failure) and refused.reason == "bad_request" and "apple" not in refused.detail
    resumed = {answer.request_id: answer.value for answer in batch_files.read_answers(folder / "output", KEY)}
    assert {request_id: answer.value for request_id, answer in answers.items()} == resumed
    assert not (tmp_path / "batch").exists()
