import math

import pytest
import torch

from training.cpc import Keys, cpc_losses, cpc_objective, generalised, negatives_of, time_matched


def test_the_loss_equals_a_hand_computed_example():
    """C34: two queries, three keys, τ = 0.5, cosines by hand.

    c_1 = (3, 4), its positive z_1 = (1, 0): cos .6; negatives (0, 2): cos .8 and (-5, 0): cos -.6.
    L_1 = -ln( e^1.2 / (e^1.2 + e^1.6 + e^-1.2) )
        = -ln( 3.320117 / (3.320117 + 4.953032 + 0.301194) ) = ln(8.574343 / 3.320117) = 0.948774
    c_2 = (0, 7), its positive z_2 = (0, 2): cos 1; one negative only, (1, 0): cos 0.
    L_2 = -ln( e^2 / (e^2 + e^0) ) = ln(8.389056 / 7.389056) = 0.126928
    """
    queries = torch.tensor([[3.0, 4.0], [0.0, 7.0]])
    keys = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-5.0, 0.0]])
    negatives = torch.tensor([[False, True, True], [True, False, False]])
    losses = cpc_losses(queries, keys, torch.tensor([0, 1]), negatives, temperature=0.5)
    assert losses.tolist() == pytest.approx([0.948774, 0.126928], abs=2e-6)


def test_without_knowledge_the_loss_is_ln_k():
    """C34: equal similarities give ln K."""
    losses = cpc_losses(torch.ones(1, 4), torch.ones(7, 4), torch.tensor([2]), torch.ones(1, 7).bool(), 0.1)
    assert losses.item() == pytest.approx(math.log(7), abs=1e-6)


def test_the_generalised_loss_lies_between_infonce_and_the_miss_probability():
    """By hand, for p = .25: q = 0 gives -ln p = 1.386294, q = .5 gives (1 - .5) / .5 = 1, q = 1 gives 1 - p = .75."""
    losses = -torch.log(torch.tensor([0.25, 1.0]))
    for q, expected in ((0.0, 1.386294), (0.5, 1.0), (1.0, 0.75)):
        assert generalised(losses, q).tolist() == pytest.approx([expected, 0.0], abs=1e-6)
    assert generalised(losses, 1e-6)[0].item() == pytest.approx(1.386294, abs=1e-5), "continuous at 0"
    with pytest.raises(ValueError, match="between 0 and 1"):
        generalised(losses, 1.5)


def test_the_gradient_pulls_to_the_positive_and_pushes_from_negatives():
    query = torch.tensor([[1.0, 1.0]], requires_grad=True)
    keys = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    cpc_losses(query, keys, torch.tensor([0]), torch.tensor([[False, True]]), 0.1).sum().backward()
    step = -query.grad[0]
    assert step[0] > 0 > step[1]


def test_a_temperature_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="temperature"):
        cpc_losses(torch.ones(1, 2), torch.ones(1, 2), torch.tensor([0]), torch.ones(1, 1).bool(), 0.0)


def _keys():
    """Rows 0-2: person 0's history; 3: person 1, in row 1's window; 4: person 1; 5: person 0 in another DataDAO."""
    return Keys(
        histories=torch.tensor([0, 0, 0, 1, 1, 2]),
        people=torch.tensor([0, 0, 0, 1, 1, 0]),
        windows=torch.tensor([0, 1, 2, 1, 3, 4]),
        positions=torch.tensor([0, 1, 2, 0, 1, 0]),
        times=torch.tensor([0, 100, 200, 100, 260, 120]),
        datadaos=torch.tensor([0, 0, 0, 0, 0, 1]),
    )


@pytest.mark.parametrize(("same_user", "expected"), [("none", [4]), ("future", [2, 4]), ("all", [0, 2, 4, 5])])
def test_negatives_are_other_users_and_other_times_but_never_the_same_window(same_user, expected):
    """C34: for the positive in row 1; row 3 is the same conversation, seen by another SUBJECT."""
    mask = negatives_of(torch.tensor([1]), _keys(), same_user, across_datadaos=True)
    assert mask[0].nonzero().flatten().tolist() == expected


def test_negatives_come_from_the_same_datadao():
    """Of all the chunks that may be negatives, row 5 alone is of another DataDAO."""
    mask = negatives_of(torch.tensor([1, 5]), _keys(), "all")
    assert [row.nonzero().flatten().tolist() for row in mask] == [[0, 2, 4], []]


def test_time_matched_negatives_are_those_near_the_positive():
    """C34: within 100 s of row 1, which is at 100 s."""
    assert time_matched(torch.tensor([1]), _keys(), 100)[0].tolist() == [True, True, True, True, False, True]


def test_the_objective_mixes_all_and_time_matched_negatives():
    """C34: (1 - share) · mean over all + share · mean over the time-matched; queries without such are left out."""
    torch.manual_seed(0)
    queries, keys, positives = torch.randn(2, 4), torch.randn(6, 4), torch.tensor([1, 4])
    negatives = negatives_of(positives, _keys(), "all")
    matched = torch.zeros_like(negatives)
    matched[0, [0, 3]] = True  # row 3 is no negative at all: the same window
    objective = cpc_objective(queries, keys, positives, negatives, matched, 0.1, 0.25)
    everything = cpc_losses(queries, keys, positives, negatives, 0.1).mean()
    only_row_0 = torch.zeros(1, 6).bool()
    only_row_0[0, 0] = True
    near = cpc_losses(queries[:1], keys, positives[:1], only_row_0, 0.1).mean()
    assert objective.item() == pytest.approx((0.75 * everything + 0.25 * near).item(), abs=1e-6)
    nothing_near = cpc_objective(queries, keys, positives, negatives, torch.zeros_like(matched), 0.1, 0.25)
    assert nothing_near.item() == pytest.approx(everything.item(), abs=1e-6)
