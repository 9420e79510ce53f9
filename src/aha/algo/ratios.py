"""Ratios of probabilities, kept finite, and sums over a completion's own tokens.

Shapes: B rows, T tokens; B1 one number for each row.
"""

from __future__ import annotations

from aha.algo.lazy_torch import torch

MAX_LOG_RATIO = 20.0  # keeps exp() finite; no sane ratio comes near e^20


def bounded(log_ratio: torch.Tensor) -> torch.Tensor:
    """A log-ratio within +-`MAX_LOG_RATIO`, of any shape."""
    return log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def ratio_of(logprobs: torch.Tensor, old_logprobs: torch.Tensor) -> torch.Tensor:
    """exp(logprobs - old_logprobs), of any shape, with the gradient of `logprobs`."""
    return bounded(logprobs - old_logprobs).exp()


def row_sum(values_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """[B, 1]: the sum over a completion's own tokens."""
    return (values_BT * mask_BT).sum(1, keepdim=True)


def row_mean(values_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """[B, 1]: the mean over a completion's own tokens; 0 for a row without any."""
    return row_sum(values_BT, mask_BT) / mask_BT.sum(1, keepdim=True).clamp(min=1)
