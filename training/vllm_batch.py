"""Answer a batch of requests with `vllm.LLM`, shard by shard.

    USER_EMBEDDINGS_BATCH_KEY=… python -P -m training.vllm_batch --inputs DIR --output DIR

Inputs: `config.json` (Settings) and `requests/*.bin`; output: `answers/*.bin` (language_models/batch_files.py). The
model is loaded once, with prefix caching and grammar-constrained JSON; shards are asked in order, each answered
shard is a whole file, and a job that is killed goes on after the last of them. An answer that is not what its schema
asks for is thrown away and asked for again; what stays without one is listed as a failure. Every request id has
one answer in the output.
"""

import hashlib
import logging
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from training.job import Job, run
from training.versions import VLLM_BATCH
from user_embeddings_dagster.language_models import batch_files
from user_embeddings_dagster.language_models.batch_files import Answers
from user_embeddings_dagster.language_models.protocol import Answer, Completion, Failure, Request, Usage
from user_embeddings_dagster.language_models.validation import InvalidAnswer, parse, varied
from user_embeddings_dagster.storage.manifest import pinned

# One process: scheduling is deterministic, and no engine outlives a job that is killed (vLLM issue 55510).
ENVIRONMENT = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
# At DEBUG and INFO vLLM may log what it is asked, and the log's end goes into Dagster's event log: whatever the
# operator has set, and in vLLM's worker processes too.
LOGGING = {"VLLM_CONFIGURE_LOGGING": "1", "VLLM_LOGGING_LEVEL": "WARNING"}
LOGGING_FILE = "VLLM_LOGGING_CONFIG_PATH"
# Without it a model may pad its JSON with white space up to max_tokens.
STRUCTURED_OUTPUTS = {"backend": "xgrammar", "disable_any_whitespace": True}


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`config.json`: the model (a folder, or name@commit in the local Hugging Face cache), how vLLM runs it, retries.

    An answer that is invalid is asked for at most `max_attempts` times in all. `chat_template_kwargs` go to
    the chat template, such as {"enable_thinking": false} for Qwen3.
    """

    model: str
    dtype: str = "auto"
    max_model_len: int | None = None
    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int = 1
    enforce_eager: bool = False
    seed: int = 0
    max_attempts: int = 5
    chat_template_kwargs: dict[str, Any] = {}
    threads: int = 0


class Engine:
    """`vllm.LLM`, asked in requests of the protocol."""

    def __init__(self, settings: Settings) -> None:
        os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()} | LOGGING)
        os.environ.pop(LOGGING_FILE, None)
        # Not in the environment of the type checker.
        import vllm  # pyright: ignore[reportMissingImports]
        from vllm.exceptions import VLLMClientError  # pyright: ignore[reportMissingImports]
        from vllm.sampling_params import StructuredOutputsParams  # pyright: ignore[reportMissingImports]

        self.settings = settings
        self._refusals = VLLMClientError, ValueError
        self._sampling_params, self._structured = vllm.SamplingParams, StructuredOutputsParams
        name, commit = pinned(settings.model)
        self._llm = vllm.LLM(
            model=name,
            revision=commit,
            tokenizer_revision=commit,
            trust_remote_code=False,
            load_format="safetensors",
            dtype=settings.dtype,
            max_model_len=settings.max_model_len,
            gpu_memory_utilization=settings.gpu_memory_utilization,
            tensor_parallel_size=settings.tensor_parallel_size,
            enforce_eager=settings.enforce_eager,
            seed=settings.seed,
            enable_prefix_caching=True,
            structured_outputs_config=STRUCTURED_OUTPUTS,
        )
        # Its warnings about single requests quote templates' errors and tokens; until here there was none to quote.
        logging.getLogger("vllm").setLevel(logging.CRITICAL)

    def answers(self, requests: list[Request]) -> Iterator[Answer]:
        """An answer for each request (their ids distinct), in any order."""
        spent = dict.fromkeys((request.id for request in requests), Usage())
        waiting = [(request, request) for request in requests]  # with what it was, what is asked now
        attempt = 0
        while waiting:
            attempt += 1
            again: list[tuple[Request, Request]] = []
            for (request, asked), reply in self._ask(waiting):
                try:
                    if isinstance(reply, InvalidAnswer):
                        raise reply
                    usage = spent[request.id] = spent[request.id] + _usage(reply)
                    text = reply.outputs[0]
                    value = parse(text.text, request.schema, text.finish_reason)
                except InvalidAnswer as error:
                    if error.reason == "bad_request" or attempt == self.settings.max_attempts:
                        yield Failure(request.id, error.reason, error.detail, spent[request.id], attempt)
                    else:
                        again.append((request, varied(asked, error)))
                else:
                    yield Completion(request.id, value, usage, attempt)
            waiting = again

    def _ask(self, waiting: list[tuple[Request, Request]]) -> list[tuple[tuple[Request, Request], Any]]:
        """Each with vLLM's RequestOutput, or the reason why vLLM refuses it (too long, a bad schema)."""
        queued: list[tuple[Request, Request]] = []
        refused: list[tuple[tuple[Request, Request], Any]] = []
        for pair in waiting:
            try:
                self._llm.enqueue_chat(
                    [[{"role": m.role, "content": m.content} for m in pair[1].messages]],
                    self._sampling(pair[1]),
                    use_tqdm=False,
                    chat_template_kwargs=self.settings.chat_template_kwargs,
                )
            except self._refusals as error:  # its message may quote the prompt
                refused.append((pair, InvalidAnswer("bad_request", f"vLLM raised {type(error).__name__}")))
            else:
                queued.append(pair)
        return refused + list(zip(queued, self._llm.wait_for_completion(use_tqdm=False), strict=True))

    def _sampling(self, request: Request) -> Any:
        return self._sampling_params(
            temperature=request.temperature,
            seed=request.seed,
            max_tokens=request.max_tokens,
            structured_outputs=self._structured(json=request.schema),
        )


