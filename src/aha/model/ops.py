"""The elementwise pieces of the decoder, each with its backward pass written by hand.

Same maths as the plain torch expressions (proved in the tests by comparison and gradcheck), in
fewer passes over memory. On a CPU in bf16 the matrix products run near the hardware's peak, and
the plain versions of these pieces would take more time than all of them.

Shapes: B rows, H heads, T tokens, D head size, F features.
"""

import torch
from torch.autograd.function import once_differentiable

from aha.model import fused


def at_least_float32(x) -> torch.dtype:
    """The type to sum in: float32 for narrower numbers; float64 stays, as gradcheck needs it."""
    return torch.promote_types(x.dtype, torch.float32)


class _RMSNormalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, eps: float):
        ctx.fused = fused.fits(x)
        if ctx.fused:
            y, scale = fused.normalise(x, eps)
            ctx.save_for_backward(y, scale)
            return y
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=at_least_float32(x))
        scale = (norm.square_().div_(x.shape[-1]).add_(eps)).rsqrt_().to(x.dtype)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        y, scale = ctx.saved_tensors
        if ctx.fused:
            return fused.normalise_back(grad, y, scale), None
        # eps is a constant inside the root: dx = scale * (g - y * mean(g * y)).
        mean = (grad * y).sum(-1, keepdim=True).div_(y.shape[-1])
        return torch.addcmul(grad, y, mean, value=-1).mul_(scale), None


def rms_normalise(x, eps: float):
    """x / sqrt(mean(x²) + eps) over the last dimension, without the learnt weight.

    The weight is folded into the linear map that follows: (x̂ * w) Aᵀ = x̂ (A * w)ᵀ.
    Source: Zhang & Sennrich 2019, 'Root Mean Square Layer Normalization'.
    """
    return _RMSNormalise.apply(x, eps)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, gate_up):
        ctx.fused = fused.fits(gate_up) and gate_up.shape[-1] % (2 * fused.LANES) == 0
        if ctx.fused:
            ctx.save_for_backward(gate_up)
            return fused.swiglu(gate_up)
        gate, up = gate_up.chunk(2, -1)
        ctx.save_for_backward(gate_up)
        return torch.nn.functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (gate_up,) = ctx.saved_tensors
        if ctx.fused:
            return fused.swiglu_back(grad, gate_up)
        gate, up = gate_up.chunk(2, -1)
        out = torch.empty_like(gate_up)
        grad_gate, grad_up = out.chunk(2, -1)
        torch.mul(torch.nn.functional.silu(gate), grad, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=grad_gate)
        return out


def swiglu(gate_up):
    """silu(gate) * up, where `gate_up` [..., 2F] holds both halves side by side.

    Source: Shazeer 2020, 'GLU Variants Improve Transformer'.
    """
    return _SwiGLU.apply(gate_up)


def rotate(x, cos, sin, out=None):
    """Rotary embedding in the half-split layout of Qwen2 and Llama; `cos`, `sin` are [T, D/2]."""
    out = torch.empty_like(x) if out is None else out
    first, second = x.chunk(2, -1)
    out_first, out_second = out.chunk(2, -1)
    torch.mul(first, cos, out=out_first)
    out_first.addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out_second)
    out_second.addcmul_(first, sin)
    return out


class _SplitHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, H: int, K: int, cos, sin):
        B, T, width = qkv.shape
        D = width // (H + 2 * K)
        ctx.save_for_backward(cos, sin)
        ctx.fused = fused.fits(qkv) and D % fused.LANES == 0 and D <= fused.WIDEST_HEAD
        if ctx.fused:
            return fused.split(qkv, H, K, cos, sin)
        q, k, v = qkv.view(B, T, -1, D).transpose(1, 2).split([H, K, K], 1)
        cos, sin = cos.to(qkv.dtype), sin.to(qkv.dtype)
        q, k = q.contiguous(), k.contiguous()
        return rotate(q, cos, sin), rotate(k, cos, sin), v.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_q, grad_k, grad_v):
        cos, sin = ctx.saved_tensors
        if ctx.fused:
            return fused.merge(grad_q, grad_k, grad_v, cos, sin), None, None, None, None
        cos, sin = cos.to(grad_q.dtype), sin.to(grad_q.dtype)
        grads = [rotate(grad_q, cos, -sin), rotate(grad_k, cos, -sin), grad_v]
        return torch.cat(grads, 1).transpose(1, 2).flatten(2), None, None, None, None


