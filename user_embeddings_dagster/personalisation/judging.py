"""A judge of one process, asked by a job in another: the job has neither the endpoint's key nor the cache's.

A Unix socket in a folder of its own, both sides proving a key of one use (multiprocessing.connection, HMAC), JSON on
it. The job finds both in its environment.
"""

import json
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread

import numpy as np

from user_embeddings_dagster.personalisation.judges import ByScore, Judge, Judged, JudgeFailed

ADDRESS, KEY = "USER_EMBEDDINGS_JUDGE_ADDRESS", "USER_EMBEDDINGS_JUDGE_KEY"


@contextmanager
def serving(judge: Judge) -> Iterator[dict[str, str]]:
    """Within, who has the environment variables that it yields can ask `judge`.

    What the judge raises reaches who asked as JudgeFailed, and is raised here in the place of what that led to.
    """
    key = secrets.token_bytes(32)
    with TemporaryDirectory(prefix="judge-") as folder:
        address = str(Path(folder) / "socket")
        with Listener(address, "AF_UNIX", authkey=key) as listener:
            asked = _Asked(listener, judge)
            thread = Thread(target=asked.answer_all, name="judge", daemon=True)
            thread.start()
            try:
                yield {ADDRESS: address, KEY: key.hex()}
            except Exception:
                if asked.error is not None:
                    raise asked.error from None
                raise
            finally:
                asked.leave(address)
                thread.join()


@dataclass
class _Asked:
    """The serving side; one connection after the other."""

    listener: Listener
    judge: Judge
    error: Exception | None = None
    left: Event = field(default_factory=Event)

    def answer_all(self) -> None:
        """Until `leave`. Who does not know the key, or breaks off, is passed over."""
        while not self.left.is_set():
            try:
                with self.listener.accept() as connection:
                    while True:
                        connection.send_bytes(self._answer(connection.recv_bytes()))
            except (EOFError, OSError, AuthenticationError):
                continue

    def _answer(self, question: bytes) -> bytes:
        asked = json.loads(question)
        if asked is None:
            return json.dumps({"name": self.judge.name}).encode()
        try:
            found = self.judge.scores([Judged(**(each | {"options": tuple(each["options"])})) for each in asked])
        except Exception as error:  # noqa: BLE001 - raised by `serving`, in the thread that can handle it
            self.error = error
            return json.dumps({"failed": type(error).__name__}).encode()
        return json.dumps({"scores": found.tolist()}).encode()

    def leave(self, address: str) -> None:
        """Wake `accept` for the last time."""
        self.left.set()
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(address)


class AskedJudge(ByScore):
    """The judge that another process serves. Raises ValueError where none is served; `scores` raises JudgeFailed."""

    def __init__(self) -> None:
        if not (os.environ.get(ADDRESS) and os.environ.get(KEY)):
            raise ValueError(f"no language model judges this job: {ADDRESS} and {KEY} are not set")
        self._connection: Connection = Client(os.environ[ADDRESS], "AF_UNIX", bytes.fromhex(os.environ[KEY]))
        self.name: str = self._ask(None)["name"]

    def scores(self, answers: Sequence[Judged]) -> np.ndarray:
        """As of Judge. Raises JudgeFailed."""
        found = self._ask([asdict(each) for each in answers])
        if "failed" in found:
            raise JudgeFailed(f"{self.name}: {found['failed']}")
        return np.array(found["scores"], dtype=np.float64)

    def _ask(self, question: list[dict] | None) -> dict:
        self._connection.send_bytes(json.dumps(question).encode())
        return json.loads(self._connection.recv_bytes())
