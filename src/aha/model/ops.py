"""The elementwise pieces of the decoder, each with its backward pass written by hand.

Same maths as the plain torch expressions (proved in the tests by comparison and gradcheck), in
fewer passes over memory. On a CPU in bf16 the matrix products run near the hardware's peak, and
the plain versions of these pieces would take more time than all of them.

Shapes: B rows, P prompts, N flat tokens, H query heads, K key-value heads, T positions, Q queries,
D head size, F features; a table of R rows and W places (aha.batching.layout).
"""

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.attention.bias import causal_lower_right

from aha.batching.layout import Layout
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
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        (gate_up,) = ctx.saved_tensors
        if ctx.fused:
            return fused.swiglu_back(grad, gate_up)
        gate, up = gate_up.chunk(2, -1)
        out = torch.empty_like(gate_up)
        grad_gate, grad_up = out.chunk(2, -1)
        torch.mul(F.silu(gate), grad, out=grad_up)
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


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, H: int, K: int, cos, sin, layout: Layout):
        mixed, sums = fused.attend(qkv, H, K, cos, sin, layout)
        ctx.save_for_backward(qkv, cos, sin, sums)
        ctx.given = H, K, layout
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return fused.attend_back(grad, ctx.saved_tensors, *ctx.given), *(None,) * 5


def attention(qkv_NF, H: int, K: int, cos_ND, sin_ND, layout: Layout):
    """Rotate q and k, attend as a layout says, causally: [N, (H + 2K) D] -> [N, H * D].

    Queries are scaled already. `cos_ND`, `sin_ND` [N, D/2] are float32. In C row by row; elsewhere
    in the layout's tables.
    """
    if fused.attends(qkv_NF, H, K):
        return _Attention.apply(qkv_NF, H, K, cos_ND, sin_ND, layout)
    laid = lay_heads(qkv_NF, H, K, cos_ND, sin_ND, layout)
    prompts = attention_of_heads(*laid[:3], layout.prompts.ends)
    rows = attention_of_heads(*laid[3:], layout.rows.ends)
    return collect_heads(prompts, rows, layout)


def attention_of_heads(q, k, v, ends: tuple[int, ...]):
    """`causal_attention` of [R, H, Q, D] on [R, K, W, D]. Queries of the heads that share a key are
    stacked, so that keys are never copied."""
    stacked = q.unflatten(1, (k.shape[1], -1)).flatten(0, 1)
    return causal_attention(stacked, k.flatten(0, 1), v.flatten(0, 1), ends).reshape(q.shape)


class _LayHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv, H: int, K: int, cos, sin, layout: Layout):
        N, width = qkv.shape
        D = width // (H + 2 * K)
        ctx.save_for_backward(cos, sin)
        ctx.layout = layout
        qk, v = qkv.view(N, -1, D).split([H + K, K], 1)
        q, k = rotate(qk, *angles(qkv, cos, sin)).split([H, K], 1)
        laid = []
        for table in (layout.prompts, layout.rows):
            index_RW = table.index_RW.clamp(min=0)
            laid += [q[index_RW[:, table.start :]], k[index_RW], v[index_RW]]
        return tuple(x.transpose(1, 2).contiguous() for x in laid)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        cos, sin = ctx.saved_tensors
        layout, nothing = ctx.layout, (None,) * 5
        q, k, v = (collected(*pair, layout) for pair in zip(grads[:3], grads[3:], strict=True))
        # Each row has had a copy of its prompt's keys and values.
        P, S = layout.prompts.index_RW.shape
        places = layout.places_N[: layout.shared]
        for flat, of_rows in ((k, grads[4]), (v, grads[5])) if len(layout.prompt_B) else ():
            sums = sums_by_prompt(of_rows[:, :, :S].transpose(1, 2), layout.prompt_B, P)
            flat[: layout.shared] += sums.flatten(0, 1)[places]
        cos, sin = angles(q, cos, sin)
        qk = rotate(torch.cat([q, k], 1), cos, -sin)
        return torch.cat([qk, v], 1).flatten(1), *nothing


def angles(like, *tables):
    """[N, D/2] of each, for heads [N, H, D]."""
    return tuple(table.to(like.dtype).unsqueeze(1) for table in tables)


def lay_heads(qkv_NF, H: int, K: int, cos_ND, sin_ND, layout: Layout):
    """Flat tokens [N, (H + 2K) D] in the tables of a layout, q and k rotated: first those of the
    prompts, q [R, H, W, D], k and v [R, K, W, D], then those of the rows, in which the keys and
    values of the prompt stand before the row's own.

    An empty place holds some number. `cos_ND`, `sin_ND` [N, D/2] are float32.
    Source of the rotation: Su et al. 2021, RoFormer.
    """
    return _LayHeads.apply(qkv_NF, H, K, cos_ND, sin_ND, layout)


class _CollectHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx, prompts, rows, layout: Layout):
        ctx.layout, ctx.shape = layout, rows.shape
        return collected(prompts, rows, layout).flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        layout, H, D = ctx.layout, ctx.shape[1], ctx.shape[3]
        laid, flat = [], grad.reshape(-1, H, D)
        # In the rows' table the prompts' tokens are keys alone.
        for table, first in ((layout.prompts, 0), (layout.rows, layout.shared)):
            index_RQ = table.index_RW[:, table.start :]
            empty_RQ = (index_RQ < first)[:, :, None, None]
            laid.append(flat[index_RQ.clamp(min=0)].masked_fill_(empty_RQ, 0.0).transpose(1, 2))
        return *laid, None


