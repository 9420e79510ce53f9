"""Estimates of KL(policy || reference), one number for every token, in nats.

In the loss and in the reward are different methods. The gradient of an estimate is not an
estimate of the gradient: in the loss k1 pushes nowhere, k2, k3+ and k3_off_policy follow
KL(policy || reference), and k3 follows KL(reference || policy), the other one (our vector
kl/expected_gradient).
"""

from __future__ import annotations

from dataclasses import dataclass

from aha.algo.lazy_torch import torch
from aha.algo.registry import Registry, without_gradient


@dataclass(frozen=True)
class EstimatorFacts:
    """Where an estimator may stand: its gradient decides that, not its value."""

    in_loss: bool = True
    in_reward: bool = False


ESTIMATORS: Registry[EstimatorFacts] = Registry("kl_estimator", EstimatorFacts)
estimator = ESTIMATORS  # @estimator("name")
IN_REWARD, IN_LOSS = "k1", "k3+"  # where the recipe leaves the estimator open

MAX_LOG_RATIO = 20.0  # before exp
MAX_KL = 10.0  # a single token's k3 explodes where the reference likes it far better


@estimator("k1", in_loss=False, in_reward=True)
def k1(logprobs_BT, ref_logprobs_BT) -> torch.Tensor:
    """logp - ref. Unbiased, of either sign.  Source: Schulman 2020, 'Approximating KL'."""
    return logprobs_BT - ref_logprobs_BT


@estimator("k2")
def k2(logprobs_BT, ref_logprobs_BT) -> torch.Tensor:
    """(logp - ref)^2 / 2. Biased value, right gradient.  Source: as k1; arXiv 2510.01555."""
    return 0.5 * (logprobs_BT - ref_logprobs_BT).square()


@estimator("k3")
def k3(logprobs_BT, ref_logprobs_BT) -> torch.Tensor:
    """e^d - d - 1 with d = ref - logp. Unbiased and >= 0, gradient of the other KL.

    Source: as k1; the KL of GRPO (arXiv 2402.03300). Clamped as in veRL.
    """
    d = (ref_logprobs_BT - logprobs_BT).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return (d.exp() - d - 1).clamp(-MAX_KL, MAX_KL)


@estimator("k3+")
def k3_plus(logprobs_BT, ref_logprobs_BT) -> torch.Tensor:
    """The value of k3 with the gradient of k2, which is that of KL(policy || reference).

    Source: veRL's "k3+" (arXiv 2510.01555).
    """
    right = k2(logprobs_BT, ref_logprobs_BT)
    return right - right.detach() + k3(logprobs_BT, ref_logprobs_BT).detach()


@estimator("k3_off_policy")
def k3_off_policy(logprobs_BT, ref_logprobs_BT, old_logprobs_BT) -> torch.Tensor:
    """k3 times the ratio, which carries gradient: unbiased for tokens drawn by an older policy,
    and its gradient is that of KL(policy || reference) for any.

    Source: DeepSeek-V3.2 (arXiv 2512.02556).
    """
    ratio = (logprobs_BT - old_logprobs_BT).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    return ratio * k3(logprobs_BT, ref_logprobs_BT)


@without_gradient
def kl_in_reward(rewards_BT, old_logprobs_BT, ref_logprobs_BT, mask_BT, coef: float):
    """r_t - coef (old - ref): token rewards after the price of leaving the reference.

    Without gradient: the price is a reward, and the policy gradient does the rest.
    Source: Ouyang et al. 2022 (arXiv 2203.02155); PPO, RLOO and REINFORCE++ use it.
    """
    return (rewards_BT - coef * k1(old_logprobs_BT, ref_logprobs_BT)) * mask_BT
