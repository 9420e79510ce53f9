"""Advantages: each completion's credit against its own group.

Every estimator maps rewards [P, G] to advantages [P, G] in the rewards' own precision. A group in
which all rewards are equal gets exactly 0 from every estimator that compares a group: in float32
a mean of equal numbers can be one unit off, and a division by a tiny deviation would turn that
into a real push (trap T3 of our notes). So does a group of one. `lengths_PG` are the completions'
tokens; without them all count as equally long.
"""

from math import comb

import torch

from aha.algo.registry import Registry

ADVANTAGES = Registry()
advantage = ADVANTAGES  # @advantage("name")


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
    if rewards_PG.shape[1] == 1:
        return torch.zeros_like(rewards_PG)
    centred = rewards_PG - rewards_PG.mean(1, keepdim=True)
    return centred / (rewards_PG.std(1, keepdim=True) + eps) * informative(rewards_PG)


@advantage("batch_std")
def batch_std(rewards_PG: torch.Tensor, eps: float = 1e-4) -> torch.Tensor:
    """(R - mean(group)) / (std(all rewards of the step) + eps).

    Source: ScaleRL (arXiv 2510.13786); eps as in TRL.
    """
    if rewards_PG.numel() == 1:
        return torch.zeros_like(rewards_PG)
    return dr_grpo(rewards_PG) / (rewards_PG.std() + eps)


@advantage("rloo")
def rloo(rewards_PG: torch.Tensor) -> torch.Tensor:
    """R - mean of the others in the group = G/(G-1) * (R - mean).

    Source: Ahmadian et al. 2024, 'Back to Basics' (arXiv 2402.14740).
    Differs: a group of one gets 0; some trainers leave it its raw reward.
    """
    G = rewards_PG.shape[1]
    return dr_grpo(rewards_PG) * (G / max(1, G - 1))


@advantage("reinforce")
def reinforce(rewards_PG: torch.Tensor) -> torch.Tensor:
    """R - mean(all rewards of the step): the plainest baseline, which knows no groups.

    Source: Williams 1992, with the mean reward as reinforcement baseline.
    Differs: the mean is that of the step, not of all steps so far; a step in which all rewards
    are equal gets exactly 0.
    """
    return (rewards_PG - rewards_PG.mean()) * (rewards_PG.amax() > rewards_PG.amin())


@advantage("reinforce_pp")
def reinforce_pp(rewards_PG: torch.Tensor, lengths_PG=None) -> torch.Tensor:
    """(R - mean) / std over all tokens of the step: no group baseline.

    With one reward at the end and no discount each token's return is its completion's reward, so
    whitening over tokens is whitening over completions weighted by length.
    Source: REINFORCE++ (arXiv 2501.03262).
    Differs: a step in which all rewards are equal gets exactly 0.
    """
    if lengths_PG is None:
        lengths_PG = torch.ones_like(rewards_PG)
    if rewards_PG.amax() == rewards_PG.amin():
        return torch.zeros_like(rewards_PG)
    tokens = lengths_PG.sum()
    centred = rewards_PG - (rewards_PG * lengths_PG).sum() / tokens
    variance = (centred.square() * lengths_PG).sum() / (tokens - 1).clamp(min=1)
    return centred * (variance + 1e-8).rsqrt()


@advantage("reinforce_pp_baseline")
def reinforce_pp_baseline(rewards_PG: torch.Tensor) -> torch.Tensor:
    """(R - mean(group)) / deviation of that over the step's completions.

    Source: REINFORCE++ (arXiv 2501.03262), the variant with a group baseline.
    Differs from veRL and OpenRLHF, which whiten over tokens: their mean over tokens is not 0, so
    a group of equal rewards is pushed (trap T2). Here the mean is 0 by construction.
    """
    centred = dr_grpo(rewards_PG)
    variance = centred.square().sum() / max(1, centred.numel() - 1)
    return centred * (variance + 1e-8).rsqrt()


@advantage("max_rl")
def max_rl(rewards_PG: torch.Tensor) -> torch.Tensor:
    """(R - mean) / mean for rewards >= 0: the rarer success is, the more it counts.

    Source: 'MaxRL' (arXiv 2602.02710). A group without any success gets 0.
    """
    mean = rewards_PG.mean(1, keepdim=True)
    safe = torch.where(mean > 0, mean, torch.ones_like(mean))
    centred = torch.where(mean > 0, rewards_PG - mean, torch.zeros_like(rewards_PG))
    return centred / safe * informative(rewards_PG)


@advantage("pass_at_k")
def pass_at_k(rewards_PG: torch.Tensor, k: int = 4) -> torch.Tensor:
    """Credit for what a completion adds to the chance that one of k is right; rewards 0 or 1.

    With c of n right, rho = 1 - C(n-c, k)/C(n, k) and s = sqrt(rho (1 - rho)):
      right  (1 - rho) / s
      wrong  (1 - rho - C(n-c-1, k-1)/C(n-1, k-1)) / s
    It is 0 for a group with more than n - k right: there is nothing to gain at this k.
    Source: 'Pass@k training' (arXiv 2508.10751). A reward above 0.5 counts as right.
    """
    right_PG = rewards_PG > 0.5
    n = rewards_PG.shape[1]
    k = min(k, n)
    rows = [pass_at_k_credits(n, int(c), k) for c in right_PG.sum(1)]
    credits_P2 = torch.tensor(rows, dtype=rewards_PG.dtype, device=rewards_PG.device)
    return torch.where(right_PG, credits_P2[:, :1], credits_P2[:, 1:])


def pass_at_k_credits(n: int, c: int, k: int, eps: float = 1e-6) -> tuple[float, float]:
    """Advantages of a right and of a wrong completion in a group of n with c right."""
    if c == 0 or c > n - k:
        return 0.0, 0.0
    rho = 1 - comb(n - c, k) / comb(n, k)
    deviation = (rho * (1 - rho)) ** 0.5 + eps
    alone = comb(n - c - 1, k - 1) / comb(n - 1, k - 1)
    return (1 - rho) / deviation, (1 - rho - alone) / deviation


@advantage("opo")
def opo(rewards_PG: torch.Tensor, lengths_PG=None) -> torch.Tensor:
    """R - sum(L R) / sum(L): the baseline of least variance when gradients grow with length.

    Source: 'On-Policy RL with Optimal reward baseline' (arXiv 2505.23585).
    """
    if lengths_PG is None:
        lengths_PG = torch.ones_like(rewards_PG)
    baseline = (lengths_PG * rewards_PG).sum(1, keepdim=True) / lengths_PG.sum(1, keepdim=True)
    return (rewards_PG - baseline) * informative(rewards_PG)
