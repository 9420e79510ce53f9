"""Advantages: each completion's credit against its own group.

Every estimator maps rewards [P, G] to advantages [P, G], float32. A group in which all rewards are
equal gets exactly 0: in float32 a mean of equal numbers can be one unit off, and a division by a
tiny deviation would turn that into a real push (trap T3 of our notes).
"""

from collections.abc import Callable

import torch

ADVANTAGES: dict[str, Callable] = {}


def advantage(name: str):
    """Register an estimator under the name that recipes use."""

    def register(function: Callable) -> Callable:
        ADVANTAGES[name] = function
        return function

    return register


def informative(rewards_PG: torch.Tensor) -> torch.Tensor:
    """[P, 1]: whether a group has two different rewards, so that it can teach anything."""
    return rewards_PG.amax(1, keepdim=True) > rewards_PG.amin(1, keepdim=True)


@advantage("dr_grpo")
def dr_grpo(rewards_PG: torch.Tensor) -> torch.Tensor:
    """R - mean(group). No division by the deviation, which would favour the groups that are
    nearly all right or nearly all wrong.

    Source: Liu et al. 2025, 'Understanding R1-Zero-like training' (arXiv 2503.20783).
    """
    return (rewards_PG - rewards_PG.mean(1, keepdim=True)) * informative(rewards_PG)


@advantage("grpo")
def grpo(rewards_PG: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """(R - mean(group)) / (std(group) + eps), the deviation with G - 1.

    Source: Shao et al. 2024, DeepSeekMath (arXiv 2402.03300); G - 1 as in veRL and TRL.
    """
    centred = rewards_PG - rewards_PG.mean(1, keepdim=True)
    return centred / (rewards_PG.std(1, keepdim=True) + eps) * informative(rewards_PG)


@advantage("rloo")
def rloo(rewards_PG: torch.Tensor) -> torch.Tensor:
    """R - mean of the others in the group = G/(G-1) * (R - mean).

    Source: Ahmadian et al. 2024, 'Back to Basics' (arXiv 2402.14740).
    """
    G = rewards_PG.shape[1]
    return dr_grpo(rewards_PG) * (G / (G - 1))


@advantage("max_rl")
def max_rl(rewards_PG: torch.Tensor) -> torch.Tensor:
    """(R - mean) / mean for rewards >= 0: the rarer success is, the more it counts.

    Source: 'MaxRL' (arXiv 2602.02710). A group without any success gets 0.
    """
    mean = rewards_PG.mean(1, keepdim=True)
    safe = torch.where(mean > 0, mean, torch.ones_like(mean))
    return (rewards_PG - mean) / safe * informative(rewards_PG)
