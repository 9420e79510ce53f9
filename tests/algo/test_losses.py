"""Losses and the ways to add them up: hand numbers, other trainers' numbers, and slices."""

import json
from math import exp, log
from pathlib import Path

import pytest
import torch

from aha.algo.aggregation import AGGREGATIONS, Totals, token_weights
from aha.algo.losses import LOSSES

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())
INPUTS = {
    key: torch.tensor(value, dtype=torch.float64) for key, value in VECTORS["loss_inputs"].items()
}
ADVANTAGES_BT = INPUTS["advantages_B"][:, None].expand(5, 5)


def totals_of(mask_BT, max_new_tokens: int) -> Totals:
    rows = int(mask_BT.any(1).sum())
    return Totals(rows, int(mask_BT.sum()), max_new_tokens)


def one(name: str, logp: float, old: float, advantage: float, **clips) -> tuple[float, float]:
    """Loss and its gradient for a single token."""
    logprobs = torch.tensor([[logp]], dtype=torch.float64, requires_grad=True)
    old_logprobs = torch.tensor([[old]], dtype=torch.float64)
    loss = LOSSES[name](logprobs, old_logprobs, torch.tensor([[advantage]]), **clips)
    loss.sum().backward()
    return loss.item(), logprobs.grad.item()


def test_policy_gradient_by_hand():
    # -A logp = -2 * ln(1/2) = 1.3863; its slope is -A
    assert one("pg", log(0.5), 0.0, 2.0) == pytest.approx((1.3863, -2.0), abs=1e-4)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),
    [
        # r = 1: -A, and the slope of -A e^(logp - old) is -A r
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        # r = 1.5 with A > 0 has gone far enough: -A * 1.2, no push
        (1.5, 2.0, -2.4, 0.0),
        # r = 1.5 with A < 0 has gone the wrong way: -A * 1.5, the push back stays
        (1.5, -2.0, 3.0, 3.0),
        # r = 0.5 with A < 0 has gone far enough: 2 * 0.8
        (0.5, -2.0, 1.6, 0.0),
        # r = 0.5 with A > 0 has gone the wrong way: -2 * 0.5
        (0.5, 2.0, -1.0, -1.0),
    ],
)
def test_ppo_clip_by_hand(ratio, advantage, loss, slope):
    found = one("ppo_clip", log(0.4 * ratio), log(0.4), advantage, clip_low=0.2, clip_high=0.2)
    assert found == pytest.approx((loss, slope), abs=1e-6)


def test_ppo_clip_has_bounds_of_its_own_on_each_side():
    # r = 1.5: cut at 1 + 0.28; r = 0.5: cut at 1 - 0.1
    assert one("ppo_clip", log(1.5), 0.0, 1.0, clip_low=0.1, clip_high=0.28)[0] == pytest.approx(
        -1.28
    )
    assert one("ppo_clip", log(0.5), 0.0, -1.0, clip_low=0.1, clip_high=0.28)[0] == pytest.approx(
        0.9
    )


def test_ppo_clip_stays_finite_where_the_policy_has_gone_astray():
    loss, slope = one("ppo_clip", -1.0, -500.0, -1.0)
    assert loss == pytest.approx(exp(20)) and slope == 0.0


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_what_counts_as_clipped_is_what_the_bound_acts_on(name):
    """A clipped token has no gradient (with CISPO: the weight of the bound), another one has."""
    algorithm = LOSSES[name]
    assert bool(algorithm.facts.clipped) == ("clip_low" in algorithm.reads)
    if not algorithm.facts.clipped:
        return
    torch.manual_seed(0)
    old_BT = -2 * torch.rand(64, 1, dtype=torch.float64)
    logprobs_BT = (old_BT + 0.4 * torch.randn(64, 1).double()).requires_grad_()
    advantages_BT = torch.randn(64, 1).double()
    tensors, mask_BT = (logprobs_BT, old_BT, advantages_BT), torch.ones(64, 1)
    bounds = {"clip_low": 0.1, "clip_high": 0.2}
    algorithm(*tensors, mask_BT=mask_BT, **bounds).sum().backward()
    inputs = (logprobs_BT.detach(), old_BT, advantages_BT, mask_BT)
    clipped_BT = algorithm.facts.clipped(*inputs, *bounds.values())
    assert 0 < clipped_BT.sum() < 64
    free = logprobs_BT.grad == 0
    if name == "cispo":
        edge_BT = torch.where(advantages_BT > 0, 1.2, 0.9)
        free = (logprobs_BT.grad + edge_BT * advantages_BT).abs() < 1e-6
    assert torch.equal(free, clipped_BT)


def test_on_policy_all_losses_push_alike():
    """Vector loss/onpolicy_gradient_equivalence: at r = 1 the choice does not matter."""
    gradients = []
    for name in set(LOSSES) - {"gmpo"}:  # that one spreads a mean over its completion
        logprobs = INPUTS["old_logprobs_BT"].clone().requires_grad_()
        old, mask = INPUTS["old_logprobs_BT"], INPUTS["mask_BT"]
        (LOSSES[name](logprobs, old, ADVANTAGES_BT, mask_BT=mask) * mask).sum().backward()
        gradients.append(logprobs.grad)
    for gradient in gradients[1:]:
        torch.testing.assert_close(gradient, gradients[0])


