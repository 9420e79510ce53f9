"""Which completions and problems count, by hand."""

import math

import pytest
import torch

from aha.algo import correction, filters

REWARDS_PG = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
LENGTHS_PG = torch.tensor([[5.0, 10, 8], [10, 4, 4], [3, 10, 9]])
CUT_PG = (LENGTHS_PG == 10).float()


def rewards(how: str) -> list[list[float]]:
    return filters.overlong_rewards(REWARDS_PG, LENGTHS_PG, CUT_PG, how, 10, 4).tolist()


def test_overlong_rewards_by_hand():
    assert rewards("keep") == rewards("mask") == REWARDS_PG.tolist()
    assert rewards("zero")[2] == [1.0, 0.0, 1.0]
    # limit 10, buffer 4: nothing up to 6, then -1/4 a token
    assert rewards("soft")[0] == [1.0, -1.0, 0.5]
    # "early": nothing above 6 is paid. Training draws nothing so long.
    assert rewards("early") == [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]
    with pytest.raises(AssertionError, match="half"):
        rewards("half")


def test_what_counts():
    advantages_PG = torch.tensor([[0.5, -0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert filters.counted(advantages_PG, CUT_PG, "keep", "keep").sum() == 9
    # A completion without credit in a group that has some stays; a flat group goes as a whole.
    for how in ("drop", "resample"):
        dropped = filters.counted(advantages_PG, CUT_PG, "zero", how)
        assert dropped.tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]
    masked = filters.counted(advantages_PG, CUT_PG, "mask", "keep")
    assert torch.equal(masked, 1 - CUT_PG)


def test_dynamic_sampling_looks_at_right_and_wrong():
    """All wrong, of different lengths: the penalty gives advantages, and DAPO drops the group."""
    correct_PG = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    shaped_PG = torch.tensor([[0.0, -0.5], [0.5, 0.0], [1.0, 1.0]])
    advantages_PG = shaped_PG - shaped_PG.mean(1, keepdim=True)
    rules = (torch.zeros(3, 2), "keep", "resample")
    counted_PG = filters.counted(advantages_PG, *rules, correct_PG)
    assert counted_PG.tolist() == [[0, 0], [1, 1], [0, 0]]
    by_reward_PG = filters.counted(advantages_PG, *rules, shaped_PG)
    assert by_reward_PG.tolist() == [[1, 1], [1, 1], [0, 0]]
    # "drop" leaves out what teaches nothing, whatever the metric.
    dropped_PG = filters.counted(advantages_PG, torch.zeros(3, 2), "keep", "drop", correct_PG)
    assert dropped_PG.tolist() == [[1, 1], [1, 1], [0, 0]]


def test_the_soft_penalty_has_a_size():
    """Half of it where right and wrong are 1 apart is the paper's, where they are 2 apart: after
    division by the group's deviation both are the same."""
    ours_PG = filters.overlong_rewards(REWARDS_PG, LENGTHS_PG, CUT_PG, "soft_half", 10, 4)
    papers_PG = filters.overlong_rewards(2 * REWARDS_PG - 1, LENGTHS_PG, CUT_PG, "soft", 10, 4)
    assert torch.equal(2 * ours_PG - 1, papers_PG)


def test_longer_right_completions_are_paid_less():
    # Right ones have 10, 20 and 30 tokens: mean 20, deviation sqrt(200 / 3) = 8.165, so they lie
    # 1.2247 deviations apart.
    rewards_PG = torch.tensor([[1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]])
    lengths_PG = torch.tensor(
        [[10.0, 20.0, 30.0, 5.0], [1.0, 2.0, 3.0, 4.0], [9.0, 500.0, 7.0, 8.0]]
    )
    paid_PG = filters.overlong_rewards(rewards_PG, lengths_PG, torch.zeros(3, 4), "shorter", 600, 0)
    low, high = 1 / (1 + math.exp(1.2247)), 1 / (1 + math.exp(-1.2247))
    by_hand = torch.tensor([1 - 0.2 * low, 0.9, 1 - 0.2 * high, 0.0])
    torch.testing.assert_close(paid_PG[0], by_hand, atol=1e-4, rtol=0)
    assert not paid_PG[1].any(), "none is right: nothing is paid"
    # alone, it has no other right one to be longer than
    torch.testing.assert_close(paid_PG[2], torch.tensor([0.0, 0.9, 0.0, 0.0]))


def test_mixed_groups_come_first_and_flat_ones_fill_up():
    assert filters.mixed_groups(REWARDS_PG, 1) == [0]
    assert filters.mixed_groups(REWARDS_PG.flip(0), 1) == [2]
    assert filters.mixed_groups(REWARDS_PG, 2) == [0, 1]


def test_the_share_of_informative_groups_is_that_of_our_notes():
    for p, G, wanted in [(0.02, 8, 0.15), (0.05, 16, 0.56), (0.1, 32, 0.97)]:
        assert filters.informative_share(p, G) == pytest.approx(wanted, abs=0.006)


def test_curricula_by_hand():
    rates = (None, 0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
    assert [filters.draw_weight("off", rate) for rate in rates] == [1.0] * 7
    assert [filters.draw_weight("pools", r) for r in rates] == [1.0, 0.2, 0.2, 1.0, 1.0, 0.2, 0.2]
    assert [filters.draw_weight("no_positive", r) for r in rates] == [1.0] * 5 + [0.0] * 2


@pytest.mark.parametrize("name", correction.CORRECTIONS)
def test_no_correction_where_trainer_and_engine_agree(name):
    mask_BT = torch.tensor([[1.0, 1, 0], [1, 0, 0]])
    log_rho_BT = torch.zeros(2, 3, requires_grad=True)
    weights_BT = correction.CORRECTIONS[name](log_rho_BT, mask_BT)
    assert torch.equal(weights_BT, mask_BT) and not weights_BT.requires_grad
    seen = correction.disagreement(log_rho_BT, mask_BT)
    assert seen == {"gap": 0, "kl": 0, "k3": 0, "chi2": 0, "ess": 1, "max": 1}
