"""Each hand-written backward pass against torch's own, and against finite differences."""

import itertools
from collections.abc import Iterator

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn import functional as F

from aha.batching.layout import Layout
from aha.model import attention, fused, ops
from aha.model.attention import causal_attention

from ..tiny import IN_C, computed_by

EPS = 1e-6


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def normal(rng, *shape, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape, generator=rng, dtype=dtype).requires_grad_()


def angles(rng, T: int, half: int, dtype=torch.float32):
    turned = torch.rand((T, half), generator=rng, dtype=dtype) * 6
    return turned.cos(), turned.sin()


def plain_rms(x):
    return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt()


def plain_swiglu(gate_up):
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate) * up


def plain_rotary(x, cos, sin):
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


def plain_logprobs(logits, targets):
    return F.log_softmax(logits, -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def plain_attention(q, k, v):
    """Torch's own, the query heads side by side: [N, group, T, D]."""
    keys, values = (x.unsqueeze(1).expand(q.shape) for x in (k, v))
    return F.scaled_dot_product_attention(q, keys, values, is_causal=True, scale=1.0)


def agree(ours, plain, x, tolerance=1e-5):
    """The same values, and the same gradient under an uneven weighting of the outputs."""
    mine, theirs = ours(x), plain(x)
    torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)
    weight = torch.linspace(-1, 2, mine.numel()).view_as(mine)
    gradients = [torch.autograd.grad((out * weight).sum(), x)[0] for out in (mine, theirs)]
    torch.testing.assert_close(*gradients, rtol=tolerance, atol=tolerance)


@pytest.fixture(params=[pytest.param(None, id="torch"), *IN_C], autouse=True)
def side(request) -> Iterator[str | None]:
    """Every test holds for the torch expressions and for the C that takes their place."""
    with computed_by(request.param):
        yield request.param


@pytest.mark.parametrize("width", [16, 20, 128])
def test_which_tensors_are_handed_to_c(side, width):
    x = torch.zeros(3, width)
    assert fused.can_compute(x) == (side is not None and width % 16 == 0)
    assert not fused.can_compute(x.double()) and not fused.can_compute(torch.zeros(width, 16).T)


def test_rms_normalise_is_the_plain_expression(rng):
    agree(lambda x: ops.rms_normalise(x, EPS), plain_rms, normal(rng, 3, 5, 16))


def test_what_is_read_from_a_float32_stream_may_be_bf16(rng):
    """The stream's own gradient is float32: it is a sum over layers."""
    x = normal(rng, 6, 32)
    found = ops.rms_normalise(x, EPS, torch.bfloat16)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), plain_rms(x), rtol=8e-3, atol=1e-6)
    weight = torch.linspace(-1, 2, x.numel()).view_as(x).bfloat16()
    (grad,) = torch.autograd.grad(found, x, weight)
    (wanted,) = torch.autograd.grad(plain_rms(x), x, weight.float())
    assert grad.dtype == torch.float32
    torch.testing.assert_close(grad, wanted, rtol=2e-2, atol=2e-2)
    assert not torch.equal(grad, grad.bfloat16().float())


def test_rms_normalise_of_a_tiny_vector_is_held_by_eps(rng):
    """Where mean(x²) is no larger than eps, eps must be inside the root and in its gradient."""
    x = (normal(rng, 2, 8).detach() * 1e-3).requires_grad_()
    agree(lambda x: ops.rms_normalise(x, EPS), plain_rms, x, 1e-4)


def test_swiglu_is_the_plain_expression(rng):
    agree(ops.swiglu, plain_swiglu, normal(rng, 3, 5, 24))
    agree(ops.swiglu, plain_swiglu, normal(rng, 3, 5, 64))


# Two prompts: one with three rows, one with a single one whose completion is a stop token alone;
# and rows that share nothing.
LAYOUTS = {
    "shared": Layout.of([7, 3, 7, 7], [4, 6, 4, 4], [3, 1, 70, 2]),
    "whole": Layout.whole(3, 9, "cpu"),
}