def _usage(reply: Any) -> Usage:
    return Usage(
        calls=1,
        prompt_tokens=len(reply.prompt_token_ids),
        cached_prompt_tokens=reply.num_cached_tokens or 0,
        completion_tokens=len(reply.outputs[0].token_ids),
    )


class Totals:
    """What the metadata say of all shards."""

    def __init__(self) -> None:
        self.usage = Usage()
        self.seconds = 0.0
        self.ids: set[str] = set()
        self._failures: Counter[str] = Counter()
        self._digests: list[bytes] = []

    def add(self, answers: Answers) -> None:
        """Count a shard. Raises ValueError on an id that was answered before."""
        self.seconds += answers.seconds
        for answer in answers:
            if answer.request_id in self.ids:
                raise ValueError(f"request {answer.request_id} was answered twice")
            self.ids.add(answer.request_id)
            self.usage += answer.usage
            said = answer.value if isinstance(answer, Completion) else answer.reason
            if isinstance(answer, Failure):
                self._failures[answer.reason] += 1
            content = msgspec.json.encode([answer.request_id, said], order="deterministic")
            self._digests.append(hashlib.sha256(content).digest())

    @property
    def data_version(self) -> str:
        """SHA-256 over every id with its value or its reason, whatever the order."""
        return hashlib.sha256(b"".join(sorted(self._digests))).hexdigest()

    @property
    def metadata(self) -> dict[str, Any]:
        """Figures for the report."""
        failed = self._failures.total()
        return {
            "requests": len(self.ids),
            "completions": len(self.ids) - failed,
            "failures": failed,
            **{f"failures_{reason}": count for reason, count in sorted(self._failures.items())},
            "calls": self.usage.calls,
            "prompt_tokens": self.usage.prompt_tokens,
            "cached_prompt_tokens": self.usage.cached_prompt_tokens,
            "prefix_cache_hit_share": self.usage.cached_prompt_tokens / max(self.usage.prompt_tokens, 1),
            "completion_tokens": self.usage.completion_tokens,
            "generation_seconds": self.seconds,
            "tokens_per_second": self.usage.completion_tokens / max(self.seconds, 1e-9),
        }


def answer_batch(job: Job) -> None:
    """Answer every shard of the inputs that has no answers yet."""
    try:
        settings = msgspec.convert(job.config, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(f"config.json: {error}") from None
    key = batch_files.key_from_environment()
    shards = sorted((job.inputs / batch_files.REQUESTS).glob("*.bin"))
    resumed = job.resume()
    done = resumed.step if resumed else 0
    engine: Engine | None = None
    totals = Totals()
    for step, shard in enumerate(shards, 1):
        path = job.work / batch_files.ANSWERS / shard.name
        answers = _answered(job, path, key)
        if answers is None:
            if engine is None:
                started = time.monotonic()
                engine = Engine(settings)
                job.log(f"model loaded in {time.monotonic() - started:.0f} s")
            requests = batch_files.read_shard(shard, list[Request], key)
            answers = _answers(engine, [request for request in requests if request.id not in totals.ids])
            batch_files.write_shard(path, answers, key)
        totals.add(answers)
        if step > done:
            tokens = sum(answer.usage.completion_tokens for answer in answers)
            job.step(
                step, len(shards), dict,
                requests=float(len(totals.ids)), failures=float(len(answers.failures)),
                tokens_per_second=tokens / max(answers.seconds, 1e-9),
            )  # fmt: skip
    _finish(job, totals)


def _answered(job: Job, path: Path, key: bytes) -> Answers | None:
    """The shard's answers of a run that this one resumes, or None."""
    try:
        return batch_files.read_shard(path, Answers, key)
    except FileNotFoundError:
        return None
    except batch_files.UnreadableBatch:
        job.log(f"{path.name} is damaged: its requests are asked again")
        return None


def _answers(engine: Engine, requests: list[Request]) -> Answers:
    """The answers to a shard, in the order of its requests."""
    distinct = {request.id: request for request in requests}
    started = time.monotonic()
    answers = {answer.request_id: answer for answer in engine.answers(list(distinct.values()))}
    seconds = time.monotonic() - started
    ordered = [answers[request_id] for request_id in distinct]
    return Answers(
        [answer for answer in ordered if isinstance(answer, Completion)],
        [answer for answer in ordered if isinstance(answer, Failure)],
        seconds,
    )


def _finish(job: Job, totals: Totals) -> None:
    import torch

    # Links: killed before the result is delivered, the job starts again with an empty `result`.
    target = job.result / batch_files.ANSWERS
    target.mkdir()
    for path in sorted((job.work / batch_files.ANSWERS).glob("*.bin")):
        os.link(path, target / path.name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    job.finish({"model": job.config["model"], **totals.metadata}, totals.data_version, device)


if __name__ == "__main__":
    raise SystemExit(run("vllm_batch", answer_batch, VLLM_BATCH))
