"""Advantages: how much better a completion is than a baseline, by what it is compared with.

An advantage of the group kind maps rewards [P, G] to advantages [P, G] in the rewards' precision.
It may name `lengths_PG`, the tokens of each completion (without them all count as equally long),
`drops_flat`, whether the recipe's rule for flat groups takes them out of the batch, and `k`, the
recipe's `algo.pass_k`. A group whose rewards are all equal gets exactly 0 from every
advantage that compares a group: in float32 the mean of equal numbers can be one unit off, and a
division by a tiny deviation would turn that into a real push. So does a group of one.

A KL in the reward is that of the whole completion and is subtracted before this. An advantage that
names `kl_PGT` gets it token by token instead, 0 after a completion's end, and returns [P, G, T].

An advantage with a critic maps rewards [B, T], values [B, T] and a mask [B, T] to advantages and
returns, both [B, T], token by token.

Shapes: P prompts, G completions of a prompt, B rows, T tokens.

At the end of the file: what a critic needs besides its advantage.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb
from typing import Literal

from aha.algo.lazy_torch import torch
from aha.algo.registry import Registry


@dataclass(frozen=True)
class AdvantageFacts:
    """What the rest of the program has to know of an advantage."""

    group: bool = True  # compares the completions of one prompt: alone, each gets 0
    critic: bool = False  # is computed token by token, from a value model
    # "binary": counts successes. It gets 1 for right and 0 for wrong in place of the rewards: what
    # is paid for the form, or for a part of the answer, is no success.
    rewards: Literal["any", "binary"] = "any"


ADVANTAGES: Registry[AdvantageFacts] = Registry(
    "advantage",
    AdvantageFacts,
    {"pass_k": ("k",), "gamma": ("gamma",), "lam": ("lam",)},
    # rewards_PG by position; with a critic rewards_BT, values_BT and mask_BT.
    inputs=("lengths_PG", "drops_flat", "kl_PGT", "values_BT", "mask_BT"),
)
ADVANTAGES.former = {"batch_std": ("lite_ppo", "scale_rl")}
advantage = ADVANTAGES  # @advantage("name", group=..., critic=..., rewards=...)


def informative(rewards_PG: torch.Tensor) -> torch.Tensor:
    """[P, 1]: whether a group has two different rewards, so that it can teach anything."""
    return rewards_PG.amax(1, keepdim=True) > rewards_PG.amin(1, keepdim=True)


@advantage("dr_grpo")
def dr_grpo(rewards_PG: torch.Tensor) -> torch.Tensor:
    """R - mean(group). No division by the deviation, which would favour the groups that are
    nearly all right or nearly all wrong. [P, G] -> [P, G].

    Source: Liu et al. 2025, 'Understanding R1-Zero-like training' (arXiv 2503.20783).
    """
    return (rewards_PG - rewards_PG.mean(1, keepdim=True)) * informative(rewards_PG)


@advantage("grpo")
def grpo(rewards_PG: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """(R - mean(group)) / (std(group) + eps), the deviation with G - 1. [P, G] -> [P, G].

    Source: Shao et al. 2024, DeepSeekMath (arXiv 2402.03300); G - 1 as in veRL and TRL.
    """
    if rewards_PG.shape[1] == 1:
        return torch.zeros_like(rewards_PG)
    centred_PG = rewards_PG - rewards_PG.mean(1, keepdim=True)
    return centred_PG / (rewards_PG.std(1, keepdim=True) + eps) * informative(rewards_PG)


@advantage("lite_ppo")
def lite_ppo(rewards_PG: torch.Tensor, eps: float = 1e-4) -> torch.Tensor:
    """(R - mean(group)) / (std(all rewards of the step) + eps). [P, G] -> [P, G].

    Source: Lite PPO, in 'Tricks or traps?' (arXiv 2508.08221); eps as in TRL.
    """
    if rewards_PG.numel() == 1:
        return torch.zeros_like(rewards_PG)
    return dr_grpo(rewards_PG) / (rewards_PG.std() + eps)


@advantage("scale_rl")
def scale_rl(
    rewards_PG: torch.Tensor, eps: float = 1e-6, *, drops_flat: bool = False
) -> torch.Tensor:
    """(R - mean(group)) / (std of that over the batch + eps). [P, G] -> [P, G].

    The batch is what the rule for flat groups leaves: with `drops_flat` their zeros are not in the
    deviation, as the paper's objective asks for prompts with 0 < mean(R) < 1 alone.
    Source: ScaleRL (arXiv 2510.13786), section 4. The deviation is that of the advantages: that of
    the rewards, as in `lite_ppo`, also counts how much prompts differ from each other.
    """
    centred_PG = dr_grpo(rewards_PG)
    batch_N = centred_PG[informative(rewards_PG).squeeze(1)] if drops_flat else centred_PG
    if batch_N.numel() < 2:
        return torch.zeros_like(rewards_PG)
    return centred_PG / (batch_N.std() + eps)


@advantage("rloo")
def rloo(rewards_PG: torch.Tensor) -> torch.Tensor:
    """R - mean of the others in the group = G/(G-1) * (R - mean). [P, G] -> [P, G].

    Source: Ahmadian et al. 2024, 'Back to Basics' (arXiv 2402.14740).
    Differs: a group of one gets 0; some trainers leave it its raw reward.
    """
    G = rewards_PG.shape[1]
    return dr_grpo(rewards_PG) * (G / max(1, G - 1))


@advantage("reinforce", group=False)
def reinforce(rewards_PG: torch.Tensor) -> torch.Tensor:
    """R - mean(all rewards of the step): the plainest baseline, which knows no groups.
    [P, G] -> [P, G].

    Source: Williams 1992, with the mean reward as reinforcement baseline.
    Differs: the mean is that of the step, not of all steps so far; a step in which all rewards
    are equal gets exactly 0.
    """
    return (rewards_PG - rewards_PG.mean()) * (rewards_PG.amax() > rewards_PG.amin())


@advantage("reinforce_pp", group=False)
def reinforce_pp(
    rewards_PG: torch.Tensor,
    lengths_PG: torch.Tensor | None = None,
    kl_PGT: torch.Tensor | None = None,
) -> torch.Tensor:
    """(A - mean) / std over all tokens of the step, A_t = R - the KL from token t on: no group.
    [P, G] -> [P, G], with `kl_PGT` [P, G, T].

    `kl_PGT`: beta * (log p - log p_ref) of each token, where the recipe pays the KL in the reward.
    Without it each token's return is its completion's reward, so whitening over tokens is whitening
    over completions weighted by length.
    Source: REINFORCE++ (arXiv 2501.03262); the variance with N - 1 and 1e-8 as in veRL.
    Differs: a step in which all returns are equal gets exactly 0.
    """
    if lengths_PG is None:
        lengths_PG = torch.ones_like(rewards_PG)
    if kl_PGT is not None:
        return whitened_returns(rewards_PG, lengths_PG, kl_PGT)
    if rewards_PG.amax() == rewards_PG.amin():
        return torch.zeros_like(rewards_PG)
    tokens = lengths_PG.sum()
    centred_PG = rewards_PG - (rewards_PG * lengths_PG).sum() / tokens
    variance = (centred_PG.square() * lengths_PG).sum() / (tokens - 1).clamp(min=1)
    return centred_PG * (variance + 1e-8).rsqrt()


def whitened_returns(
    rewards_PG: torch.Tensor, lengths_PG: torch.Tensor, kl_PGT: torch.Tensor
) -> torch.Tensor:
    """[P, G, T]: the reward at the last token less the KL from each token on, whitened over all
    tokens of the step. Rewards and KL in float64, if the last digits matter."""
    kl_NT, lengths_N1 = kl_PGT.flatten(0, 1), lengths_PG.reshape(-1, 1)
    place_T = torch.arange(kl_NT.shape[1], device=kl_NT.device)
    mask_NT = (place_T < lengths_N1).to(kl_NT.dtype)
    end_NT = (place_T == lengths_N1 - 1).to(kl_NT.dtype)
    returns_NT = returns_to_go(rewards_PG.reshape(-1, 1) * end_NT - kl_NT, mask_NT)
    own_N = returns_NT[mask_NT > 0]
    if own_N.amax() == own_N.amin():
        return torch.zeros_like(kl_PGT)
    return whiten(returns_NT, mask_NT).view_as(kl_PGT)


@advantage("reinforce_pp_baseline")
def reinforce_pp_baseline(rewards_PG: torch.Tensor) -> torch.Tensor:
    """(R - mean(group)) / deviation of that over the step's completions. [P, G] -> [P, G].

    Source: REINFORCE++ (arXiv 2501.03262), the variant with a group baseline.
    Differs from veRL and OpenRLHF, which whiten over tokens: their mean over tokens is not 0, so a
    group of equal rewards is pushed. Here the mean is 0 by construction.
    """
    centred_PG = dr_grpo(rewards_PG)
    variance = centred_PG.square().sum() / max(1, centred_PG.numel() - 1)
    return centred_PG * (variance + 1e-8).rsqrt()


@advantage("max_rl", rewards="binary")
def max_rl(rewards_PG: torch.Tensor) -> torch.Tensor:
    """(R - mean) / mean with R = 1 for right and 0 for wrong: the rarer success is, the more it
    counts. [P, G] -> [P, G].

    Source: 'MaxRL' (arXiv 2602.02710), which maximises the log-likelihood of a right answer. A
    group without any success gets 0.
    """
    mean_P1 = rewards_PG.mean(1, keepdim=True)
    divisor_P1 = torch.where(mean_P1 > 0, mean_P1, torch.ones_like(mean_P1))
    centred_PG = torch.where(mean_P1 > 0, rewards_PG - mean_P1, torch.zeros_like(rewards_PG))
    return centred_PG / divisor_P1 * informative(rewards_PG)


@advantage("pass_at_k", rewards="binary")
def pass_at_k(rewards_PG: torch.Tensor, k: int = 4) -> torch.Tensor:
    """What a completion adds to the chance that one of k is right; R = 1 for right, 0 for wrong.
    [P, G] -> [P, G].

    With c of n right, rho = 1 - C(n-c, k)/C(n, k) and s = sqrt(rho (1 - rho)):
      right  (1 - rho) / s
      wrong  (1 - rho - C(n-c-1, k-1)/C(n-1, k-1)) / s
    It is 0 for a group with more than n - k right: there is nothing to gain at this k.
    Source: 'Pass@k training' (arXiv 2508.10751), its analytic advantage.
    """
    right_PG = rewards_PG > 0.5
    n = rewards_PG.shape[1]
    k = min(k, n)
    pairs = [pass_at_k_pair(n, int(c), k) for c in right_PG.sum(1)]
    pairs_P2 = torch.tensor(pairs, dtype=rewards_PG.dtype, device=rewards_PG.device)
    return torch.where(right_PG, pairs_P2[:, :1], pairs_P2[:, 1:])


def pass_at_k_pair(n: int, c: int, k: int, eps: float = 1e-6) -> tuple[float, float]:
    """Advantages of a right and of a wrong completion in a group of n with c right."""
    if c == 0 or c > n - k:
        return 0.0, 0.0
    rho = 1 - comb(n - c, k) / comb(n, k)
    deviation = (rho * (1 - rho)) ** 0.5 + eps
    alone = comb(n - c - 1, k - 1) / comb(n - 1, k - 1)
    return (1 - rho) / deviation, (1 - rho - alone) / deviation


@advantage("opo")
def opo(rewards_PG: torch.Tensor, lengths_PG: torch.Tensor | None = None) -> torch.Tensor:
    """R - sum(L R) / sum(L): the baseline of least variance when gradients grow with length.
    [P, G] -> [P, G].

    Source: 'On-Policy RL with Optimal reward baseline' (arXiv 2505.23585).
    """
    if lengths_PG is None:
        lengths_PG = torch.ones_like(rewards_PG)
    total_P1 = lengths_PG.sum(1, keepdim=True)
    baseline_P1 = (lengths_PG * rewards_PG).sum(1, keepdim=True) / total_P1
    return (rewards_PG - baseline_P1) * informative(rewards_PG)


@advantage("gae", critic=True, group=False)
def gae(
    rewards_BT: torch.Tensor,
    values_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    gamma: float = 1.0,
    lam: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalised advantage estimation: advantages and returns, before whitening.

    [B, T] three times -> [B, T] twice.

    d_t = r_t + gamma V_{t+1} - V_t;  A_t = d_t + gamma lam A_{t+1};  return = A + V.
    Where the mask is 0 inside a row, A and V are carried over.
    Source: Schulman et al. 2015 (arXiv 1506.02438).
    Differs from TinyZero, whose recursion ignores the mask.
    """
    next_value_B = torch.zeros_like(values_BT[:, 0])
    later_B = torch.zeros_like(next_value_B)
    columns = []
    for t in reversed(range(rewards_BT.shape[1])):
        mask_B, value_B = mask_BT[:, t], values_BT[:, t]
        delta_B = rewards_BT[:, t] + gamma * next_value_B - value_B
        later_B = mask_B * (delta_B + gamma * lam * later_B) + (1 - mask_B) * later_B
        next_value_B = mask_B * value_B + (1 - mask_B) * next_value_B
        columns.append(later_B)
    advantages_BT = torch.stack(columns[::-1], 1)
    return advantages_BT * mask_BT, (advantages_BT + values_BT) * mask_BT