def by_hand(H: int, K: int, cos_ND, sin_ND, layout: Layout):
    """Each token against what it may see, found by looking, without tables."""
    edges, bounds = layout.edges.tolist(), layout.bounds_P.tolist()
    P = len(bounds) - 1
    runs = [range(*pair) for pair in itertools.pairwise(edges)]
    prompts = {int(row): p for p in range(P) for row in layout.order_B[bounds[p] : bounds[p + 1]]}

    def attend(qkv_NF):
        N, D = len(qkv_NF), cos_ND.shape[1] * 2
        heads = qkv_NF.view(N, H + 2 * K, D)
        q, k = plain_rotary(heads[:, : H + K], cos_ND[:, None], sin_ND[:, None]).split([H, K], 1)
        out = []
        for place, run in enumerate(runs):
            before = list(runs[prompts[place - P]]) if place >= P else []
            for token in run:
                seen = before + list(range(run.start, token + 1))
                keys, values = (
                    x[seen].repeat_interleave(H // K, 1) for x in (k, heads[:, H + K :])
                )
                weights = torch.softmax(torch.einsum("hd,shd->sh", q[token], keys), 0)
                out.append(torch.einsum("sh,shd->hd", weights, values).flatten())
        return torch.stack(out)

    return attend


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize(("H", "K", "D"), [(4, 2, 16), (3, 1, 48), (2, 2, 8)])
def test_attention_is_what_each_token_may_see(rng, name, H, K, D):
    layout = LAYOUTS[name]
    cos, sin = angles(rng, layout.tokens, D // 2)
    given = (H, K, cos, sin, layout)
    x = normal(rng, layout.tokens, (H + 2 * K) * D)
    agree(lambda x: attention.flat_attention(x, *given), by_hand(*given), x, 1e-4)


def test_attention_in_bf16_stays_near_float32(rng):
    layout = LAYOUTS["shared"]
    given = (4, 2, *angles(rng, layout.tokens, 8), layout)
    wide = normal(rng, layout.tokens, 8 * 16)
    narrow = wide.detach().bfloat16().requires_grad_()
    found = [attention.flat_attention(x, *given) for x in (wide, narrow)]
    grads = [torch.autograd.grad(y.sum(), x)[0] for x, y in zip((wide, narrow), found, strict=True)]
    for one, other in (found, grads):
        assert other.dtype == torch.bfloat16
        assert (one - other.float()).norm() < 0.02 * one.norm()


def test_what_a_prompt_has_is_summed_over_its_rows(rng):
    prompt_B = torch.tensor([1, 0, 1, 1])
    x = normal(rng, 2, 5)
    agree(lambda x: ops.repeat_by_prompt(x, prompt_B), lambda x: x[prompt_B], x)


def test_token_logprobs_is_log_softmax_at_the_target(rng):
    targets = torch.randint(0, 7, (3, 5), generator=rng)
    agree(
        lambda logits: ops.token_logprobs(logits, targets),
        lambda logits: plain_logprobs(logits, targets),
        normal(rng, 3, 5, 7),
    )


def test_token_logprobs_of_huge_logits_stays_finite():
    logits = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    # log(e^0 / (e^1e4 + e^0 + e^-1e4)) = -1e4
    found = ops.token_logprobs(logits, torch.tensor([1]))
    assert found.item() == -1e4
    found.sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-1.0, 1.0, 0.0]]))


def test_token_logprobs_of_bf16_logits_is_computed_in_float32(rng):
    logits = normal(rng, 4, 50).detach().bfloat16().requires_grad_()
    targets = torch.randint(0, 50, (4,), generator=rng)
    found = ops.token_logprobs(logits, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, plain_logprobs(logits.float(), targets))
    found.sum().backward()
    assert logits.grad.dtype == torch.bfloat16


def test_bf16_in_bf16_out_and_near_float32(rng):
    x = normal(rng, 6, 32).detach()
    for ours, plain in (
        (lambda x: ops.rms_normalise(x, EPS), plain_rms),
        (ops.swiglu, plain_swiglu),
    ):
        found = ours(x.bfloat16())
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found.float(), plain(x), rtol=2e-2, atol=2e-2)


