"""Causal attention over the flat tokens of a layout, forward and backward.

Three ways to the same numbers: the C code of aha.model.fused on a CPU, which needs no copy of the
tokens; elsewhere tables of rows and explicit products, query block by query block; and on a GPU in
a narrow type torch's own kernels on these tables.

Shapes: B rows, P prompts, N flat tokens, H query heads, K key-value heads, G query heads of a key
head, T positions, Q queries, D head size, F = (H + 2 K) D; a table of R rows and W positions, of
which the last Q have queries (aha.batching.layout).
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.attention.bias import causal_lower_right

from aha.batching.layout import Layout
from aha.model import fused
from aha.model.ops import at_least_float32, rotate, sum_by_prompt


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv: torch.Tensor,
        H: int,
        K: int,
        cos: torch.Tensor,
        sin: torch.Tensor,
        layout: Layout,
    ) -> torch.Tensor:
        attended, lse = fused.attend(fused.AttentionInputs(qkv, H, K, cos, sin, layout))
        ctx.save_for_backward(qkv, cos, sin, lse)
        ctx.H, ctx.K, ctx.layout = H, K, layout
        return attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        qkv, cos, sin, lse = ctx.saved_tensors
        inputs = fused.AttentionInputs(qkv, ctx.H, ctx.K, cos, sin, ctx.layout)
        return fused.attend_back(grad, inputs, lse), *(None,) * 5


def flat_attention(
    qkv_NF: torch.Tensor,
    H: int,
    K: int,
    cos_ND: torch.Tensor,
    sin_ND: torch.Tensor,
    layout: Layout,
) -> torch.Tensor:
    """Rotate q and k, then causal attention inside each row of the layout: [N, F] -> [N, H D].

    Queries are scaled already. `cos_ND`, `sin_ND` [N, D/2] are float32. The C code works on the
    flat tokens; without it they are copied into the layout's tables, and back.
    """
    if fused.can_attend(qkv_NF, H, K):
        attended: torch.Tensor = _Attention.apply(qkv_NF, H, K, cos_ND, sin_ND, layout)  # type: ignore[no-untyped-call]
        return attended
    q, k, v, row_q, row_k, row_v = heads_to_tables(qkv_NF, H, K, cos_ND, sin_ND, layout)
    prompts = grouped_query_attention(q, k, v, layout.prompts.ends)
    rows = grouped_query_attention(row_q, row_k, row_v, layout.rows.ends)
    return tables_to_heads(prompts, rows, layout)


def grouped_query_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: tuple[int, ...]
) -> torch.Tensor:
    """`causal_attention` of q [R, H, Q, D] on k and v [R, K, W, D]. The G = H / K query heads of
    one key head become rows of one product, so that keys are never copied."""
    stacked = q.unflatten(1, (k.shape[1], -1)).flatten(0, 1)
    return causal_attention(stacked, k.flatten(0, 1), v.flatten(0, 1), ends).reshape(q.shape)


class _HeadsToTables(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        qkv: torch.Tensor,
        H: int,
        K: int,
        cos: torch.Tensor,
        sin: torch.Tensor,
        layout: Layout,
    ) -> tuple[torch.Tensor, ...]:
        N, width = qkv.shape
        D = width // (H + 2 * K)
        ctx.save_for_backward(cos, sin)
        ctx.layout = layout
        qk, v = qkv.view(N, -1, D).split([H + K, K], 1)
        q, k = rotate(qk, *tables_like(qkv, cos, sin)).split([H, K], 1)
        tables = []
        for table in (layout.prompts, layout.rows):
            # An empty position (-1) gets a copy of token 0: the causal mask hides it.
            index_RW = table.index_RW.clamp(min=0)
            tables += [q[index_RW[:, table.start :]], k[index_RW], v[index_RW]]
        return tuple(x.transpose(1, 2).contiguous() for x in tables)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Each row has had a copy of its prompt's keys and values, so the gradient of a prompt's
        token is the sum over the prompt's own table and all rows that copied it. In a row's table
        the prompt is at the positions below S, the longest prompt. The position of a token in the
        prompt's flattened table, `places_N`, also finds its sum: with S = 4, token 2 of prompt 1
        is at 1 * 4 + 2 = 6 in both."""
        cos, sin = ctx.saved_tensors
        layout = ctx.layout
        q, k, v = (
            take_from_tables(prompts, rows, layout)
            for prompts, rows in zip(grads[:3], grads[3:], strict=True)
        )
        P, S = layout.prompts.index_RW.shape
        places = layout.places_N[: layout.num_prompt_tokens]
        for grad, grad_rows in ((k, grads[4]), (v, grads[5])) if len(layout.prompt_B) else ():
            sums = sum_by_prompt(grad_rows[:, :, :S].transpose(1, 2), layout.prompt_B, P)
            grad[: layout.num_prompt_tokens] += sums.flatten(0, 1)[places]
        cos, sin = tables_like(q, cos, sin)
        qk = rotate(torch.cat([q, k], 1), cos, -sin)
        return torch.cat([qk, v], 1).flatten(1), *(None,) * 5


