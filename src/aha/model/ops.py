"""The elementwise pieces of the decoder, each with its backward pass written by hand.

Same maths as the plain torch expressions (proved in the tests by comparison and gradcheck), in
fewer passes over memory. On a CPU in bf16 the matrix products run near the hardware's peak, and
the plain versions of these pieces would take more time than all of them.

Shapes: B rows, H heads, T tokens, D head size, F features.
"""

import torch
from torch.autograd.function import once_differentiable


def at_least_float32(x) -> torch.dtype:
    """The type to sum in: float32 for narrower numbers; float64 stays, as gradcheck needs it."""
    return torch.promote_types(x.dtype, torch.float32)


class _RMSNormalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, eps: float):
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=at_least_float32(x))
        scale = (norm.square_().div_(x.shape[-1]).add_(eps)).rsqrt_().to(x.dtype)
        y = x * scale
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        y, scale = ctx.saved_tensors
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
        gate, up = gate_up.chunk(2, -1)
        ctx.save_for_backward(gate_up)
        return torch.nn.functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (gate_up,) = ctx.saved_tensors
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


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, cos, sin):
        ctx.save_for_backward(cos, sin)
        return rotate(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        cos, sin = ctx.saved_tensors
        return rotate(grad, cos, -sin), None, None


def rotary(x_BHTD, cos_TD, sin_TD):
    """Rotate queries or keys by their position. Source: Su et al. 2021, RoFormer."""
    return _Rotary.apply(x_BHTD, cos_TD, sin_TD)


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
