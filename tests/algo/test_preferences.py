"""The losses of preference pairs, by sums that can be done by hand."""

import math

import pytest
import torch

from aha.algo.preferences import METHODS, preference_loss, preference_score


def numbers(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_equal_scores_cost_log_two_and_a_margin_more():
    assert preference_loss(numbers(-3.0), numbers(-3.0), 2.0).item() == pytest.approx(math.log(2))
    # -log sigmoid(-0.5) = log(1 + e^0.5) = 0.9741
    loss = preference_loss(numbers(-3.0), numbers(-3.0), 2.0, 0.5)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(0.5)))


def test_simpo_by_hand():
    """Sums -4 of 8 tokens and -6 of 4: means -0.5 and -1.5; 2 * 1.0 - 0.5 = 1.5."""
    simpo = METHODS["simpo"]
    scores = [
        preference_score(simpo, numbers(total), numbers(99.0), numbers(tokens))
        for total, tokens in ((-4.0, 8), (-6.0, 4))
    ]
    assert [score.item() for score in scores] == [-0.5, -1.5]
    loss = preference_loss(*scores, simpo.beta, simpo.gamma)
    assert loss.item() == pytest.approx(-math.log(1 / (1 + math.exp(-1.5))))


def test_dpo_by_hand_and_its_gradient():
    """Ratios +1 and -1: 0.1 * 2 = 0.2. The gradient is -beta sigmoid(-0.2), and its opposite."""
    dpo = METHODS["dpo"]
    chosen, rejected = numbers(-4.0).requires_grad_(), numbers(-7.0).requires_grad_()
    tokens = numbers(5)
    scores = (
        preference_score(dpo, chosen, numbers(-5.0), tokens),
        preference_score(dpo, rejected, numbers(-6.0), tokens),
    )
    loss = preference_loss(*scores, dpo.beta, dpo.gamma)
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-0.2)))
    loss.backward()
    slope = 0.1 / (1 + math.exp(0.2))
    assert chosen.grad.item() == pytest.approx(-slope) and rejected.grad.item() == pytest.approx(
        slope
    )


def test_far_apart_scores_stay_finite():
    losses = preference_loss(numbers(-1e4, 0.0), numbers(0.0, -1e4), 2.0, 0.5)
    assert losses.tolist() == pytest.approx([2e4 + 0.5, 0.0])