def tables_like(
    heads: torch.Tensor, cos_ND: torch.Tensor, sin_ND: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """cos and sin in the type of heads [N, H, D], as [N, 1, D/2] for all of a token's heads."""
    return cos_ND.to(heads.dtype).unsqueeze(1), sin_ND.to(heads.dtype).unsqueeze(1)


def heads_to_tables(
    qkv_NF: torch.Tensor,
    H: int,
    K: int,
    cos_ND: torch.Tensor,
    sin_ND: torch.Tensor,
    layout: Layout,
) -> tuple[torch.Tensor, ...]:
    """Flat tokens [N, F] in the tables of a layout, q and k rotated: (q [R, H, Q, D], k and v
    [R, K, W, D]) of the prompts, then the same of the rows, in which the keys and values of the
    prompt stand before the row's own.

    An empty position holds arbitrary numbers. `cos_ND`, `sin_ND` [N, D/2] are float32.
    """
    tables: tuple[torch.Tensor, ...] = _HeadsToTables.apply(qkv_NF, H, K, cos_ND, sin_ND, layout)  # type: ignore[no-untyped-call]
    return tables


class _TablesToHeads(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, prompts: torch.Tensor, rows: torch.Tensor, layout: Layout
    ) -> torch.Tensor:
        ctx.layout, ctx.shape = layout, rows.shape
        return take_from_tables(prompts, rows, layout).flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        layout, H, D = ctx.layout, ctx.shape[1], ctx.shape[3]
        tables, flat = [], grad.reshape(-1, H, D)
        # In the rows' table the prompts' tokens are keys alone.
        for table, first in ((layout.prompts, 0), (layout.rows, layout.num_prompt_tokens)):
            index_RQ = table.index_RW[:, table.start :]
            empty_RQ = (index_RQ < first)[:, :, None, None]
            tables.append(flat[index_RQ.clamp(min=0)].masked_fill_(empty_RQ, 0.0).transpose(1, 2))
        return *tables, None


def take_from_tables(prompts: torch.Tensor, rows: torch.Tensor, layout: Layout) -> torch.Tensor:
    """[R, H, W or Q, D] of both tables as flat tokens [N, H, D].

    `places_N` counts all W positions: place = row * W + position. A table of queries lacks the
    first W - Q positions, so the column there is smaller by that. Example: W = 8, Q = 5, place 14
    is row 1, position 6, column 6 - 3 = 3.
    """
    flat = []
    parts = layout.places_N.split(
        [layout.num_prompt_tokens, layout.tokens - layout.num_prompt_tokens]
    )
    for x, places, table in zip((prompts, rows), parts, (layout.prompts, layout.rows), strict=True):
        width = max(1, table.index_RW.shape[1])
        missing = table.index_RW.shape[1] - x.shape[2]
        flat.append(x[places // width, :, places % width - missing])
    return torch.cat(flat)


def tables_to_heads(prompts: torch.Tensor, rows: torch.Tensor, layout: Layout) -> torch.Tensor:
    """The inverse of `heads_to_tables` for the outputs of attention: [R, H, Q, D] of both tables as
    flat tokens [N, H D]."""
    attended: torch.Tensor = _TablesToHeads.apply(prompts, rows, layout)  # type: ignore[no-untyped-call]
    return attended


BLOCK = 64  # queries of a block: small enough to skip most of what the mask hides


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: tuple[int, ...]
    ) -> torch.Tensor:
        out, weights_of_blocks = torch.empty_like(q), []
        ctx.blocks = list(query_blocks(q.shape, k.shape[1], ends))
        for N, q_slice, keys in ctx.blocks:
            block_q = q[:N, :, q_slice].reshape(N, -1, q.shape[3])
            weights = torch.bmm(block_q, k[:N, :keys].transpose(1, 2))
            weights = causal_softmax(weights, q_slice.stop - q_slice.start)
            out[:N, :, q_slice] = torch.bmm(weights, v[:N, :keys]).unflatten(1, (q.shape[1], -1))
            weights_of_blocks.append(weights)
        ctx.save_for_backward(q, k, v, *weights_of_blocks)
        return out

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        q, k, v, *weights_of_blocks = ctx.saved_tensors
        group, D = q.shape[1], q.shape[3]
        grad_q = torch.empty_like(q)
        # A key's gradient is the sum over all later blocks of queries. In bf16 it would be
        # rounded after each block; so it is summed in float32 and rounded once, at the end.
        grad_k, grad_v = (torch.zeros_like(k, dtype=at_least_float32(k)) for _ in range(2))
        for (N, q_slice, keys), weights in zip(ctx.blocks, weights_of_blocks, strict=True):
            block_q = q[:N, :, q_slice].reshape(N, -1, D)
            block_grad = grad[:N, :, q_slice].reshape(N, -1, D)
            grad_v[:N, :keys] += torch.bmm(weights.transpose(1, 2), block_grad)
            grad_weights = torch.bmm(block_grad, v[:N, :keys].transpose(1, 2))
            size = q_slice.stop - q_slice.start
            grad_scores = causal_softmax_back(grad_weights, weights, size)
            grad_q[:N, :, q_slice] = torch.bmm(grad_scores, k[:N, :keys]).unflatten(1, (group, -1))
            grad_k[:N, :keys] += torch.bmm(grad_scores.transpose(1, 2), block_q)
        return grad_q, grad_k.to(k.dtype), grad_v.to(v.dtype), None


def query_blocks(
    shape: torch.Size, T: int, ends: tuple[int, ...]
) -> Iterator[tuple[int, slice, int]]:
    """For each block of queries of q [N, G, Q, D]: (how many of the N elements have a query there,
    which queries, how many keys the last of them attends to).

    The queries are at the last Q of T positions, so query i is at position T - Q + i and attends to
    T - Q + i + 1 keys. Example: T = 200, Q = 130 makes blocks of the queries 0-63, 64-127, 128-129,
    with 134, 198 and 200 keys. Rows that ended before a block's first position are left out; they
    come last, as the longest row is first.
    """
    N, Q = shape[0], shape[2]
    ends = ends or (T,)
    for first in range(0, Q, BLOCK):
        last = min(first + BLOCK, Q)
        active = max(row for row, end in enumerate(ends) if end > T - Q + first) + 1
        yield N // len(ends) * active, slice(first, last), T - Q + last


def causal_softmax(scores: torch.Tensor, size: int) -> torch.Tensor:
    """Softmax over the keys that each query may attend to; `scores` [N, G size, keys] are those of
    queries at the last `size` positions of the keys, and may be overwritten."""
    if fused.can_read(scores):
        return fused.softmax_(scores, size)
    shaped = scores.view(-1, size, scores.shape[-1])
    shaped[..., -size:].add_(causal_mask(size, scores))
    return torch.softmax(shaped, -1).view(scores.shape)


def causal_softmax_back(grad: torch.Tensor, weights: torch.Tensor, size: int) -> torch.Tensor:
    """The gradient of the scores; `grad` may be overwritten."""
    if fused.can_read(weights) and grad.is_contiguous():
        return fused.softmax_back_(weights, grad, size)
    grad_scores: torch.Tensor = torch.ops.aten._softmax_backward_data(
        grad, weights, -1, weights.dtype
    )
    return grad_scores


def causal_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, ends: tuple[int, ...] = ()
) -> torch.Tensor:
    """softmax(q kᵀ + causal mask) v for queries that are scaled already.

    q [N, G, Q, D] with the G query heads that share a key head, at the last Q of T positions;
    k, v [N, T, D]; returns [N, G, Q, D]. `ends` are the lengths of rows, the longest first, one for
    each N / len(ends) elements: after its end a row is not computed, and what is returned there is
    arbitrary.

    Narrow types on a GPU take torch's own kernel. Elsewhere explicit products, query block by query
    block: on a CPU in bf16 the fused kernel's backward pass takes 2-3 times as long (reference
    measurements), and a whole [T, T] product would compute what the mask hides. Source: Dao et al.
    2022 for the blocks; unlike FlashAttention the weights are kept for the backward pass.
    """
    if q.is_cuda and q.dtype in (torch.bfloat16, torch.float16):
        return sdpa_attention(q, k, v)
    attended: torch.Tensor = _CausalAttention.apply(q, k, v, ends)  # type: ignore[no-untyped-call]
    return attended


def sdpa_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """`causal_attention` by torch's `scaled_dot_product_attention`, which chooses among the kernels
    of the device. The keys are expanded, not copied."""
    group, Q, T = q.shape[1], q.shape[2], k.shape[1]
    if not q.numel():
        return q
    k, v = (x.unsqueeze(1).expand(-1, group, -1, -1) for x in (k, v))
    # Its own `is_causal` aligns the first query with the first key; ours are at the end of them.
    mask = None if Q == T else causal_lower_right(Q, T)
    return F.scaled_dot_product_attention(q, k, v, mask, is_causal=Q == T, scale=1.0)


def causal_mask(size: int, like: torch.Tensor) -> torch.Tensor:
    """[size, size] with 0 where a query may attend and a huge negative number where it may not.

    Not -inf: no row is ever fully masked here, and finite numbers cannot turn into nan.
    """
    floor = torch.finfo(like.dtype).min / 2
    return torch.full((size, size), floor, dtype=like.dtype, device=like.device).triu_(1)
