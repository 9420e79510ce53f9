"""What a critic needs besides its advantage: whitening, returns without a baseline, the value loss.

All tensors are [B, T]. A mask of 0 inside a row stands for text that the policy did not write: it
is carried over, so that the tokens before it still get the reward after it.
"""

from __future__ import annotations

from aha.algo.lazy_torch import torch

EPS = 1e-8


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
