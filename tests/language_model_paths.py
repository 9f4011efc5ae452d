"""One asset that asks a language model, in a process of its own, over chunks with canaries, failing on the way.

    python -P tests/language_model_paths.py PATH FOLDER

Writes below FOLDER alone, last FOLDER/told.json. The model (benchmarks.fault_server) repeats all that it is asked: at
first it refuses the key half-way, and what lies below FOLDER then is copied to FOLDER/failed; then a fifth of its
answers are faulty, or, where few are asked for, each prompt meets every fault before it is answered. The engine of the
batch job (ENGINE) dies at its first answers, then goes wrong in the same spirit.
"""

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import dagster as dg
import fakeredis
import msgspec
import polars as pl
import redis

sys.path.insert(0, str(Path(__file__).parent / "support"))

from granting import grant

from assets.chunk_summaries import chunk_summaries
from assets.koais import koais
from assets.partitions import DATADAO
from assets.relabelled_pairs import relabelled_pairs
from assets.summary_program import summary_program
from benchmarks.fault_server import MODEL, FaultServer
from resources.language_model import LANGUAGE_MODEL, LanguageModelResource
from resources.store import Store
from resources.training_jobs import TrainingJobs
from user_embeddings_dagster.evaluation.splits import split_of
from user_embeddings_dagster.language_models.protocol import Answer, Completion, LanguageModel, Request
from user_embeddings_dagster.schema import CHUNK_SUMMARIES, MASKED_CHUNKS, MESSAGES, TRAINING_SNAPSHOT
from user_embeddings_dagster.settings import prepare_environment
from user_embeddings_dagster.storage.lake import UNPARTITIONED
from user_embeddings_dagster.summaries.build import extractive_summaries

CHUNKS = 10
CANARIES = [f"{fruit}-{i:04d}" for i in range(CHUNKS) for fruit in ("Zwetschgenkuchen", "Mirabellentorte")]
KEY = "sk-Kirschwasser-0815"
FAULTS = "http_500", "malformed_json", "schema_violation", "truncated", "cut"
GOOD = "In one plain sentence say what SUBJECT likes to do, in the third person."


@dg.asset
def planted(context: dg.AssetExecutionContext, store: Store) -> None:
    """Three leaks, the control of the scan: one chunk in a log, one printed, one in an error."""
    first, second, third, *_ = store.lake.read("masked_chunks", "dao")["text"]
    context.log.info(first)
    print(second)
    raise ValueError(third)


# Asset, its partition, its configuration, after how many requests the server refuses the key, where answers are cached.
PATHS: dict[str, tuple[Any, str | None, dict[str, Any], int, str]] = {
    "koais": (koais, "dao", {"max_failed_share": 1.0}, 2, "lmdb"),
    "summary_program": (summary_program, None, {"max_calls": 120, "examples": 10, "chunks_per_user": 1}, 12, "redis"),
    "relabelled_pairs": (
        relabelled_pairs, None, {"ranker": LANGUAGE_MODEL, "candidates": 2, "negative_rank": 2}, 2, "sqlite",
    ),
    "chunk_summaries": (chunk_summaries, "dao", {"max_failed_share": 1.0}, 0, "sqlite"),  # by the batch job
    "planted": (planted, None, {}, 0, "sqlite"),
}  # fmt: skip

ENGINE = """
import json, types
from pathlib import Path
from vllm.exceptions import VLLMClientError

SamplingParams = types.SimpleNamespace

class LLM:
    def __init__(self, **options):
        self.waiting, self.asked = [], 0

    def enqueue_chat(self, conversations, sampling, use_tqdm, chat_template_kwargs):
        prompt = " ".join(message["content"] for message in conversations[0])
        self.asked += 1
        if self.asked % 5 == 0:
            raise VLLMClientError("too long: " + prompt)
        self.waiting.append(prompt)

    def wait_for_completion(self, use_tqdm):
        if not Path("died").exists():
            Path("died").touch()
            raise RuntimeError(f"died of {self.waiting}")
        replies = []
        for place, prompt in enumerate(self.waiting):
            text = json.dumps({"summary": prompt[-2_000:]})
            output = types.SimpleNamespace(text=text[place % 2 :], finish_reason="stop", token_ids=[1])
            replies.append(types.SimpleNamespace(outputs=[output], prompt_token_ids=[1, 2], num_cached_tokens=1))
        self.waiting = []
        return replies
"""