def collected(prompts, rows, layout: Layout):
    """[R, H, Q, D] of both tables, whole or their queries alone, as flat tokens [N, H, D]."""
    found = []
    parts = layout.places_N.split([layout.shared, layout.tokens - layout.shared])
    for x, places, table in zip((prompts, rows), parts, (layout.prompts, layout.rows), strict=True):
        width = max(1, table.index_RW.shape[1])
        missing = table.index_RW.shape[1] - x.shape[2]
        found.append(x[places // width, :, places % width - missing])
    return torch.cat(found)


def collect_heads(prompts, rows, layout: Layout):
    """The way back of `lay_heads`: what attention made of the queries, [R, H, Q, D] of both tables,
    as flat tokens [N, H * D]."""
    return _CollectHeads.apply(prompts, rows, layout)


class _Repeated(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, prompt_B):
        ctx.save_for_backward(prompt_B)
        ctx.prompts = len(x)
        return x[prompt_B]

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return sums_by_prompt(grad, *ctx.saved_tensors, ctx.prompts), None


def repeated(x_PC, prompt_B):
    """What each row has of its prompt: x[prompt_B], [B, C]."""
    return _Repeated.apply(x_PC, prompt_B)


def sums_by_prompt(x_B, prompt_B, prompts: int):
    """[P, ...]: the sum over each prompt's rows. A product, because a GPU that adds to indices
    does so in another order every time."""
    member_PB = prompt_B == torch.arange(prompts, device=x_B.device)[:, None]
    return (member_PB.to(x_B.dtype) @ x_B.flatten(1)).view(prompts, *x_B.shape[1:])


BLOCK = 64  # of a block: small enough to skip most of what the mask hides


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, ends):
        out, blocks = torch.empty_like(q), []
        ctx.places = list(places_of(q.shape, k.shape[1], ends))
        for N, asking, keys in ctx.places:
            mine = q[:N, :, asking].reshape(N, -1, q.shape[3])
            weights = torch.bmm(mine, k[:N, :keys].transpose(1, 2))
            weights = causal_softmax(weights, asking.stop - asking.start)
            out[:N, :, asking] = torch.bmm(weights, v[:N, :keys]).unflatten(1, (q.shape[1], -1))
            blocks.append(weights)
        ctx.save_for_backward(q, k, v, *blocks)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        q, k, v, *blocks = ctx.saved_tensors
        group, D = q.shape[1], q.shape[3]
        grad_q = torch.empty_like(q)
        # Sums of several blocks: a narrow type would round at each.
        grad_k, grad_v = (torch.zeros_like(k, dtype=at_least_float32(k)) for _ in range(2))
        for (N, asking, keys), weights in zip(ctx.places, blocks, strict=True):
            mine = q[:N, :, asking].reshape(N, -1, D)
            coming = grad[:N, :, asking].reshape(N, -1, D)
            grad_v[:N, :keys] += torch.bmm(weights.transpose(1, 2), coming)
            grad_weights = torch.bmm(coming, v[:N, :keys].transpose(1, 2))
            size = asking.stop - asking.start
            grad_scores = causal_softmax_back(grad_weights, weights, size)
            grad_q[:N, :, asking] = torch.bmm(grad_scores, k[:N, :keys]).unflatten(1, (group, -1))
            grad_k[:N, :keys] += torch.bmm(grad_scores.transpose(1, 2), mine)
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype), None


def places_of(shape, T: int, ends):
    """Of each block of queries: how many of the first N elements have one there, which queries,
    and how many keys they see."""
    N, Q = shape[0], shape[2]
    ends = ends or (T,)
    for first in range(0, Q, BLOCK):
        last = min(first + BLOCK, Q)
        busy = max(row for row, end in enumerate(ends) if end > T - Q + first) + 1
        yield N // len(ends) * busy, slice(first, last), T - Q + last


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


def causal_attention(q, k, v, ends: tuple[int, ...] = ()):
    """softmax(q kᵀ + causal mask) v for queries that are scaled already.

    q [N, group, Q, D] with the `group` query heads that share a key head, at the last Q of T
    positions; k, v [N, T, D]; returns [N, group, Q, D]. Of rows that end early, the longest first,
    less is computed: `ends` has a position for each N / len(ends) elements, and what is returned
    behind it is any number.

    Narrow types on a GPU take torch's own kernel. Elsewhere explicit products, query block by query
    block: on a CPU in bf16 the fused kernel's backward pass takes 2-3 times as long (reference
    measurements), and a whole [T, T] product would compute what the mask hides. Source: Dao et al.
    2022 for the blocks; unlike FlashAttention the weights are kept for the backward pass.
    """
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
        return kernel_attention(q, k, v)
    return _CausalAttention.apply(q, k, v, ends)


def kernel_attention(q, k, v):
    """`causal_attention` by `scaled_dot_product_attention`, which chooses among the kernels that
    the device has. The keys are expanded, not copied."""
    group, Q, T = q.shape[1], q.shape[2], k.shape[1]
    if not q.numel():
        return q
    k, v = (x.unsqueeze(1).expand(-1, group, -1, -1) for x in (k, v))
    # Its own `is_causal` would align the first query with the first key.
    mask = {"is_causal": True} if Q == T else {"attn_mask": causal_lower_right(Q, T)}
    return F.scaled_dot_product_attention(q, k, v, scale=1.0, **mask)


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