def test_the_past_carries_no_gradient():
    old = torch.tensor([[-1.0]], requires_grad=True)
    now = torch.tensor([[-1.0]], requires_grad=True)
    LOSSES["pg"](now, old, torch.tensor([[1.0]])).sum().backward()
    assert old.grad is None


@pytest.mark.parametrize("vector", VECTORS["losses"], ids=lambda vector: vector["name"])
def test_the_numbers_of_other_trainers(vector):
    """Loss and gradient; sequence_sum divides by a limit of 8 tokens."""
    mask_BT = INPUTS["mask_BT"]
    logprobs_BT = INPUTS["logprobs_BT"].clone().requires_grad_()
    clips = {"clip_low": 0.2, "clip_high": vector["clip_high"]}
    losses_BT = LOSSES[vector["loss"]](
        logprobs_BT, INPUTS["old_logprobs_BT"], ADVANTAGES_BT, **clips
    )
    weights_BT = token_weights(mask_BT, vector["aggregation"], totals_of(mask_BT, 8))
    loss = (losses_BT * weights_BT).sum()
    loss.backward()
    assert loss.item() == pytest.approx(vector["expected"], abs=1e-6)
    wanted = torch.tensor(vector["gradient_BT"], dtype=torch.float64)
    torch.testing.assert_close(logprobs_BT.grad, wanted, rtol=1e-6, atol=1e-7)


def masked_losses() -> tuple[torch.Tensor, torch.Tensor]:
    """Per-token losses of the inputs with row 1 left out altogether."""
    mask_BT = INPUTS["mask_BT"].clone()
    mask_BT[1] = 0
    losses_BT = LOSSES["ppo_clip"](
        INPUTS["logprobs_BT"], INPUTS["old_logprobs_BT"], ADVANTAGES_BT, 0.2, 0.2
    )
    return losses_BT, mask_BT


@pytest.mark.parametrize("vector", VECTORS["masked_row"], ids=lambda vector: vector["name"])
def test_a_row_without_tokens_changes_nothing(vector):
    losses_BT, mask_BT = masked_losses()
    totals = totals_of(mask_BT, vector["max_new_tokens"])
    weights_BT = token_weights(mask_BT, vector["aggregation"], totals)
    assert torch.isfinite(weights_BT).all()
    assert (losses_BT * weights_BT).sum().item() == pytest.approx(vector["expected"], abs=1e-6)


def test_parts_add_up_to_the_whole():
    """Vector agg/microbatch_invariance: with denominators of their own the mean would be 0.623."""
    losses_BT, mask_BT = masked_losses()
    totals = totals_of(mask_BT, 5)
    found = []
    for rows in VECTORS["microbatches"]["parts"]:
        weights_BT = token_weights(mask_BT[rows], "token_mean", totals)
        found.append((losses_BT[rows] * weights_BT).sum().item())
    assert found == pytest.approx(VECTORS["microbatches"]["expected_parts"], abs=1e-6)


def test_weights_by_hand():
    # two completions of 1 and 3 tokens, at most 4 each
    mask_BT = torch.tensor([[1.0, 0, 0], [1, 1, 1]])
    totals = Totals(rows=2, tokens=4, max_new_tokens=4, prompt_tokens={7: 1, 8: 3})
    wanted = {
        "token_mean": (1 / 4, 1 / 4),  # every token alike
        "sequence_mean": (1 / 2, 1 / 6),  # 1 / (2 rows * 1 token), 1 / (2 rows * 3 tokens)
        "sequence_sum": (1 / 8, 1 / 8),  # 1 / (2 rows * 4 tokens at most)
        "sequence_total": (1 / 2, 1 / 2),
        "prompt_mean": (1 / 2, 1 / 6),  # 1 / (2 prompts * 1 token), 1 / (2 prompts * 3 tokens)
    }
    assert set(AGGREGATIONS) == set(wanted)
    for name, (short, long) in wanted.items():
        weights_BT = token_weights(mask_BT, name, totals, (7, 8))
        expected = torch.tensor([[short, 0, 0], [long, long, long]])
        torch.testing.assert_close(weights_BT, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_rows_without_credit_move_nothing_unless_the_loss_says_so(name):
    """The trainer skips them, also where the policy has moved since they were drawn."""
    logprobs_BT = INPUTS["logprobs_BT"].clone().requires_grad_()
    old, mask, none = INPUTS["old_logprobs_BT"], INPUTS["mask_BT"], torch.zeros_like(logprobs_BT)
    LOSSES[name](logprobs_BT, old, none, mask_BT=mask).sum().backward()
    assert bool(logprobs_BT.grad.any()) == LOSSES[name].facts.every_row


def test_a_step_without_tokens_is_a_broken_promise():
    with pytest.raises(AssertionError, match="without tokens"):
        Totals(0, 0, 10)


def test_prompt_mean_counts_every_prompt_alike():
    # Prompt 7 wrote 1 and 3 tokens, prompt 8 wrote 2: 1/(2 * 4) for four tokens, 1/(2 * 2) for two.
    mask_BT = torch.tensor([[1.0, 0, 0], [1, 1, 1], [1, 1, 0]])
    totals = Totals(rows=3, tokens=6, max_new_tokens=4, prompt_tokens={7: 4, 8: 2})
    weights_BT = token_weights(mask_BT, "prompt_mean", totals, (7, 7, 8))
    assert weights_BT.sum(1).tolist() == pytest.approx([1 / 8, 3 / 8, 1 / 2])