class Careless:
    """A model whose proposed instructions are in a wrong field, too long (twice), GOOD with a quotation, then GOOD."""

    def __init__(self, model: LanguageModel) -> None:
        self._model, self._kinds = model, iter(("wrong field", "too long", "too long", "quotation"))
        self.name = model.name

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        asked = {request.id: request for request in requests}
        for answer in self._model.complete(asked.values()):
            value = self._value(asked[answer.request_id]) if isinstance(answer, Completion) else None
            yield answer if value is None else msgspec.structs.replace(answer, value=value)

    def _value(self, request: Request) -> Any:
        prompt = "\n".join(message.content for message in request.messages)
        if not request.program.startswith("propose_instruction"):
            return {"summary": "SUBJECT likes to bake with cream."} if GOOD in prompt else None
        ((field, _),) = request.schema["properties"].items()
        kind = next(self._kinds, "good")
        quotation = prompt[prompt.index("I love to bake") :][:60]
        return {
            "wrong field": {"thought": prompt},
            "too long": {field: prompt * 3},
            "quotation": {field: f"{GOOD} Write as here: {quotation}"},
            "good": {field: GOOD},
        }[kind]


class CarelessModel(LanguageModelResource):
    """The server's model behind `Careless`."""

    def _asked(self, *arguments: Any) -> LanguageModel:
        return Careless(super()._asked(*arguments))


class KeepingJobs(TrainingJobs):
    """Keeps what a job that failed leaves, since the next try goes on from it."""

    folder: str

    def run(self, *arguments: Any, **named: Any) -> dg.MaterializeResult:
        try:
            return super().run(*arguments, **named)
        except dg.Failure:
            keep(Path(self.folder))
            raise


def keep(folder: Path) -> None:
    """Copy everything to FOLDER/failed."""
    shutil.copytree(folder, folder / "failed", ignore=shutil.ignore_patterns("failed"))


def chunks(key: bytes) -> pl.DataFrame:
    """One chunk of each of CHUNKS training users, two canaries in each."""
    at, rows = datetime(2024, 1, 1, tzinfo=UTC), []
    users = (user for user in map("user{}".format, count()) if split_of(user, key) == "train")
    for i, user in zip(range(CHUNKS), users, strict=False):
        mine, theirs = CANARIES[2 * i : 2 * i + 2]
        turns = [f"My sister and I made {theirs}, and you?", f"I love to bake {mine} with cream every {i} days."]
        rows.append({
            "chunk_id": f"{i:032x}", "datadao": "dao", "user_id": user, "thread_id": "t", "window_id": f"w{i}",
            "started_at": at, "ended_at": at, "speakers": ["<P1>", "SUBJECT"], "turns": turns,
            "text": "\n".join(turns), "message_ids": [f"a{i}", f"b{i}"], "n_subject_turns": 1, "n_tokens": 20,
            "n_masked": 0, "context_free": False, "community": None,
        })  # fmt: skip
    return MASKED_CHUNKS.conform(pl.DataFrame(rows, MASKED_CHUNKS.schema))


def fill(store: Store, relabelling: bool) -> None:
    """The tables that the assets read; those of `relabelled_pairs` alone, with vectors, only if asked for."""
    store.layout.key.parent.mkdir(parents=True)
    store.layout.key.write_text("07" * 32)  # always the same users, and so the same prompts and faults
    rows = chunks(store.key)
    store.lake.commit(MASKED_CHUNKS, rows, "dao")
    grant(store.lake, "dao", rows["user_id"])
    store.lake.commit(MESSAGES, MESSAGES.empty(), "dao")
    if relabelling:
        store.lake.commit(CHUNK_SUMMARIES, extractive_summaries(rows).frame(CHUNK_SUMMARIES), "dao")
        snapshot = rows.with_columns(split=pl.lit("train"), position=pl.lit(0))
        store.lake.commit(TRAINING_SNAPSHOT, TRAINING_SNAPSHOT.conform(snapshot), UNPARTITIONED)
        unit = pl.Series([[float(i == j) for j in range(CHUNKS)] for i in range(CHUNKS)], dtype=pl.List(pl.Float32))
        for table in ("chunk_embeddings", "summary_embeddings"):
            store.lance.upsert("dao", table, rows.select(id="chunk_id", version=pl.lit("v"), vector=unit))