EPS = 1e-8


# -- what a critic needs besides its advantage: whitening, returns, the value loss ---------------


def whiten(values_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """(x - mean) / sqrt(var + 1e-8) over the tokens of the mask, the variance with N - 1.

    [B, T] -> [B, T], 0 where the mask is 0.  Source: PPO as in veRL and OpenRLHF.
    """
    tokens = mask_BT.sum()
    centred = values_BT - (values_BT * mask_BT).sum() / tokens
    variance = (centred.square() * mask_BT).sum() / (tokens - 1).clamp(min=1)
    return centred * (variance + EPS).rsqrt() * mask_BT


def returns_to_go(
    rewards_BT: torch.Tensor, mask_BT: torch.Tensor, gamma: float = 1.0
) -> torch.Tensor:
    """G_t = r_t + gamma G_{t+1}, over the tokens of the mask alone.

    [B, T] -> [B, T]. A gap does not end a row: a sum that starts anew there loses the reward at the
    end, as one trainer's did.
    """
    later = torch.zeros_like(rewards_BT[:, 0])
    columns = []
    for t in reversed(range(rewards_BT.shape[1])):
        mask = mask_BT[:, t]
        later = mask * (rewards_BT[:, t] + gamma * later) + (1 - mask) * later
        columns.append(later * mask)
    return torch.stack(columns[::-1], 1)


def value_loss(
    values_BT: torch.Tensor,
    old_values_BT: torch.Tensor,
    returns_BT: torch.Tensor,
    clip: float = 0.5,
) -> torch.Tensor:
    """0.5 max((V - R)^2, (clip(V, old - c, old + c) - R)^2), one number for every token.

    [B, T] -> [B, T]. Its denominator is the tokens of the whole step: a mean over each micro-batch
    would give short micro-batches more weight.
    Source: the PPO reference code; clip 0.5 as in veRL and OpenRLHF.
    """
    clipped_BT = torch.clamp(values_BT, old_values_BT - clip, old_values_BT + clip)
    errors_BT = torch.maximum((values_BT - returns_BT).square(), (clipped_BT - returns_BT).square())
    return 0.5 * errors_BT
