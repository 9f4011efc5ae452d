"""Shards of requests and answers: encrypted, deterministic, bound to their place (the job: tests/training)."""

import pytest

from user_embeddings_dagster.keys import file_sha256
from user_embeddings_dagster.language_models import batch_files
from user_embeddings_dagster.language_models.batch_files import Answers, UnreadableBatch, batch_key
from user_embeddings_dagster.language_models.protocol import Completion, Failure, Message, Request, Usage

KEY = batch_key(b"platform secret of the test")


def request(number):
    return Request((Message("user", f"zebra {number}"),), {"type": "object"}, owner="u", program="p/1")


def test_the_same_requests_make_the_same_bytes_and_a_shard_is_bound_to_its_place(tmp_path):
    requests = [request(number) for number in range(4)]
    first, second = tmp_path / "first", tmp_path / "second"
    for inputs in (first, second):
        assert batch_files.write_requests(inputs, iter(requests), {"model": "m"}, KEY, shard_size=2) == 4
    names = ["config.json", "requests/00000.bin", "requests/00001.bin"]
    assert [file_sha256(first / name) for name in names] == [file_sha256(second / name) for name in names]
    (first / names[1]).rename(first / names[2])
    with pytest.raises(UnreadableBatch, match="00001"):
        batch_files.read_shard(first / names[2], list[Request], KEY)
    with pytest.raises(UnreadableBatch):
        batch_files.read_shard(second / names[1], list[Request], batch_key(b"another"))


def test_answers_come_back_as_they_were(tmp_path):
    answers = Answers(
        [Completion("a", {"n": [1, None, "é"]}, Usage(1, 20, 16, 5), attempts=2)],
        [Failure("b", "truncated", "the answer reached max_tokens", Usage(calls=5), attempts=5)],
        seconds=1.5,
    )
    path = tmp_path / "answers" / "00000.bin"
    batch_files.write_shard(path, answers, KEY)
    assert batch_files.read_shard(path, Answers, KEY) == answers
    assert [answer.request_id for answer in answers] == ["a", "b"]
    assert [file.name for file in path.parent.iterdir()] == ["00000.bin"]


def test_the_requests_are_read_as_they_are_written(tmp_path):
    """No more than a shard of them is held."""
    written = []

    def requests():
        for number in range(6):
            written.append(len(list((tmp_path / ".inputs.new" / "requests").glob("*.bin"))))
            yield request(number)

    batch_files.write_requests(tmp_path / "inputs", requests(), {}, KEY, shard_size=2)
    assert written == [0, 0, 1, 1, 2, 2]