def test_gradcheck_in_float64(rng):
    double = torch.float64
    targets = torch.randint(0, 6, (2, 3), generator=rng)
    assert gradcheck(lambda x: ops.rms_normalise(x, EPS), normal(rng, 2, 3, 4, dtype=double))
    assert gradcheck(ops.swiglu, normal(rng, 2, 3, 8, dtype=double))
    layout = Layout.of([1, 1], [2, 2], [2, 3])
    given = (2, 1, *angles(rng, layout.tokens, 2, double), layout)
    x = normal(rng, layout.tokens, 4 * 4, dtype=double)
    assert gradcheck(lambda x: attention.flat_attention(x, *given), x)
    assert gradcheck(
        lambda x: ops.repeat_by_prompt(x, torch.tensor([1, 0, 1])), x[:2].detach().requires_grad_()
    )
    assert gradcheck(
        lambda logits: ops.token_logprobs(logits, targets), normal(rng, 2, 3, 6, dtype=double)
    )


def test_float64_stays_float64(rng):
    """A step through float32 would leave an error near 1e-7."""
    x, targets = normal(rng, 4, 6, dtype=torch.float64).detach(), torch.tensor([0, 1, 2, 3])
    tight = {"rtol": 1e-14, "atol": 1e-14}
    torch.testing.assert_close(ops.rms_normalise(x, EPS), plain_rms(x), **tight)
    torch.testing.assert_close(ops.token_logprobs(x, targets), plain_logprobs(x, targets), **tight)


# Computed by TRL's selective_log_softmax in float64 (vectors logprob/temperature_1.0 and _0.7).
LOGITS = [[2.0, 0.0, -1.0, 0.5], [0.1, 0.2, 0.3, 0.4], [5.0, -5.0, 0.0, 1.0]]
OTHERS = {
    1.0: [-0.3423495824, -1.2425355295, -4.0247891795],
    0.7: [-0.17270511, -1.1847270625, -5.7183669955],
}


@pytest.mark.parametrize("temperature", OTHERS)
def test_token_logprobs_of_another_trainer(temperature):
    found = ops.token_logprobs(torch.tensor(LOGITS) / temperature, torch.tensor([0, 3, 3]))
    torch.testing.assert_close(found, torch.tensor(OTHERS[temperature]), rtol=1e-5, atol=1e-6)


# Shorter than a block of queries, exactly one, exactly two, and a last one that is not full.
@pytest.mark.parametrize("T", [1, 5, attention.BLOCK, 2 * attention.BLOCK, 2 * attention.BLOCK + 7])
def test_causal_attention_is_torchs_own(rng, T):
    q, k, v = normal(rng, 4, 3, T, 8), normal(rng, 4, T, 8), normal(rng, 4, T, 8)
    near = 3e-5  # sums of hundreds, on some processors with a rounding at each product
    agree(lambda x: causal_attention(x, k, v), lambda x: plain_attention(x, k, v), q, near)
    agree(lambda x: causal_attention(q, x, v), lambda x: plain_attention(q, x, v), k, near)
    agree(lambda x: causal_attention(q, k, x), lambda x: plain_attention(q, k, x), v, near)


def test_causal_attention_gradcheck(rng, monkeypatch):
    monkeypatch.setattr(attention, "BLOCK", 3)
    shapes = [(2, 2, 7, 4), (2, 7, 4), (2, 7, 4)]
    assert gradcheck(causal_attention, [normal(rng, *s, dtype=torch.float64) for s in shapes])


def test_causal_attention_in_bf16_stays_near_float32(rng):
    """Over several blocks: the sums of the keys' gradients must not round at each."""
    shapes = [(2, 2, 300, 16), (2, 300, 16), (2, 300, 16)]
    wide = [normal(rng, *shape) for shape in shapes]
    narrow = [x.detach().bfloat16().requires_grad_() for x in wide]
    gradients = [torch.autograd.grad(causal_attention(*x).sum(), x) for x in (wide, narrow)]
    for a, b in zip(*gradients, strict=True):
        assert (a - b.float()).norm() < 0.02 * a.norm()


def test_not_a_number_is_not_lost_on_the_way(rng):
    """A run that has gone wrong must be seen to have: nothing may turn nan into a number."""
    x = normal(rng, 1, 70, 32).detach()
    x[0, 40, 3] = torch.nan
    assert ops.rms_normalise(x, EPS)[0, 40].isnan().all()
    assert ops.swiglu(x)[0, 40, 3].isnan()
    given = (2, 1, *angles(rng, 70, 8), Layout.whole(1, 70, "cpu"))
    assert attention.flat_attention(torch.cat([x[0], x[0]], -1), *given)[40:, :16].isnan().all()
    q, k = x[None, :, :, :16].contiguous(), x[:, :, :16].contiguous()
    assert causal_attention(q, k, k)[0, 0, 40:].isnan().all()


