"""The batch job and its files, with a stand-in for vLLM that fails as vLLM does (the real one: tests/vllm)."""

import json
import logging
import multiprocessing
import os
import signal
import sys
import types
from pathlib import Path

import pytest

from training import vllm_batch
from training.job import run
from user_embeddings_dagster.language_models import batch_files
from user_embeddings_dagster.language_models.batch_files import BatchModel, batch_key
from user_embeddings_dagster.language_models.protocol import Completion, Failure, Message, Request

KEY = batch_key(b"platform secret of the test")
CANARY = "zebra-quartz-7291"
ENVIRONMENT = {batch_files.KEY_VARIABLE: KEY.hex()}
SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}
FORKS = multiprocessing.get_context("forkserver")
MODEL = "tiny@" + 40 * "0"
FORKS.set_forkserver_preload(["torch._dynamo", "safetensors.torch", "training.checkpoint", "training.vllm_batch"])


class Refused(Exception):
    """Stands in for vllm.exceptions.VLLMClientError."""


class StandIn:
    """Stands in for vllm.LLM: writes down what it is asked, and answers as the last word of the prompt says."""

    log: Path
    kill_at: int
    spoken: int = 0

    def __init__(self, **options):
        self.waiting = []
        logging_set = [
            os.environ.get(f"VLLM_{name}") for name in ("CONFIGURE_LOGGING", "LOGGING_LEVEL", "LOGGING_CONFIG_PATH")
        ]
        self._write("loaded", options["model"], options["enable_prefix_caching"], logging_set)

    def _write(self, *line):
        with self.log.open("a") as stream:
            stream.write(json.dumps(line) + "\n")

    def enqueue_chat(self, conversations, sampling, use_tqdm, chat_template_kwargs):
        (messages,) = conversations
        if messages[-1]["content"].endswith("endless"):
            raise Refused(f"prompt too long: {messages}")
        self.waiting.append((messages, sampling))

    def wait_for_completion(self, use_tqdm):
        for messages, _ in self.waiting:
            if messages[-1]["content"].endswith("fatal"):
                logging.getLogger("vllm.engine").error("while asked %s", messages)
                raise ValueError(f"cannot answer {messages}")
        type(self).spoken += 1
        if self.spoken == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        replies = [self._reply(messages[-1]["content"], sampling) for messages, sampling in self.waiting]
        self.waiting = []
        return replies

    def _reply(self, content, sampling):
        number, kind = content.split()[-2:]
        self._write("asked", int(number), sampling.max_tokens, sampling.seed, sampling.temperature)
        text, reason = json.dumps({"n": int(number)}), "stop"
        if kind == "garbled" and sampling.seed == 0:
            text = '{"n": '
        elif kind == "long" and sampling.max_tokens < 100:
            text, reason = '{"n": 1', "length"
        elif kind == "stubborn":
            text = '{"n": "many"}'
        output = types.SimpleNamespace(text=text, finish_reason=reason, token_ids=[1] * 5)
        return types.SimpleNamespace(outputs=[output], prompt_token_ids=[1] * 20, num_cached_tokens=16)


def _job(arguments, log, kill_at, environment):
    os.environ.update(environment)
    StandIn.log, StandIn.kill_at = log, kill_at
    values = types.SimpleNamespace
    modules = {
        "vllm": {"LLM": StandIn, "SamplingParams": values},
        "vllm.exceptions": {"VLLMClientError": Refused},
        "vllm.sampling_params": {"StructuredOutputsParams": values},
    }
    for name, content in modules.items():
        sys.modules[name] = types.ModuleType(name)
        vars(sys.modules[name]).update(content)
    with log.with_name("stderr").open("a") as stream:
        os.dup2(stream.fileno(), 2)
        os.dup2(stream.fileno(), 1)
    sys.exit(run("vllm_batch", vllm_batch.answer_batch, "1", arguments))


