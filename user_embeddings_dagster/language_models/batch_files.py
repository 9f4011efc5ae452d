"""Requests and answers as files: how a batch job on another interpreter or machine is asked and heard.

    <inputs>/config.json            settings of the job
    <inputs>/requests/00000.bin     a shard of requests, in the order in which they are asked
    <output>/answers/00000.bin      their answers, under the same name

Requests hold contributors' (masked) text, so every shard is encrypted: msgpack, zstandard, AES-SIV (RFC 5297),
bound to its place. AES-SIV needs no nonce, and so the same requests make the same bytes: a job that is started
again finds the inputs that it knows. The key travels in the environment, never in a file.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from user_embeddings_dagster.language_models.protocol import Answer, Completion, Failure, Request
from user_embeddings_dagster.storage.durability import make_folder, sync, write_json, writing
from user_embeddings_dagster.storage.manifest import verify

KEY_VARIABLE = "USER_EMBEDDINGS_BATCH_KEY"
KEY_BYTES = 64  # AES-256-SIV: one half authenticates, one encrypts
SHARD_SIZE = 512  # requests; what a killed job loses at most
REQUESTS, ANSWERS = "requests", "answers"

T = TypeVar("T")


class UnreadableBatch(Exception):
    """A shard is damaged, in another's place, or encrypted with another key. Names the file and no content."""


class Answers(msgspec.Struct, frozen=True):
    """The answers of one shard, each in the order of its requests; `seconds` that asking took."""

    completions: list[Completion]
    failures: list[Failure]
    seconds: float

    def __iter__(self) -> Iterator[Answer]:
        yield from self.completions
        yield from self.failures


def batch_key(secret: bytes) -> bytes:
    """The key of batch files (64 bytes), derived from the platform's secret by HKDF-SHA-256 (RFC 5869)."""
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"user_embeddings batch files").derive(secret)


def key_from_environment() -> bytes:
    """The key in USER_EMBEDDINGS_BATCH_KEY. Raises ValueError unless that is 128 hex digits."""
    text = os.environ.get(KEY_VARIABLE, "")
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ValueError(f"{KEY_VARIABLE}: expected {KEY_BYTES * 2} hex digits, as the inputs were written with")
    return key


def write_shard(path: Path, shard: Answers | list[Request], key: bytes) -> None:
    """Encrypt a shard to `path`, which so is absent or whole: temporary file, fsync, rename."""
    content = zstandard.compress(msgspec.msgpack.encode(shard))
    with writing("batch shard", path):
        make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_bytes(AESSIV(key).encrypt(content, [_place(path)]))
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)


def read_shard(path: Path, kind: type[T], key: bytes) -> T:
    """The shard at `path`. Raises UnreadableBatch."""
    try:
        content = AESSIV(key).decrypt(path.read_bytes(), [_place(path)])
    except (InvalidTag, ValueError):
        raise UnreadableBatch(f"{path}: damaged, or encrypted with another key") from None
    return msgspec.msgpack.decode(zstandard.decompress(content), type=kind)


def _place(path: Path) -> bytes:
    return f"{path.parent.name}/{path.name}".encode()


def write_requests(
    inputs: Path, requests: Iterable[Request], config: Mapping[str, Any], key: bytes, shard_size: int = SHARD_SIZE
) -> int:
    """Make the inputs folder of a batch job; returns the number of distinct requests.

    `inputs` is replaced as a whole. Reads `requests` as it goes and holds one shard of them, and every id.
    """
    temporary = inputs.with_name(f".{inputs.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    write_json(temporary / "config.json", dict(config))
    seen: set[str] = set()
    shard: list[Request] = []
    shards = 0
    for request in requests:
        if request.id in seen:
            continue
        seen.add(request.id)
        shard.append(request)
        if len(shard) == shard_size:
            write_shard(temporary / REQUESTS / f"{shards:05d}.bin", shard, key)
            shards, shard = shards + 1, []
    if shard:
        write_shard(temporary / REQUESTS / f"{shards:05d}.bin", shard, key)
    shutil.rmtree(inputs, ignore_errors=True)
    temporary.rename(inputs)
    return len(seen)


def read_answers(output: Path, key: bytes) -> Iterator[Answer]:
    """Every answer below a job's output, shard by shard. Raises CorruptArtifact, UnreadableBatch."""
    verify(output)
    for path in sorted((output / ANSWERS).glob("*.bin")):
        yield from read_shard(path, Answers, key)


class BatchModel:
    """A LanguageModel that asks all its requests at once, of a job that `launch(inputs, output, environment)` runs.

    `launch` returns when the job has finished and raises when it failed; `environment` holds the key. `settings` go
    to the job beside the model's name (its path, as `model`, where that is another). Works in `folder`, which it
    alone may use and which is gone when every answer has been taken. What a killed run left there is handed out
    first, before a job is launched for the rest: who stores answers as they come pays for none twice.
    """

    def __init__(
        self,
        name: str,
        launch: Callable[[Path, Path, Mapping[str, str]], None],
        folder: Path,
        key: bytes,
        settings: Mapping[str, Any] | None = None,
        shard_size: int = SHARD_SIZE,
    ) -> None:
        self.name = name
        self._launch, self._key, self._shard_size = launch, key, shard_size
        self.folder = Path(folder)
        self._config = {"model": name, **(settings or {})}

    def complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        """One answer for each distinct request. Raises what `launch` raises, RuntimeError on a folder in use."""
        with _alone(self.folder):
            self._forget_other_settings()
            yield from self._complete(requests)
            shutil.rmtree(self.folder)

    def _complete(self, requests: Iterable[Request]) -> Iterator[Answer]:
        inputs, output = self.folder / "inputs", self.folder / "output"
        earlier = {answer.request_id for answer in self._left_behind()}
        known: set[str] = set()
        asked: set[str] = set()

        def rest() -> Iterator[Request]:
            for request in requests:
                (known if request.id in earlier else asked).add(request.id)
                if request.id not in earlier:
                    yield request

        write_requests(inputs, rest(), self._config, self._key, self._shard_size)
        for answer in self._left_behind():
            if answer.request_id in known:
                known.remove(answer.request_id)
                yield answer
        if not asked:
            return
        self._launch(inputs, output, {KEY_VARIABLE: self._key.hex()})
        for answer in read_answers(output, self._key):
            asked.remove(answer.request_id)
            yield answer
        if asked:
            raise RuntimeError(f"{output}: {len(asked)} requests without an answer")

    def _left_behind(self) -> Iterator[Completion]:
        """Completions that an earlier run made and nobody took; failures are asked again."""
        for path in sorted(self.folder.rglob(f"{ANSWERS}/*.bin")):
            try:
                yield from read_shard(path, Answers, self._key).completions
            except UnreadableBatch:
                path.unlink()

    def _forget_other_settings(self) -> None:
        """Answers of another model or other settings are not ours."""
        path = self.folder / "config.json"
        config = json.loads(json.dumps(self._config))
        if path.exists() and json.loads(path.read_bytes()) != config:
            for old in (self.folder / name for name in ("inputs", "output", "output.work")):
                shutil.rmtree(old, ignore_errors=True)
        write_json(path, config)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold `folder` alone. Raises RuntimeError if another process does.

    The lock is on the folder itself, so that nothing stays when it is removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat())
        except BlockingIOError:
            alone = False
        if not alone:  # held, or removed by the one that held it
            raise RuntimeError(f"{folder}: another run is at work here")
        yield
    finally:
        os.close(descriptor)
