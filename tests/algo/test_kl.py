"""The limit of a token's k3; values and gradients are held in test_peers."""

from math import log

import pytest
import torch

from aha.algo import kl


def value_and_pull(name: str, rarer: float) -> tuple[float, float]:
    """The estimate of a token that is `rarer` times rarer than in the reference, and its
    gradient."""
    now = torch.tensor([[-log(rarer)]], dtype=torch.float64, requires_grad=True)
    old = {"old_logprobs_BT": now.detach()}
    found = kl.ESTIMATORS[name](now, torch.zeros(1, 1, dtype=torch.float64), **old)
    found.sum().backward()
    return found.item(), now.grad.item()


def test_k3_pulls_a_rare_token_back_however_rare():
    """DeepSeekMath's and TRL's have no limit: e^d - d - 1, gradient 1 - e^d."""
    for rarer in (2.0, 14.0, 1000.0):
        found, pull = value_and_pull("k3", rarer)
        assert found == pytest.approx(rarer - log(rarer) - 1)
        assert pull == pytest.approx(1 - rarer)


def test_verls_clamp_is_a_choice():
    """Its 10 is reached at 14 times, and from there on nothing is pulled back."""
    assert value_and_pull("k3_clamped", 1000.0) == (10.0, 0.0)
    assert value_and_pull("k3_clamped", 14.0)[1] == 0.0
    assert value_and_pull("k3_clamped", 12.0) == value_and_pull("k3", 12.0)


@pytest.mark.parametrize("rarer", [1e12, 1e300])
def test_no_ratio_is_infinite(rarer):
    assert all(torch.isfinite(torch.tensor(value_and_pull("k3", rarer))))
