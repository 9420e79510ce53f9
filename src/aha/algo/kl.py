"""Estimates of KL(policy || reference), one number for every token, in nats.

In the loss and in the reward are different methods. The gradient of an estimate is not an
estimate of the gradient: in the loss k1 pushes nowhere, k2, k3+ and k3_off_policy follow
KL(policy || reference), and k3 follows KL(reference || policy), the other one (our vector
kl/expected_gradient).

An estimator maps (logprobs, ref_logprobs), both [B, T], to [B, T]; it may name `old_logprobs_BT`,
under which the tokens were sampled.

k3 of a token grows like e^d where the reference likes it e^d times better. DeepSeekMath and TRL do
not limit it, nor is it limited here. veRL cuts it off at 10, which is `k3_clamped`: a token that is
13 times rarer than in the reference is not pulled back any more. What is always bounded is the
log-ratio, at 20 nats, so that no number is infinite.
"""

from __future__ import annotations

from dataclasses import dataclass

from aha.algo.lazy_torch import torch
from aha.algo.ratios import bounded, ratio_of
from aha.algo.registry import Registry, without_gradient


@dataclass(frozen=True)
class EstimatorFacts:
    """Where an estimator may stand: its gradient decides that, not its value."""

    in_loss: bool = True
    in_reward: bool = False


ESTIMATORS: Registry[EstimatorFacts] = Registry(
    "kl_estimator",
    EstimatorFacts,
    {},
    inputs=("old_logprobs_BT",),
    num_positional=2,
)
estimator = ESTIMATORS  # @estimator("name", in_loss=..., in_reward=...)
IN_REWARD, IN_LOSS = "k1", "k3+"  # where the recipe leaves the estimator open


@estimator("k1", in_loss=False, in_reward=True)
def k1(logprobs_BT: torch.Tensor, ref_logprobs_BT: torch.Tensor) -> torch.Tensor:
    """logp - ref. Unbiased, of either sign. [B, T] -> [B, T].

    Source: Schulman 2020, 'Approximating KL'.
    """
    return logprobs_BT - ref_logprobs_BT


@estimator("k2")
def k2(logprobs_BT: torch.Tensor, ref_logprobs_BT: torch.Tensor) -> torch.Tensor:
    """(logp - ref)^2 / 2. Biased value, right gradient. [B, T] -> [B, T].

    Source: as k1; arXiv 2510.01555.
    """
    return 0.5 * (logprobs_BT - ref_logprobs_BT).square()


@estimator("k3")
def k3(logprobs_BT: torch.Tensor, ref_logprobs_BT: torch.Tensor) -> torch.Tensor:
    """e^d - d - 1 with d = ref - logp. Unbiased and >= 0, gradient of the other KL.
    [B, T] -> [B, T].

    Source: as k1; the KL of GRPO (arXiv 2402.03300).
    """
    d_BT = bounded(ref_logprobs_BT - logprobs_BT)
    return d_BT.exp() - d_BT - 1


@estimator("k3_clamped")
def k3_clamped(logprobs_BT: torch.Tensor, ref_logprobs_BT: torch.Tensor) -> torch.Tensor:
    """k3, at most 10 for a token; at that limit it has no gradient. [B, T] -> [B, T].

    Source: veRL's `low_var_kl`. No paper has the limit.
    """
    return k3(logprobs_BT, ref_logprobs_BT).clamp(max=10.0)


@estimator("k3+")
def k3_plus(logprobs_BT: torch.Tensor, ref_logprobs_BT: torch.Tensor) -> torch.Tensor:
    """The value of k3 with the gradient of k2, which is that of KL(policy || reference).
    [B, T] -> [B, T].

    Source: veRL's "k3+" (arXiv 2510.01555).
    """
    right_BT = k2(logprobs_BT, ref_logprobs_BT)
    return right_BT - right_BT.detach() + k3(logprobs_BT, ref_logprobs_BT).detach()


@estimator("k3_off_policy")
def k3_off_policy(
    logprobs_BT: torch.Tensor,
    ref_logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
) -> torch.Tensor:
    """k3 times the ratio, which carries gradient: unbiased for tokens sampled by an older policy,
    and its gradient is that of KL(policy || reference) for any. [B, T] -> [B, T].

    Source: DeepSeek-V3.2 (arXiv 2512.02556).
    """
    return ratio_of(logprobs_BT, old_logprobs_BT) * k3(logprobs_BT, ref_logprobs_BT)


@without_gradient
def kl_in_reward(
    rewards_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    ref_logprobs_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    coef: float,
) -> torch.Tensor:
    """r_t - coef (old - ref), [B, T]: token rewards less the KL to the reference.

    Without gradient: the KL is part of the reward, and the policy gradient does the rest.
    Source: Ouyang et al. 2022 (arXiv 2203.02155); PPO, RLOO and REINFORCE++ use it.
    """
    return (rewards_BT - coef * k1(old_logprobs_BT, ref_logprobs_BT)) * mask_BT
