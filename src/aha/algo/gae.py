"""What a critic adds: returns and advantages token by token, and the value loss.

All tensors are [B, T]; a mask of 0 inside a row (text that the policy did not write) is carried
over: the tokens before it still see the rewards after it.
"""

import torch

EPS = 1e-8


def whiten(values_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """(x - mean) / sqrt(var + 1e-8) over the tokens of the mask, the variance with N - 1."""
    tokens = mask_BT.sum()
    centred = values_BT - (values_BT * mask_BT).sum() / tokens
    variance = (centred.square() * mask_BT).sum() / (tokens - 1).clamp(min=1)
    return centred * (variance + EPS).rsqrt() * mask_BT


def returns_to_go(rewards_BT: torch.Tensor, mask_BT: torch.Tensor, gamma: float = 1.0):
    """G_t = r_t + gamma G_{t+1}, over the tokens of the mask alone.

    A gap does not cut a row: resetting the sum there loses the reward at the end (trap T7).
    """
    later = torch.zeros_like(rewards_BT[:, 0])
    columns = []
    for t in reversed(range(rewards_BT.shape[1])):
        mask = mask_BT[:, t]
        later = mask * (rewards_BT[:, t] + gamma * later) + (1 - mask) * later
        columns.append(later * mask)
    return torch.stack(columns[::-1], 1)


def gae(rewards_BT, values_BT, mask_BT, gamma: float = 1.0, lam: float = 1.0):
    """Generalised advantage estimation: (advantages, returns), both before whitening.

    d_t = r_t + gamma V_{t+1} - V_t;  A_t = d_t + gamma lam A_{t+1};  return = A + V.
    Source: Schulman et al. 2015 (arXiv 1506.02438). In a gap of the mask A and V are carried over.
    Differs from TinyZero, whose recursion ignores the mask.
    """
    next_value = torch.zeros_like(values_BT[:, 0])
    later = torch.zeros_like(next_value)
    columns = []
    for t in reversed(range(rewards_BT.shape[1])):
        mask, value = mask_BT[:, t], values_BT[:, t]
        delta = rewards_BT[:, t] + gamma * next_value - value
        later = mask * (delta + gamma * lam * later) + (1 - mask) * later
        next_value = mask * value + (1 - mask) * next_value
        columns.append(later)
    advantages_BT = torch.stack(columns[::-1], 1)
    return advantages_BT * mask_BT, (advantages_BT + values_BT) * mask_BT


def value_loss(values_BT, old_values_BT, returns_BT, clip: float = 0.5) -> torch.Tensor:
    """0.5 max((V - R)^2, (clip(V, old - c, old + c) - R)^2), one number for every token.

    Source: the PPO reference code; clip 0.5 as in veRL and OpenRLHF. Weights as for the policy's
    loss: a denominator of its own for each micro-batch is trap T12.
    """
    clipped = torch.clamp(values_BT, old_values_BT - clip, old_values_BT + clip)
    errors = torch.maximum((values_BT - returns_BT).square(), (clipped - returns_BT).square())
    return 0.5 * errors