def stand_in(folder: Path) -> None:
    """A package `vllm` before any other, here and for the jobs that this process starts."""
    package = folder / "packages" / "vllm"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(ENGINE)
    (package / "exceptions.py").write_text("class VLLMClientError(Exception): pass\n")
    (package / "sampling_params.py").write_text("from types import SimpleNamespace as StructuredOutputsParams\n")
    sys.path.insert(0, str(package.parent))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(package.parent), os.environ["PYTHONPATH"]])


def main(path: str, place: str) -> None:
    """Raises AssertionError unless the asset fails first, as it should, and then succeeds."""
    prepare_environment()
    folder = Path(place)
    asset, partition, config, refuse_after, cache = PATHS[path]
    store = Store(data=str(folder / "data"))
    fill(store, relabelling=path == "relabelled_pairs")
    stand_in(folder)
    os.environ["USER_EMBEDDINGS_LANGUAGE_MODEL_KEY"] = KEY
    url = f"{cache}://{folder}/data/cache/answers"
    instance = dg.DagsterInstance.get()
    instance.add_dynamic_partitions(DATADAO, ["dao"])
    with ExitStack() as stack:
        if cache == "redis":
            memory = fakeredis.TcpFakeServer(("127.0.0.1", 0))
            threading.Thread(target=memory.serve_forever, daemon=True).start()
            url = f"redis://127.0.0.1:{memory.server_address[1]}/0"
        os.environ["USER_EMBEDDINGS_LANGUAGE_MODEL_CACHE"] = url
        settings = json.dumps({"max_attempts": 2, "model": "scripted@" + 40 * "0"})
        model = LanguageModelResource(kind="vllm_batch", name=MODEL, batch=settings)
        if refuse_after:
            server = stack.enter_context(FaultServer())
            kind = CarelessModel if path == "summary_program" else LanguageModelResource
            model = kind(
                kind="openai_compatible", name=MODEL, base_url=server.url, concurrency=2, timeout_seconds=5,
                patience_seconds=9, max_attempts=len(FAULTS) + 1,
            )  # fmt: skip
        resources = {"store": store, "language_model": model, "training_jobs": KeepingJobs(folder=place)}

        def materialise() -> dg.ExecuteInProcessResult:
            return dg.materialize(
                [asset], instance=instance, partition_key=partition, resources=resources, raise_on_error=False,
                run_config={"ops": {path: {"config": config}}} if config else {},
            )  # fmt: skip

        told: dict[str, Any] = {}
        if refuse_after:
            server.behave(mode="echo", refuse_after=refuse_after)
            assert not materialise().success
            told["refused"] = server.stats().outcomes["refused"]
            keep(folder)
            mixed = {"faults": dict.fromkeys(FAULTS, 0.2 / len(FAULTS))}
            server.behave(mode="echo", **mixed if path == "summary_program" else {"script": FAULTS})
        result = materialise()
        assert result.success == (path != "planted")
        if refuse_after:
            told["outcomes"] = server.stats().outcomes
        if cache == "redis":
            client = redis.Redis.from_url(url)
            (folder / "redis").write_bytes(b"".join(key + client.get(key) for key in client.scan_iter()))
    for event in result.get_asset_materialization_events()[:1]:
        values = {name: value.value for name, value in event.materialization.metadata.items()}
        told["metadata"] = {name: value for name, value in values.items() if isinstance(value, bool | int | float)}
    (folder / "told.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