class Batch:
    """The job in one folder; each start is a fresh process."""

    def __init__(self, folder):
        self.folder, self.inputs, self.output = folder, folder / "inputs", folder / "output"
        self.log = folder / "log"

    def run(self, kill_at=0, environment=ENVIRONMENT):
        arguments = ["--inputs", str(self.inputs), "--output", str(self.output)]
        process = FORKS.Process(target=_job, args=(arguments, self.log, kill_at, environment))
        process.start()
        process.join(60)
        return process.exitcode

    def write(self, requests, shard_size=5, **config):
        return batch_files.write_requests(self.inputs, requests, {"model": MODEL, **config}, KEY, shard_size)

    @property
    def answers(self):
        return list(batch_files.read_answers(self.output, KEY))

    @property
    def lines(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    @property
    def asked(self):
        return [line[1] for line in self.lines if line[0] == "asked"]

    @property
    def metadata(self):
        return json.loads((self.output / "job.json").read_bytes())["metadata"]


def request(number, kind="plain"):
    messages = Message("system", "Answer as JSON."), Message("user", f"{CANARY} SUBJECT counts: {number} {kind}")
    return Request(messages, SCHEMA, owner=f"user-{number % 3}", program="count/1", max_tokens=40)


@pytest.fixture
def batch(tmp_path):
    return Batch(tmp_path)


def test_killed_after_some_shards_the_job_asks_only_for_the_rest(batch, tmp_path):
    """C22, C23: resume by shard after kill -9, with every id answered once and the answers of an unkilled run."""
    requests = [request(number) for number in range(23)]
    assert batch.write(requests) == 23
    assert batch.run(kill_at=3) == -signal.SIGKILL
    assert not batch.output.exists()
    assert batch.run(kill_at=2) == -signal.SIGKILL
    assert batch.run() == 0
    assert sorted(batch.asked) == list(range(23)), "finished shards are not asked again"
    assert [line[0] for line in batch.lines].count("loaded") == 3
    answers = {answer.request_id: answer.value for answer in batch.answers}
    assert len(batch.answers) == 23
    assert answers == {request.id: {"n": number} for number, request in enumerate(requests)}
    assert (batch.metadata["requests"], batch.metadata["steps"], batch.metadata["failures"]) == (23, 5, 0)
    assert len((batch.output / "metrics.jsonl").read_text().splitlines()) == 5

    undisturbed = Batch(tmp_path / "undisturbed")
    undisturbed.folder.mkdir()
    undisturbed.write(requests)
    assert undisturbed.run() == 0
    versions = [json.loads((job.output / "job.json").read_bytes())["data_version"] for job in (batch, undisturbed)]
    assert versions[0] == versions[1]
    assert batch.run() == 0
    assert len(batch.asked) == 23, "a complete result is not asked for again"


def test_a_damaged_shard_is_asked_again(batch):
    batch.write([request(number) for number in range(10)])
    assert batch.run(kill_at=2) == -signal.SIGKILL
    (path,) = (batch.folder / "output.work" / "answers").glob("*.bin")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert batch.run() == 0
    assert sorted(batch.asked) == sorted([*range(10), *range(5)])
    assert len(batch.answers) == 10


def test_invalid_answers_are_asked_again_and_what_stays_invalid_is_listed_with_its_reason(batch):
    """C23: every id is in the output exactly once, as a completion or as a failure with what it cost."""
    kinds = ["plain", "garbled", "long", "stubborn", "endless", "plain"]
    requests = [request(number, kind) for number, kind in enumerate(kinds)]
    batch.write([*requests, *requests], shard_size=4)
    assert batch.run() == 0
    answers = {answer.request_id: answer for answer in batch.answers}
    assert len(batch.answers) == len(answers) == 6
    plain, garbled, long, stubborn, endless, _ = (answers[request.id] for request in requests)
    assert isinstance(plain, Completion) and plain.usage.calls == 1 and plain.usage.cached_prompt_tokens == 16
    assert isinstance(garbled, Completion) and garbled.attempts == 2 and garbled.usage.completion_tokens == 10
    assert isinstance(long, Completion) and long.attempts == 3, "40, 80, 160 tokens"
    assert isinstance(stubborn, Failure) and (stubborn.reason, stubborn.attempts) == ("schema_violation", 5)
    assert isinstance(endless, Failure) and (endless.reason, endless.usage.calls) == ("bad_request", 0)
    assert CANARY not in stubborn.detail + endless.detail
    assert [tuple(line[2:]) for line in batch.lines if line[:2] == ["asked", 2]] == [
        (40, 0, 0.0), (80, 1, 0.5), (160, 2, 0.5),
    ]  # fmt: skip
    metadata = batch.metadata
    assert (metadata["completions"], metadata["failures"]) == (4, 2)
    assert (metadata["failures_bad_request"], metadata["failures_schema_violation"]) == (1, 1)
    assert metadata["calls"] == sum(answer.usage.calls for answer in answers.values()) == 12
    assert metadata["prefix_cache_hit_share"] == pytest.approx(0.8)


def test_no_prompt_and_no_answer_lies_in_clear_on_disk(batch):
    """C27: what the job reads and writes is encrypted, also while it runs and in its log."""
    batch.write([request(number, "endless" if number == 7 else "plain") for number in range(10)])
    assert batch.run(kill_at=2) == -signal.SIGKILL
    half_way = [path for path in batch.folder.rglob("*") if path.is_file() and path != batch.log]
    assert any("answers" in path.parts for path in half_way)
    assert batch.run() == 0
    found = [path for path in batch.folder.rglob("*") if path.is_file() and path != batch.log]
    for path in {*half_way, *found}:
        content = path.read_bytes() if path.exists() else b""
        assert CANARY.encode() not in content and b"SUBJECT" not in content, path
    (shard, *_) = sorted((batch.inputs / "requests").glob("*.bin"))
    opened = batch_files.read_shard(shard, list[Request], KEY)
    assert CANARY in opened[0].messages[1].content, "the scan would have seen it"


def test_what_vllm_raises_and_logs_reaches_no_log(batch, tmp_path):
    """C27: the log's end goes into Dagster's event log: it names the error and its place, and holds no prompt."""
    batch.write([request(1, "fatal")])
    noisy = {"VLLM_LOGGING_LEVEL": "DEBUG", "VLLM_LOGGING_CONFIG_PATH": "/nowhere", "VLLM_CONFIGURE_LOGGING": "0"}
    assert batch.run(environment=ENVIRONMENT | noisy) == 1
    said = (batch.folder / "stderr").read_text()
    assert "ValueError at " in said and "wait_for_completion" in said
    assert CANARY not in said and "SUBJECT" not in said
    loaded = next(line for line in batch.lines if line[0] == "loaded")
    assert loaded[3] == ["1", "WARNING", None]


def test_without_its_key_the_job_fails_and_says_so(batch):
    batch.write([request(1)])
    assert batch.run(environment={}) == 1
    assert f"{batch_files.KEY_VARIABLE}: expected 128 hex digits" in (batch.folder / "stderr").read_text()


def test_unknown_settings_are_refused_and_text_from_a_resource_is_converted(batch):
    batch.write([request(1)], max_model_len="2048", enforce_eager="true")
    assert batch.run() == 0
    batch.write([request(1)], max_model_length="2048")
    assert batch.run() == 1
    assert "max_model_length" in (batch.folder / "stderr").read_text()


class Launcher:
    """A BatchModel whose job runs in a fresh process."""

    def __init__(self, folder, **settings):
        self.batch = Batch(folder / "work")
        self.batch.log = folder / "log"
        self.kill_at = 0
        self.launches = 0
        self.model = BatchModel(MODEL, self.launch, folder / "work", KEY, settings, shard_size=4)

    def launch(self, inputs, output, environment):
        self.launches += 1
        if code := self.batch.run(self.kill_at, environment):
            raise ChildProcessError(code)


def test_a_batch_model_answers_every_request_once_and_leaves_nothing(tmp_path):
    """C22: the batch job behind the one client protocol."""
    launcher = Launcher(tmp_path)
    requests = [request(number, "stubborn" if number == 5 else "plain") for number in range(10)]
    answers = list(launcher.model.complete(iter([*requests, requests[0]])))
    assert sorted(answer.request_id for answer in answers) == sorted(request.id for request in requests)
    assert sum(isinstance(answer, Failure) for answer in answers) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"log", "stderr"}, "the test's own"
    assert list(launcher.model.complete(iter([]))) == [] and launcher.launches == 1


