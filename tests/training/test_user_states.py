"""What a Perceiver reads of users, and the folder of a personalised decoder."""

import numpy as np
import pytest
import torch

from training.user_states import StateHistories

USERS = [("zig", "a"), ("zig", "b")]


def histories() -> StateHistories:
    states = np.arange(15, dtype=np.float32).reshape(5, 3)
    return StateHistories(USERS, np.array([0, 4, 5]), states, np.full(3, -1, dtype=np.float32))


def test_a_moment_reads_the_last_states_before_it_and_none_after() -> None:
    """C43: the embedding that answers about chunk n has seen the n chunks before."""
    states, mask = histories().batch([USERS[0], USERS[0], USERS[1]], [4, 2, 1], longest=3)
    assert states.shape == (3, 3, 3)
    assert states[0, :, 0].tolist() == [3.0, 6.0, 9.0]
    assert states[1, :2, 0].tolist() == [0.0, 3.0]
    assert states[2, 0].tolist() == [12.0, 13.0, 14.0]
    assert mask.tolist() == [[True] * 3, [True, True, False], [True, False, False]]


def test_a_user_without_a_chunk_has_the_prior() -> None:
    """C38, C42: there is always something to attend to."""
    known = histories()
    states, mask = known.batch([USERS[0], ("zig", "nobody")], [0, 0], longest=3)
    assert states[:, 0].tolist() == [[-1.0] * 3] * 2
    assert mask.tolist() == [[True], [True]]
    assert known.length(("zig", "nobody")) == 0


def test_more_than_a_user_has_is_refused() -> None:
    with pytest.raises(ValueError, match="1 chunks, not 2"):
        histories().batch([USERS[1]], [2], longest=3)


def test_states_of_some_users_follow_each_other() -> None:
    known = histories()
    assert known.users == USERS
    torch.testing.assert_close(known.every(USERS[::-1])[0], torch.tensor([12.0, 13.0, 14.0]))