@pytest.mark.parametrize("side", IN_C, indirect=True)
@pytest.mark.parametrize("threads", [2, 3, 70])
def test_not_one_bit_depends_on_the_threads(rng, threads):
    x = normal(rng, 40, 64, 64)
    alone = [ops.rms_normalise(x, EPS), ops.swiglu(x)]
    grads = torch.autograd.grad(alone, x, [torch.ones_like(y) for y in alone])
    try:
        torch.set_num_threads(threads)
        together = [ops.rms_normalise(x, EPS), ops.swiglu(x)]
        again = torch.autograd.grad(together, x, [torch.ones_like(y) for y in together])
    finally:
        torch.set_num_threads(1)
    for one, other in zip([*alone, *grads], [*together, *again], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("side", IN_C, indirect=True)
def test_not_one_bit_of_attention_depends_on_the_threads(rng):
    layout = Layout.of([p for p in range(5) for _ in range(4)], [9] * 20, list(range(40, 60)))
    given = (4, 2, *angles(rng, layout.tokens, 8), layout)
    x = normal(rng, layout.tokens, 8 * 16)
    found = []
    try:
        for threads in (1, 2, 3, 70):
            torch.set_num_threads(threads)
            y = attention.flat_attention(x, *given)
            found.append((y, torch.autograd.grad(y.square().sum(), x)[0]))
    finally:
        torch.set_num_threads(1)
    for others in found[1:]:
        assert all(torch.equal(one, other) for one, other in zip(found[0], others, strict=True))


def continuing(rng, Q: int, T: int):
    """Rows whose last Q of T positions ask."""
    return normal(rng, 4, 3, Q, 8), normal(rng, 4, T, 8), normal(rng, 4, T, 8)


@pytest.mark.parametrize(("Q", "T"), [(1, 1), (5, 5), (1, 9), (70, 90), (64, 200)])
def test_queries_stand_at_the_last_positions(rng, Q, T):
    q, k, v = continuing(rng, Q, T)
    long = torch.cat([normal(rng, 4, 3, T - Q, 8).detach(), q], 2)
    found, wanted = causal_attention(q, k, v), plain_attention(long, k, v)[:, :, T - Q :]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    weight = torch.linspace(-1, 2, found.numel()).view_as(found)
    for ours, plain in zip(
        torch.autograd.grad((found * weight).sum(), (q, k, v)),
        torch.autograd.grad((wanted * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("Q", "T"), [(5, 5), (1, 9), (70, 90), (0, 9)])
def test_the_kernel_of_gpus_is_the_same_function(rng, Q, T):
    """`scaled_dot_product_attention` runs on a CPU too, where nothing asks for it."""
    given = continuing(rng, Q, T)
    found, wanted = attention.sdpa_attention(*given), causal_attention(*given)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    if Q:
        grads = [torch.autograd.grad(x.square().sum(), given) for x in (found, wanted)]
        for one, other in zip(*grads, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_rows_that_end_early_are_left_where_they_end(rng):
    """Four rows of two key heads each; behind its end a row's results and gradients are free."""
    ends = (150, 90, 20, 20)
    q, k, v = normal(rng, 8, 2, 140, 8), normal(rng, 8, 150, 8), normal(rng, 8, 150, 8)
    asked = torch.zeros(8, 1, 140, 1)
    for row, end in enumerate(ends):
        asked[2 * row : 2 * row + 2, :, : end - 10] = 1.0
    grads = []
    for given in ((), (ends,)):
        mixed = causal_attention(q, k, v, *given)
        # Nothing multiplies what nobody has computed: it may be any number.
        kept = torch.where(asked > 0, mixed, 0.0)
        found = torch.autograd.grad(kept.square().sum(), (q, k, v))
        grads.append((kept, torch.where(asked > 0, found[0], 0.0), *found[1:]))
    for one, other in zip(*grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_no_query_sees_a_later_key(rng):
    q, k, v = normal(rng, 1, 1, 70, 4), normal(rng, 1, 70, 4), normal(rng, 1, 70, 4)
    gradient = torch.autograd.grad(causal_attention(q, k, v)[0, 0, 20].sum(), v)[0][0]
    assert (gradient[:21].abs().sum(1) > 0).all() and not gradient[21:].any()