def test_what_a_killed_run_left_is_handed_out_before_a_job_is_launched_for_the_rest(tmp_path):
    """C23: new requests beside the old ones do not cost the shards that a killed job finished."""
    launcher = Launcher(tmp_path)
    launcher.kill_at = 3
    with pytest.raises(ChildProcessError):
        list(launcher.model.complete([request(number) for number in range(12)]))
    assert sorted(launcher.batch.asked) == list(range(8))
    launcher.kill_at = 0
    wanted = [request(number) for number in range(2, 15)]
    answers = launcher.model.complete(wanted)
    left = {next(answers).request_id for _ in range(6)}
    assert left == {request.id for request in wanted[:6]} and launcher.launches == 1
    ids = [*left, *(answer.request_id for answer in answers)]
    assert sorted(ids) == sorted(request.id for request in wanted)
    assert sorted(launcher.batch.asked) == list(range(15)), "none was asked twice"


def test_answers_left_behind_under_other_settings_are_not_used(tmp_path):
    launcher = Launcher(tmp_path, seed=1)
    launcher.kill_at = 2
    with pytest.raises(ChildProcessError):
        list(launcher.model.complete([request(number) for number in range(8)]))
    other = Launcher(tmp_path, seed=2)
    assert len(list(other.model.complete([request(number) for number in range(8)]))) == 8
    assert sorted(other.batch.asked) == sorted([*range(4), *range(8)])


def test_two_runs_do_not_share_a_folder(tmp_path):
    first, second = Launcher(tmp_path), Launcher(tmp_path)
    answers = first.model.complete([request(1), request(2)])
    next(answers)
    with pytest.raises(RuntimeError, match="another run is at work here"):
        next(second.model.complete([request(3)]))
    assert len(list(answers)) == 1
