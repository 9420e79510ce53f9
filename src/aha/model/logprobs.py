"""Log-probs of tokens out of a large vocabulary, a few positions at a time.

Qwen's vocabulary has 151,936 entries: the logits of 4,096 positions alone would be 2.5 GB in
float32, and a plain backward pass holds several such tensors. Here a chunk of positions is turned
into logits, used and dropped; the backward pass computes it again, which costs one more product.

Shapes: N positions, V vocabulary, C hidden size.
"""

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from aha.algo.entropy import token_entropy
from aha.core.sizes import LOGITS_CHUNK
from aha.model import ops


def score_tokens(
    hidden_BTC, head_VC, targets_BT, temperature=1.0, entropy=False, chunk=LOGITS_CHUNK
):
    """log p(target) [B, T] in float32, nats, and the entropy [B, T] there, or None if not wanted.

    The logits are `hidden @ headᵀ / temperature`. No more than `chunk` of them exist at a time,
    forward or backward, if there are that many at all.
    """
    if targets_BT.numel() * head_VC.shape[0] <= chunk:
        logits_BTV = logits_of(hidden_BTC, head_VC, temperature)
        logprobs_BT = ops.token_logprobs(logits_BTV, targets_BT)
        return logprobs_BT, token_entropy(logits_BTV) if entropy else None
    rows = max(1, chunk // head_VC.shape[0])
    logprobs_N, entropies_N = _InChunks.apply(
        hidden_BTC.flatten(0, -2), head_VC, targets_BT.flatten(), temperature, entropy, rows
    )
    found = logprobs_N.view_as(targets_BT), entropies_N.view_as(targets_BT)
    return found if entropy else (found[0], None)


def logits_of(hidden, head_VC, temperature: float) -> torch.Tensor:
    logits = F.linear(hidden, head_VC)
    return logits if temperature == 1.0 else logits / temperature


def slices(count: int, rows: int) -> list[slice]:
    return [slice(first, first + rows) for first in range(0, count, rows)]


def log_softmax(hidden_NC, head_VC, temperature: float) -> torch.Tensor:
    logits_NV = logits_of(hidden_NC, head_VC, temperature)
    return torch.log_softmax(logits_NV, -1, dtype=ops.at_least_float32(logits_NV))


def entropy_of(logprobs_NV, probs_NV) -> torch.Tensor:
    return -torch.linalg.vecdot(probs_NV, logprobs_NV)


class _InChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden_NC, head_VC, targets_N, temperature, entropy, rows):
        ctx.save_for_backward(hidden_NC, head_VC, targets_N)
        ctx.settings = temperature, entropy, rows
        chosen = hidden_NC.new_empty(len(targets_N), dtype=ops.at_least_float32(hidden_NC))
        entropies = torch.zeros_like(chosen)
        for part in slices(len(targets_N), rows):
            logprobs = log_softmax(hidden_NC[part], head_VC, temperature)
            chosen[part] = logprobs.gather(-1, targets_N[part, None]).squeeze(-1)
            if entropy:
                entropies[part] = entropy_of(logprobs, logprobs.exp())
        return chosen, entropies

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_chosen_N, grad_entropies_N):
        hidden_NC, head_VC, targets_N = ctx.saved_tensors
        temperature, entropy, rows = ctx.settings
        for_hidden, for_head = ctx.needs_input_grad[:2]
        grad_hidden = torch.empty_like(hidden_NC) if for_hidden else None
        # A sum of many chunks: a narrow type would round at each.
        wide = ops.at_least_float32(head_VC)
        grad_head = torch.zeros_like(head_VC, dtype=wide) if for_head else None
        for part in slices(len(targets_N), rows):
            logprobs = log_softmax(hidden_NC[part], head_VC, temperature)
            probs = logprobs.exp()
            # d logp[target] / d logits = onehot(target) - p;  dH / d logits = -p (logp + H)
            push = -grad_chosen_N[part, None]
            if entropy:
                lean = logprobs.add_(entropy_of(logprobs, probs).unsqueeze(-1))
                push = lean.mul_(-grad_entropies_N[part, None]).add_(push)
            grad = probs.mul_(push)
            grad.scatter_add_(-1, targets_N[part, None], grad_chosen_N[part, None])
            grad = grad.div_(temperature).to(head_VC.dtype)
            if for_hidden:
                grad_hidden[part] = grad @ head_VC
            if for_head:
                grad_head += grad.T @ hidden_NC[part]
        if for_head:
            grad_head = grad_head.to(head_VC.dtype)
        return grad_hidden, grad_head, None, None, None, None
