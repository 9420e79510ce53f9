"""How far the trainer is from whoever drew the tokens; the corrections are held in test_peers."""

import pytest
import torch

from aha.algo.correction import mismatch_of


def test_mismatch_is_counted_before_any_bound():
    # Two ratios of 1/2 and 2: k3 = (1/2 - 1 + ln 2 + 2 - 1 - ln 2) / 2 = 1/4,
    # and (5/2)^2 / (2 (1/4 + 4)) = 25/34 of the tokens.
    found = mismatch_of(torch.tensor([0.5, 2.0]).log())
    assert found["mismatch_kl"] == pytest.approx(0.25)
    assert found["mismatch_ess"] == pytest.approx(25 / 34)
    assert found["mismatch_max"] == pytest.approx(2.0)
    assert mismatch_of(torch.tensor([])) == {}


def test_nothing_was_drawn_and_nothing_is_told():
    assert mismatch_of(torch.zeros(0)) == {}


def test_equal_policies_have_no_mismatch():
    found = mismatch_of(torch.zeros(5))
    assert found == {"mismatch_kl": 0.0, "mismatch_ess": 1.0, "mismatch_max": 1.0}