def split_heads(qkv_BTF, H: int, K: int, cos_TD, sin_TD):
    """[B, T, (H + 2K) D] as q [B, H, T, D], k and v [B, K, T, D]; q and k rotated.

    `cos_TD`, `sin_TD` [T, D/2] are float32. Source of the rotation: Su et al. 2021, RoFormer.
    """
    return _SplitHeads.apply(qkv_BTF, H, K, cos_TD, sin_TD)


BLOCK = 64  # of a block: small enough to skip most of what the mask hides


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v):
        N, group, T, D = q.shape
        out, blocks = torch.empty_like(q), []
        for first in range(0, T, BLOCK):
            last = min(first + BLOCK, T)
            mine = q[:, :, first:last].reshape(N, -1, D)
            weights = causal_softmax(torch.bmm(mine, k[:, :last].transpose(1, 2)), last - first)
            out[:, :, first:last] = torch.bmm(weights, v[:, :last]).view(N, group, -1, D)
            blocks.append(weights)
        ctx.save_for_backward(q, k, v, *blocks)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        q, k, v, *blocks = ctx.saved_tensors
        N, group, T, D = q.shape
        grad_q = torch.empty_like(q)
        # Sums of several blocks: a narrow type would round at each.
        grad_k, grad_v = (torch.zeros_like(k, dtype=at_least_float32(k)) for _ in range(2))
        for first, weights in zip(range(0, T, BLOCK), blocks, strict=True):
            last = min(first + BLOCK, T)
            mine = q[:, :, first:last].reshape(N, -1, D)
            coming = grad[:, :, first:last].reshape(N, -1, D)
            grad_v[:, :last] += torch.bmm(weights.transpose(1, 2), coming)
            grad_weights = torch.bmm(coming, v[:, :last].transpose(1, 2))
            grad_scores = causal_softmax_back(grad_weights, weights, last - first)
            grad_q[:, :, first:last] = torch.bmm(grad_scores, k[:, :last]).view(N, group, -1, D)
            grad_k[:, :last] += torch.bmm(grad_scores.transpose(1, 2), mine)
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype)


def causal_softmax(scores, size: int):
    """Softmax over the keys that each query may see; `scores` [N, group * size, keys] belong to the
    last `size` positions of the keys, and may be overwritten."""
    if fused.ready(scores):
        return fused.softmax_(scores, size)
    shaped = scores.view(-1, size, scores.shape[-1])
    shaped[..., -size:].add_(upper_triangle(size, scores))
    return torch.softmax(shaped, -1).view(scores.shape)


def causal_softmax_back(grad, weights, size: int):
    """The gradient of the scores; `grad` may be overwritten."""
    if fused.ready(weights) and grad.is_contiguous():
        return fused.softmax_back_(weights, grad, size)
    return torch.ops.aten._softmax_backward_data(grad, weights, -1, weights.dtype)


def causal_attention(q, k, v):
    """softmax(q kᵀ + causal mask) v for queries that are scaled already.

    q [N, group, T, D] with the `group` query heads that share a key head; k, v [N, T, D]; returns
    [N, group, T, D]. Explicit products, query block by query block: on a CPU in bf16 the fused
    kernel's backward pass takes 2-3 times as long (reference measurements), and a whole [T, T]
    product would compute what the mask hides. Source: Dao et al. 2022 for the blocks; unlike
    FlashAttention the weights are kept for the backward pass.
    """
    return _CausalAttention.apply(q, k, v)


def upper_triangle(size: int, like):
    """[size, size] with 0 where a query may look and a huge negative number where it may not.

    Not -inf: no row is ever fully masked here, and finite numbers cannot turn into nan.
    """
    floor = torch.finfo(like.dtype).min / 2
    return torch.full((size, size), floor, dtype=like.dtype, device=like.device).triu_(1)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, targets):
        logprobs = torch.log_softmax(logits, -1, dtype=at_least_float32(logits))
        chosen = logprobs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        probs = logprobs.exp_()
        ctx.save_for_backward(probs, targets)
        ctx.dtype = logits.dtype
        return chosen

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        probs, targets = ctx.saved_tensors
        # d logp[target] / d logits = onehot(target) - softmax
        out = probs * grad.neg().unsqueeze(-1)
        out.scatter_add_(-1, targets.unsqueeze(-1), grad.unsqueeze(-1))
        return out.to(ctx.dtype), None


def token_logprobs(logits, targets):
    """log softmax(logits)[target] in float32, nats. [..., V], [...] -> [...].

    Never narrower inside: a bf16 log-softmax is wrong in the third digit.
    """
    return _TokenLogprobs.apply(logits, targets)
