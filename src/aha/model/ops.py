"""The operations of a transformer between its matrix products: RMS norm, SwiGLU, rotary position
embedding with its tables, log-softmax. Attention is in aha.model.attention.

Backward passes are written by hand where that saves passes over memory. The mathematics is that of
the plain torch expressions; the tests compare both and run gradcheck. On a CPU in bf16 the plain
versions would take more time than all matrix products.

Rounding in bf16: the inputs of a product and the outputs of these functions have the model's type;
the residual stream and the logits of a wide model are float32 (`keeps_float32` in aha.model.fused).
Sums inside (of squares, of weights, of a gradient over blocks) are in `at_least_float32`, because
bf16 has 8 bits: 256 + 1 is 256 in it.

Shapes: B rows, P prompts, D head size, I intermediate size, C hidden size.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from aha.machine.c_build import LANES
from aha.model import fused
from aha.model.architecture import ModelConfig


def at_least_float32(x: torch.Tensor) -> torch.dtype:
    """The type to sum in: float32 for narrower numbers; float64 stays, as gradcheck needs it."""
    return torch.promote_types(x.dtype, torch.float32)


class _RMSNormalise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, eps: float, dtype: torch.dtype) -> torch.Tensor:
        y: torch.Tensor
        ctx.dtype = x.dtype
        # bf16 of a float32 stream needs both kinds of the C code.
        ctx.fused = fused.can_compute(x) and fused.libraries(dtype == torch.bfloat16) is not None
        if ctx.fused:
            y, scale = fused.normalise(x, eps, dtype)
            ctx.save_for_backward(y, scale)
            return y
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=at_least_float32(x))
        scale = (norm.square_().div_(x.shape[-1]).add_(eps)).rsqrt_().to(x.dtype)
        y = (x * scale).to(dtype)
        ctx.save_for_backward(y, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        y, scale = ctx.saved_tensors
        if ctx.fused:
            return fused.normalise_back(grad, y, scale, ctx.dtype), None, None
        # eps is a constant inside the root: dx = scale * (g - y * mean(g * y)).
        grad, y = grad.to(ctx.dtype), y.to(ctx.dtype)
        mean = (grad * y).sum(-1, keepdim=True).div_(y.shape[-1])
        return torch.addcmul(grad, y, mean, value=-1).mul_(scale), None, None


def rms_normalise(x: torch.Tensor, eps: float, dtype: torch.dtype | None = None) -> torch.Tensor:
    """x / sqrt(mean(x²) + eps) over the last dimension, without the learnt weight, which is folded
    into the linear map that follows (see `Attention.fused_weights` in aha.model.transformer).

    In `dtype`, or the type of x. Of a float32 x the result may be bf16.
    Source: Zhang & Sennrich 2019, 'Root Mean Square Layer Normalization'.
    """
    y: torch.Tensor = _RMSNormalise.apply(x, eps, dtype or x.dtype)  # type: ignore[no-untyped-call]
    return y


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate_up: torch.Tensor) -> torch.Tensor:
        ctx.fused = fused.can_compute(gate_up) and gate_up.shape[-1] % (2 * LANES) == 0
        if ctx.fused:
            ctx.save_for_backward(gate_up)
            return fused.swiglu(gate_up)
        gate, up = gate_up.chunk(2, -1)
        ctx.save_for_backward(gate_up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        (gate_up,) = ctx.saved_tensors
        if ctx.fused:
            return fused.swiglu_back(grad, gate_up)
        gate, up = gate_up.chunk(2, -1)
        out = torch.empty_like(gate_up)
        grad_gate, grad_up = out.chunk(2, -1)
        torch.mul(F.silu(gate), grad, out=grad_up)
        torch.ops.aten.silu_backward.grad_input(grad * up, gate, grad_input=grad_gate)
        return out


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up [..., I], where `gate_up` [..., 2 I] holds both side by side.

    Source: Shazeer 2020, 'GLU Variants Improve Transformer'.
    """
    activated: torch.Tensor = _SwiGLU.apply(gate_up)  # type: ignore[no-untyped-call]
    return activated


def rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary position embedding of x [..., D] by `cos`, `sin` [..., D/2]: number i turns with
    number i + D/2, the pairs of Qwen2 and Llama (the paper pairs neighbours). With -sin it turns
    back.

    Source: Su et al. 2021, RoFormer.
    """
    out = torch.empty_like(x)
    first, second = x.chunk(2, -1)
    out_first, out_second = out.chunk(2, -1)
    torch.mul(first, cos, out=out_first)
    out_first.addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=out_second)
    out_second.addcmul_(first, sin)
    return out


class _RepeatByPrompt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, prompt_B: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(prompt_B)
        ctx.prompts = len(x)
        return x[prompt_B]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (prompt_B,) = ctx.saved_tensors
        return sum_by_prompt(grad, prompt_B, ctx.prompts), None


def repeat_by_prompt(x_PC: torch.Tensor, prompt_B: torch.Tensor) -> torch.Tensor:
    """[B, C]: for each row the vector of its prompt, x[prompt_B]."""
    repeated: torch.Tensor = _RepeatByPrompt.apply(x_PC, prompt_B)  # type: ignore[no-untyped-call]
    return repeated


def sum_by_prompt(x_B: torch.Tensor, prompt_B: torch.Tensor, prompts: int) -> torch.Tensor:
    """[P, ...]: the sum of x [B, ...] over each prompt's rows.

    As a matrix product with ones and zeros: `index_add_` on a GPU adds in another order every time,
    and the same seed would give other weights. Example: prompt_B = [1, 0, 1] is the matrix
    [[0, 1, 0], [1, 0, 1]].
    """
    member_PB = prompt_B == torch.arange(prompts, device=x_B.device)[:, None]
    return (member_PB.to(x_B.dtype) @ x_B.flatten(1)).view(prompts, *x_B.shape[1:])


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        logprobs = torch.log_softmax(logits, -1, dtype=at_least_float32(logits))
        chosen = logprobs.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        probs = logprobs.exp_()
        ctx.save_for_backward(probs, targets)
        ctx.dtype = logits.dtype
        return chosen

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        probs, targets = ctx.saved_tensors
        # d logp[target] / d logits = onehot(target) - softmax
        out = probs * grad.neg().unsqueeze(-1)
        out.scatter_add_(-1, targets.unsqueeze(-1), grad.unsqueeze(-1))
        return out.to(ctx.dtype), None


def token_logprobs(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """log softmax(logits)[target] in float32, nats. [..., V], [...] -> [...].

    Never narrower inside: a bf16 log-softmax is wrong in the third digit.
    """
    logprobs: torch.Tensor = _TokenLogprobs.apply(logits, targets)  # type: ignore[no-untyped-call]
    return logprobs


def rope_tables(
    config: ModelConfig, dtype: torch.dtype, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin [S, D/2] for all positions of the model, computed in float32: in bf16
    neighbouring numbers above 256 are 2 apart, so an angle would be off by a radian.

    Source: Su et al. 2021, RoFormer.
    """
    half = config.head_dim // 2
    steps = torch.arange(half, dtype=torch.float32, device=device) / half
    frequencies = config.rope_theta**-steps
    scaling = config.rope_scaling
    if scaling:
        frequencies = scaling.stretch(frequencies, config.rope_theta)
    positions = torch.arange(config.max_position_embeddings, dtype=torch.float32, device=device)
    angles_SD = torch.outer(positions, frequencies)
    cos, sin = angles_SD.cos(), angles_SD.sin()
    if scaling and scaling.attention_factor != 1.0:
        cos, sin = cos * scaling.attention_factor, sin * scaling.attention_factor
    return cos.to(dtype), sin.to(dtype)
