"""A real vLLM on the CPU, serving a tiny random Qwen3. Run by `make test-vllm`; skipped where there is no vLLM."""

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from user_embeddings_dagster.settings import prepare_environment

HERE = Path(__file__).parent
NAME = "tiny-qwen3"
START_SECONDS = 300
# What vLLM needs on a CPU that other processes share: 1 GiB of key-value cache, threads that are bound to no core.
ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}


def pytest_collection_modifyitems(items):
    if importlib.util.find_spec("vllm") is None:
        for item in items:
            if item.path.is_relative_to(HERE):
                item.add_marker(pytest.mark.skip(reason="no vLLM in this environment: make test-vllm"))


FIGURES = pytest.StashKey[dict]()


@pytest.fixture(scope="session")
def figures(request):
    """What the tests measure, by name; printed at the end of the run."""
    return request.config.stash.setdefault(FIGURES, {})


def pytest_terminal_summary(terminalreporter, config):
    if measured := config.stash.get(FIGURES, None):
        terminalreporter.section("vLLM on this machine")
        for name, value in measured.items():
            terminalreporter.line(f"{name}: {value}")


def _load(name):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session", autouse=True)
def environment():
    """For this process and those it starts: no telemetry, no download, vLLM's settings for a CPU."""
    prepare_environment()
    for name, value in ON_CPU.items():
        os.environ.setdefault(name, value)


@pytest.fixture(scope="session")
def samples():
    """Requests with a shared instruction."""
    return _load("samples")


@pytest.fixture(scope="session")
def tiny_qwen3(tmp_path_factory):
    """Folder of a random two-layer Qwen3 with its own tokenizer."""
    return _load("tiny_qwen3").make(tmp_path_factory.mktemp("model") / NAME)


class Server:
    """vLLM's API server as a process group of its own, on a loopback port that it keeps when it is started again."""

    def __init__(self, model, log):
        self.log = log
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._command = [
            sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
            "--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(self.port), "--dtype", "float32",
            "--enforce-eager", "--max-model-len", "8192", "--enable-prompt-tokens-details",
            "--generation-config", "vllm",
            "--structured-outputs-config", '{"backend": "xgrammar", "disable_any_whitespace": true}',
        ]  # fmt: skip
        self.process = None

    def start(self):
        """Start and wait until it answers; returns the seconds that took."""
        started = time.monotonic()
        with self.log.open("ab") as stream:
            self.process = subprocess.Popen(self._command, stdout=stream, stderr=stream, start_new_session=True)
        while not self._ready():
            assert self.process.poll() is None, f"the server ended:\n{self.log.read_text()[-4000:]}"
            assert time.monotonic() - started < START_SECONDS, f"not ready:\n{self.log.read_text()[-4000:]}"
            time.sleep(0.5)
        return time.monotonic() - started

    def _ready(self):
        try:
            return self._get("/health") is not None
        except OSError:
            return False

    def _get(self, path):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as response:
            return response.read().decode()

    def counter(self, name):
        """Sum of one of its Prometheus counters."""
        found = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", self._get("/metrics"), re.MULTILINE)
        assert found, f"no metric {name}"
        return sum(map(float, found))

    @property
    def resident_bytes(self):
        """Of the server and its engine together."""
        parent = psutil.Process(self.process.pid)
        return sum(process.memory_info().rss for process in (parent, *parent.children(recursive=True)))

    def kill(self):
        """kill -9 of the whole group: the engine outlives a killed server (vLLM issue 55510)."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def server(tiny_qwen3, tmp_path_factory, figures):
    """A running server; a test that kills it starts it again."""
    server = Server(tiny_qwen3, tmp_path_factory.mktemp("server") / "vllm.log")
    try:
        figures["server: seconds until ready"] = round(server.start(), 1)
        figures["server: GB resident, with its engine and worker"] = round(server.resident_bytes / 1e9, 2)
        yield server
    finally:
        server.kill()
