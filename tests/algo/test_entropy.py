"""Entropy and its counter-measures, by hand; the numbers of other trainers are in test_peers."""

from math import log

import pytest
import torch

from aha.algo import entropy


def test_entropy_by_hand_and_in_float32_from_bfloat16():
    # four equal chances: ln 4; one sure thing: 0
    logits = torch.tensor([[0.0, 0, 0, 0], [80.0, 0, 0, 0]], dtype=torch.bfloat16)
    found = entropy.token_entropy(logits)
    assert found.dtype == torch.float32 and found.tolist() == pytest.approx([log(4), 0.0])


def test_the_bonus_pushes_the_entropy_up():
    logits = torch.tensor([1.0, 0.0], requires_grad=True)
    bonus = entropy.entropy_bonus(entropy.token_entropy(logits), 0.1)
    bonus.backward()
    # Descending this gradient lowers the likelier one.
    assert logits.grad[0] > 0 > logits.grad[1]


def test_the_adaptive_bonus_by_hand():
    """(bonus now, coefficient of the next step): paid at or below the target alone."""
    assert entropy.bonus_near(0.01, entropy=0.1, target=0.2) == pytest.approx((0.01, 0.015))
    assert entropy.bonus_near(0.01, entropy=0.3, target=0.2) == pytest.approx((0.0, 0.005))
    assert entropy.bonus_near(0.001, entropy=0.3, target=0.2) == (0.0, 0.0)
    assert entropy.bonus_near(0.01, entropy=0.2, target=0.2) == pytest.approx((0.01, 0.005))


def test_covariance_is_free_of_both_means():
    logprobs, advantages = torch.tensor([-1.0, -3.0]), torch.tensor([1.0, -1.0])
    # means -2 and 0: 1 * 1 and -1 * -1
    assert entropy.covariances(logprobs, advantages).tolist() == [1.0, 1.0]


LOGPROBS, ADVANTAGES = torch.tensor([-1.0, -2.0, -6.0]), torch.tensor([1.0, 1, -1])
# means -3 and 1/3: covariances 2 * 2/3, 1 * 2/3, -3 * -4/3


def test_clip_cov_takes_out_the_largest_inside_the_bounds():
    def kept(share, low, high):
        return entropy.clip_cov(LOGPROBS, ADVANTAGES, share, (low, high)).tolist()

    assert kept(0.01, 0.5, 3.0) == [0, 1, 1]
    assert kept(0.7, 0.5, 5.0) == [0, 1, 0]  # two of three, and the largest of those inside
    assert kept(1.0, 0.5, 3.0) == [0, 0, 1]  # no more than are inside
    assert kept(0.01, 5.0, 6.0) == [1, 1, 1]


def test_kl_cov_holds_the_largest_and_one_at_least():
    assert entropy.kl_cov(LOGPROBS, ADVANTAGES, 0.002).tolist() == [0, 0, 1]
    assert entropy.kl_cov(LOGPROBS, ADVANTAGES, 0.7).tolist() == [1, 0, 1]
    chosen, old = torch.tensor([0.0, 0, 1]), LOGPROBS - torch.tensor([1.0, 0, -0.5])
    # one token is half a nat below where it was drawn
    assert entropy.held(LOGPROBS, old, chosen, 2.0).tolist() == [0, 0, 1.0]


def test_the_papers_shares_and_bounds_are_the_defaults():
    """0.002 and 2e-4 of 10,000 tokens, whose covariances go beyond both bounds."""
    generator = torch.Generator().manual_seed(0)
    logprobs, advantages = torch.randn((2, 10_000), generator=generator)
    covs = entropy.covariances(logprobs, advantages)
    assert entropy.kl_cov(logprobs, advantages).sum() == 20
    gone = entropy.clip_cov(logprobs, advantages) == 0
    assert gone.sum() == 2 and ((covs[gone] > 1) & (covs[gone] < 5)).all()


@pytest.mark.parametrize("count", [1, 2, 5, 11, 1000])
@pytest.mark.parametrize("share", [0.01, 0.2, 0.3, 1.0])
def test_the_forks_are_those_above_the_quantile(count, share):
    entropies = torch.rand(count, generator=torch.Generator().manual_seed(count)).double()
    found = entropy.top_entropy(entropies, share)
    wanted = entropies >= torch.quantile(entropies, 1 - share) - 1e-9
    assert torch.equal(found, wanted.double())
    assert found.sum() == pytest.approx(max(1, share * count), abs=1)


def test_what_chooses_carries_no_gradient():
    entropies = torch.rand(9, requires_grad=True)
    assert not entropy.top_entropy(entropies).requires_grad
