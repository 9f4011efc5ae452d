import numpy as np
import pytest

from user_embeddings_dagster.storage.user_memories import UserMemories


@pytest.fixture
def path(tmp_path):
    return tmp_path / "user_memories" / "dao.sqlite"


def _memory(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, 40), dtype=np.uint8)


def test_what_is_written_is_read_in_the_order_asked_for(path):
    users = [f"user{i:04}" for i in range(1200)]
    memory = _memory(1200)
    with UserMemories(path) as memories:
        memories.write([(user, "v1", i, "h") for i, user in enumerate(users)], memory)
    with UserMemories(path) as memories:
        rows, found = memories.read([users[700], users[3]])
        assert [row[0] for row in rows] == [users[700], users[3]] and np.array_equal(found, memory[[700, 3]])
        assert np.array_equal(memories.read(users)[1], memory)
        assert memories.known("v1").height == 1200 and memories.known("v2").height == 0


def test_a_user_without_memory_is_named_by_count_alone(path):
    with UserMemories(path) as memories, pytest.raises(KeyError, match="1 users have no memory"):
        memories.read(["ann"])


def test_content_changes_with_every_column(path):
    with UserMemories(path) as memories:
        memories.write([("ann", "v1", 3, "h")], _memory(1))
        first = memories.content()
        memories.write([("ann", "v1", 3, "h")], _memory(1))
        assert memories.content() == first == (1, first[1])
        memories.write([("ann", "v1", 3, "h")], _memory(1, seed=1))
        assert memories.content() != first


def test_deleted_memories_leave_no_bytes_in_the_file(path):
    """secure_delete and the truncated log: the user's id and memory are nowhere in the files."""
    memory = _memory(2)
    with UserMemories(path) as memories:
        memories.write([("canary-user", "v1", 3, "h"), ("ann", "v1", 3, "h")], memory)
    assert b"canary-user" in path.read_bytes() and memory[0].tobytes() in path.read_bytes()
    with UserMemories(path) as memories:
        assert memories.keep_only(["ann"]) == 1
    stored = b"".join(file.read_bytes() for file in path.parent.iterdir())
    assert b"canary-user" not in stored and memory[0].tobytes() not in stored
    assert memory[1].tobytes() in stored
