"""Each estimator against hand numbers, against other trainers, and on groups that teach nothing."""

import json
from math import sqrt
from pathlib import Path

import pytest
import torch

from aha.algo.advantages import ADVANTAGES

# Estimators that look at one group and nothing else, and whose credits add up to 0 there.
ALONE = ("dr_grpo", "grpo", "rloo", "max_rl", "pass_at_k")
# Those that map rewards [P, G] to advantages [P, G].
GROUPED = [name for name, algorithm in ADVANTAGES.items() if not algorithm.facts.critic]
VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())


def found(name: str, *rewards: float) -> list[float]:
    return ADVANTAGES[name](torch.tensor([rewards], dtype=torch.float32))[0].tolist()


def test_these_are_all():
    others = {"lite_ppo", "scale_rl", "reinforce", "reinforce_pp", "reinforce_pp_baseline"}
    others |= {"opo"}
    assert set(ADVANTAGES) == {*ALONE, *others, "gae"}


# -- one right of four: the mean is (1 + 0 + 0 + 0) / 4 = 0.25 --------------------------------


def test_dr_grpo_by_hand():
    # 1 - 0.25 = 0.75 and 0 - 0.25 = -0.25
    assert found("dr_grpo", 1, 0, 0, 0) == [0.75, -0.25, -0.25, -0.25]


def test_grpo_by_hand():
    # variance with G - 1: (0.75² + 3 * 0.25²) / 3 = 0.75 / 3 = 0.25, deviation 0.5
    # 0.75 / 0.5 = 1.5 and -0.25 / 0.5 = -0.5, less the eps of 1e-6
    assert found("grpo", 1, 0, 0, 0) == pytest.approx([1.5, -0.5, -0.5, -0.5], abs=1e-5)


def test_rloo_by_hand():
    # the others of the first: (0 + 0 + 0) / 3 = 0, so 1 - 0 = 1
    # the others of a wrong one: (1 + 0 + 0) / 3 = 1/3, so 0 - 1/3
    assert found("rloo", 1, 0, 0, 0) == pytest.approx([1, -1 / 3, -1 / 3, -1 / 3])


def test_max_rl_by_hand():
    # 0.75 / 0.25 = 3 and -0.25 / 0.25 = -1
    assert found("max_rl", 1, 0, 0, 0) == pytest.approx([3, -1, -1, -1])


def test_rewards_between_0_and_1_by_hand():
    # rewards 1, 0.1, 0.4: mean 1.5 / 3 = 0.5, so 0.5, -0.4, -0.1
    assert found("dr_grpo", 1, 0.1, 0.4) == pytest.approx([0.5, -0.4, -0.1])
    # G / (G - 1) = 3/2
    assert found("rloo", 1, 0.1, 0.4) == pytest.approx([0.75, -0.6, -0.15])
    # variance (0.25 + 0.16 + 0.01) / 2 = 0.21
    assert found("grpo", 1, 0.1, 0.4)[0] == pytest.approx(0.5 / sqrt(0.21), abs=1e-4)
    # divided by the mean 0.5
    assert found("max_rl", 1, 0.1, 0.4) == pytest.approx([1.0, -0.8, -0.2])


# -- other trainers -------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS["advantages"], ids=lambda vector: vector["name"])
def test_the_numbers_of_other_trainers(vector):
    advantages_PG = ADVANTAGES[vector["advantage"]](torch.tensor(VECTORS["rewards_PG"]))
    wanted = torch.tensor(vector["expected_PG"])
    torch.testing.assert_close(advantages_PG, wanted, rtol=1e-5, atol=1e-6)


# -- what holds for all of them -------------------------------------------------------------


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("reward", [0.0, 0.1, 1 / 3, 0.7, 1.0, -0.3])
@pytest.mark.parametrize("G", [2, 3, 8, 16])
def test_equal_rewards_give_exactly_0(name, reward, G):
    """In float32 the mean of 8 times 0.1 is one unit off, and a tiny deviation in a denominator
    makes -0.41 of that (vector adv/fp32_zero_variance_TRAP)."""
    advantages_PG = ADVANTAGES[name](torch.full((3, G), reward))
    assert torch.equal(advantages_PG, torch.zeros(3, G))


def test_the_trap_is_a_trap():
    """Without the guard this group would be pushed: else the test above would prove nothing."""
    rewards = torch.full((8,), 0.1)
    assert (rewards - rewards.mean()).abs().max() > 0


@pytest.mark.parametrize("name", ALONE)
def test_a_group_sums_to_0_and_knows_no_other_group(name):
    rewards_PG = torch.rand((5, 8), generator=torch.Generator().manual_seed(0)).round(decimals=1)
    advantages_PG = ADVANTAGES[name](rewards_PG)
    assert advantages_PG.shape == (5, 8) and advantages_PG.dtype == torch.float32
    torch.testing.assert_close(advantages_PG.sum(1), torch.zeros(5), rtol=0, atol=1e-5)
    alone = torch.cat([ADVANTAGES[name](rewards_PG[p : p + 1]) for p in range(5)])
    assert torch.equal(alone, advantages_PG)


