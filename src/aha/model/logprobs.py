"""Log-probs of tokens from a large vocabulary, a chunk of positions at a time.

Qwen's vocabulary has 151,936 entries: the logits of 4,096 positions alone would be 2.5 GB in
float32, and a plain backward pass holds several such tensors. Here the logits of a chunk of
positions are computed, used and dropped; the backward pass computes them again, which costs one
more product.

Shapes: B rows, T tokens, N positions (B T, or the M of a layout), V vocabulary, C hidden size.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from aha.algo.entropy import token_entropy
from aha.core.sizes import LOGITS_CHUNK
from aha.model import fused, ops


def logprobs_and_entropy(
    hidden_BTC: torch.Tensor,
    lm_head_VC: torch.Tensor,
    targets_BT: torch.Tensor,
    temperature: float = 1.0,
    entropy: bool = False,
    chunk: int = LOGITS_CHUNK,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """log p(target) [B, T] in float32, nats, and the entropy [B, T] of each position's
    distribution, or None if `entropy` is False. With a layout all three are flat: [M, C], [M].

    The logits are `hidden @ lm_headᵀ / temperature`. No more than `chunk` of them exist at a time,
    forward or backward, if there are that many at all.
    """
    if targets_BT.numel() * lm_head_VC.shape[0] <= chunk:
        logits_BTV = logits_of(hidden_BTC, lm_head_VC, temperature)
        logprobs_BT = ops.token_logprobs(logits_BTV, targets_BT)
        return logprobs_BT, token_entropy(logits_BTV) if entropy else None
    rows = max(1, chunk // lm_head_VC.shape[0])
    logprobs_N, entropies_N = _InChunks.apply(  # type: ignore[no-untyped-call]
        hidden_BTC.flatten(0, -2), lm_head_VC, targets_BT.flatten(), temperature, entropy, rows
    )
    logprobs_BT = logprobs_N.view_as(targets_BT)
    return logprobs_BT, entropies_N.view_as(targets_BT) if entropy else None


def logits_of(hidden: torch.Tensor, lm_head_VC: torch.Tensor, temperature: float) -> torch.Tensor:
    """[..., C] -> [..., V], divided by the temperature."""
    logits: torch.Tensor
    if fused.keeps_float32(hidden):
        logits = _WideLogits.apply(hidden, lm_head_VC)  # type: ignore[no-untyped-call]
    else:
        logits = F.linear(hidden, lm_head_VC)
    return logits if temperature == 1.0 else logits / temperature


def slices(count: int, rows: int) -> list[slice]:
    """0 .. count - 1 in pieces of `rows`."""
    return [slice(first, first + rows) for first in range(0, count, rows)]


def log_softmax(
    hidden_NC: torch.Tensor, lm_head_VC: torch.Tensor, temperature: float
) -> torch.Tensor:
    """Log-probs [N, V] of the whole vocabulary, at least float32."""
    logits_NV = logits_of(hidden_NC, lm_head_VC, temperature)
    return torch.log_softmax(logits_NV, -1, dtype=ops.at_least_float32(logits_NV))


def entropy_of(logprobs_NV: torch.Tensor, probs_NV: torch.Tensor) -> torch.Tensor:
    """-sum(p log p) [N], nats."""
    negative: torch.Tensor = torch.linalg.vecdot(probs_NV, logprobs_NV)
    return -negative


class _WideLogits(torch.autograd.Function):
    """bf16 [..., C] times bf16 [V, C]: float32 [..., V]. The products of the backward pass are
    bf16's, like those of all other maps."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, lm_head_VC: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(hidden, lm_head_VC)
        return fused.logits(hidden, lm_head_VC)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        hidden, lm_head_VC = ctx.saved_tensors
        for_hidden, for_head = ctx.needs_input_grad
        grad = grad.to(lm_head_VC.dtype)
        return (
            grad @ lm_head_VC if for_hidden else None,
            grad.flatten(0, -2).T @ hidden.flatten(0, -2) if for_head else None,
        )


class _InChunks(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NC: torch.Tensor,
        lm_head_VC: torch.Tensor,
        targets_N: torch.Tensor,
        temperature: float,
        entropy: bool,
        rows: int,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(hidden_NC, lm_head_VC, targets_N)
        ctx.settings = temperature, entropy, rows
        chosen = hidden_NC.new_empty(len(targets_N), dtype=ops.at_least_float32(hidden_NC))
        entropies = torch.zeros_like(chosen)
        for part in slices(len(targets_N), rows):
            logprobs = log_softmax(hidden_NC[part], lm_head_VC, temperature)
            chosen[part] = logprobs.gather(-1, targets_N[part, None]).squeeze(-1)
            if entropy:
                entropies[part] = entropy_of(logprobs, logprobs.exp())
        return chosen, entropies

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_chosen_N: torch.Tensor, grad_entropies_N: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        """The gradient of a chunk's logits, turned at once into what it adds to those of the hidden
        states and of lm_head: no [N, V] is kept.

        With p = softmax(logits), l = log p, H the entropy, g the gradient of the target's log-prob
        and h that of the entropy:
            d log p[target] / d logits = onehot(target) - p
            d H / d logits             = -p (l + H)
            grad logits = p (-g - h (l + H)) + g onehot(target)
        Example: p = (3/4, 1/4), the target is entry 0, g = 1, h = 0: grad logits = (1/4, -1/4).
        The line for d H overwrites l, and the last line overwrites p: a chunk is the largest tensor
        there is, and one more of them would be the peak of the step.
        """
        hidden_NC, lm_head_VC, targets_N = ctx.saved_tensors
        temperature, entropy, rows = ctx.settings
        for_hidden, for_head = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden_NC) if for_hidden else None
        # A sum over all chunks: bf16 would be rounded after each.
        wide = ops.at_least_float32(lm_head_VC)
        grad_head = torch.zeros_like(lm_head_VC, dtype=wide) if for_head else None
        for part in slices(len(targets_N), rows):
            logprobs = log_softmax(hidden_NC[part], lm_head_VC, temperature)
            probs = logprobs.exp()
            factor = -grad_chosen_N[part, None]
            if entropy:
                entropy_term = logprobs.add_(entropy_of(logprobs, probs).unsqueeze(-1))
                factor = entropy_term.mul_(-grad_entropies_N[part, None]).add_(factor)
            grad = probs.mul_(factor)
            grad.scatter_add_(-1, targets_N[part, None], grad_chosen_N[part, None])
            grad = grad.div_(temperature).to(lm_head_VC.dtype)
            if grad_hidden is not None:
                grad_hidden[part] = grad @ lm_head_VC
            if grad_head is not None:
                grad_head += grad.T @ hidden_NC[part]
        if grad_head is not None:
            grad_head = grad_head.to(lm_head_VC.dtype)
        return grad_hidden, grad_head, None, None, None, None
