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
    assert entropy.adapted_coef(0.01, entropy=0.1, target=0.2) == pytest.approx(0.015)
    assert entropy.adapted_coef(0.01, entropy=0.3, target=0.2) == pytest.approx(0.005)
    assert entropy.adapted_coef(0.001, entropy=0.3, target=0.2) == 0.0


def test_covariance_is_free_of_both_means():
    logprobs, advantages = torch.tensor([[-1.0, -3.0]]), torch.tensor([[1.0, -1.0]])
    mask = torch.ones(1, 2)
    # means -2 and 0: 1 * 1 and -1 * -1
    assert entropy.covariances(logprobs, advantages, mask).tolist() == [[1.0, 1.0]]


def test_clip_cov_takes_out_the_largest_inside_the_bounds_and_no_padding():
    logprobs = torch.tensor([[-1.0, -2.0, -6.0, 0.0]])
    advantages, mask = torch.tensor([[1.0, 1, -1, 0]]), torch.tensor([[1.0, 1, 1, 0]])
    # means -3 and 1/3: covariances 2 * 2/3, 1 * 2/3, -3 * -4/3
    losses = entropy.clip_cov(logprobs, logprobs, advantages, mask, 0.01, (0.5, 3.0))
    assert losses[0, :3].tolist() == [0.0, -1.0, 1.0]
    nothing = entropy.clip_cov(logprobs, logprobs, advantages, mask, 0.01, (5.0, 6.0))
    assert nothing[0, :3].tolist() == [-1.0, -1.0, 1.0]