@pytest.mark.parametrize("name", GROUPED)
def test_a_better_completion_never_gets_less(name):
    rewards = [0.0, 0.1, 0.5, 0.5, 1.0]
    credits = found(name, *rewards)
    assert credits == sorted(credits) and credits[0] < 0 < credits[-1]
    assert credits[2] == credits[3]


def test_reinforce_compares_with_the_whole_step():
    # the mean of 1, 0, 1, 1 is 0.75, whatever the groups
    advantages_PG = ADVANTAGES["reinforce"](torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    assert advantages_PG.tolist() == [[0.25, -0.75], [0.25, 0.25]]
    assert found("reinforce", 1, 0, 1, 1) == [0.25, -0.75, 0.25, 0.25]


def test_lite_ppo_divides_by_the_deviation_of_the_rewards_by_hand():
    # centred 1/2 -1/2 and 0 0; rewards 1 0 1 1: mean 3/4, variance (3 * 1/16 + 9/16) / 3 = 1/4
    advantages_PG = ADVANTAGES["lite_ppo"](torch.tensor([[1.0, 0], [1, 1]]), eps=0.0)
    assert advantages_PG.tolist() == [[1.0, -1.0], [0.0, 0.0]]


def test_scale_rl_divides_by_the_deviation_of_the_advantages_by_hand():
    # centred 1/2 -1/2 and 0 0: variance over all (1/4 + 1/4) / 3 = 1/6, over the mixed group 1/2
    rewards_PG = torch.tensor([[1.0, 0], [1, 1]])
    whole = ADVANTAGES["scale_rl"](rewards_PG, eps=0.0)
    assert whole[0].tolist() == pytest.approx([sqrt(6) / 2, -sqrt(6) / 2])
    dropped = ADVANTAGES["scale_rl"](rewards_PG, eps=0.0, drops_flat=True)
    assert dropped[0].tolist() == pytest.approx([sqrt(2) / 2, -sqrt(2) / 2])
    assert not whole[1].any() and not dropped[1].any()


def test_scale_rl_of_a_batch_without_a_mixed_group_is_0():
    rewards_PG = torch.tensor([[1.0, 1], [0, 0]])
    for drops_flat in (False, True):
        assert not ADVANTAGES["scale_rl"](rewards_PG, drops_flat=drops_flat).any()
    assert ADVANTAGES["scale_rl"](torch.ones(1, 1)).item() == 0.0


def test_how_much_prompts_differ_moves_lite_ppo_alone():
    """Two prompts, solved by half and by all but one: the rewards vary more than the advantages."""
    near, far = torch.tensor([[1.0, 0, 1, 0]] * 2), torch.tensor([[1.0, 0, 1, 0], [5, 4, 5, 4]])
    scaled = [ADVANTAGES["scale_rl"](rewards) for rewards in (near, far)]
    torch.testing.assert_close(scaled[0], scaled[1])
    lite = [ADVANTAGES["lite_ppo"](rewards) for rewards in (near, far)]
    assert (lite[1].abs() < 0.5 * lite[0].abs()).all()


# -- the KL in the reward, token by token -----------------------------------------------------

KL_PGT = torch.tensor([[[0.1, 0.2, 0.3], [0.4, 0.0, 0.0]]], dtype=torch.float64)
LENGTHS_PG = torch.tensor([[3.0, 1.0]], dtype=torch.float64)


def test_each_token_pays_for_the_kl_from_there_on_by_hand():
    # rewards 1 and 0: 1 - .6, 1 - .5, 1 - .3 and 0 - .4; whitened over these four tokens
    own = torch.tensor([0.4, 0.5, 0.7, -0.4], dtype=torch.float64)
    expected = (own - own.mean()) / (own.var() + 1e-8).sqrt()
    advantages_PGT = ADVANTAGES["reinforce_pp"](
        torch.tensor([[1.0, 0.0]], dtype=torch.float64), lengths_PG=LENGTHS_PG, kl_PGT=KL_PGT
    )
    torch.testing.assert_close(advantages_PGT[0, 0], expected[:3])
    torch.testing.assert_close(advantages_PGT[0, 1, 0], expected[3])
    assert not advantages_PGT[0, 1, 1:].any()


def test_without_a_kl_the_tokens_share_what_their_completion_has():
    rewards_PG = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    whole_PG = ADVANTAGES["reinforce_pp"](rewards_PG, lengths_PG=LENGTHS_PG)
    inputs = {"lengths_PG": LENGTHS_PG, "kl_PGT": torch.zeros_like(KL_PGT)}
    by_token = ADVANTAGES["reinforce_pp"](rewards_PG, **inputs)
    torch.testing.assert_close(by_token[0, 0], whole_PG[0, 0].expand(3))
    torch.testing.assert_close(by_token[0, 1, 0], whole_PG[0, 1])
    assert not ADVANTAGES["reinforce_pp"](torch.ones(1, 2), **inputs).any()


def test_max_rl_of_a_group_without_success_is_0():
    assert found("max_rl", 0, 0, 0, 0) == [0, 0, 0, 0]
