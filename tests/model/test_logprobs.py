"""Log-probs in chunks: the same numbers and gradients, and no [B, T, V] anywhere."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from aha.core.records import Problem, Prompt
from aha.model import fused
from aha.model.logprobs import logits_of, logprobs_and_entropy
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine

from ..tiny import TOKENIZER, tiny_transformer

B, T, C, V = 2, 30, 8, 500
CHUNK = 7 * V  # seven positions at a time: the last chunk is a short one


def case(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(B, T, C, generator=generator, dtype=dtype)
    head = torch.randn(V, C, generator=generator, dtype=dtype)
    targets = torch.randint(0, V, (B, T), generator=generator)
    return hidden.requires_grad_(), head.requires_grad_(), targets


def graded(hidden, head, targets, entropy, chunk, temperature=0.7):
    """Values and gradients under an uneven weighting of the outputs."""
    found = logprobs_and_entropy(hidden, head, targets, temperature, entropy, chunk)
    weight = torch.linspace(-1, 2, B * T, dtype=hidden.dtype).view(B, T)
    loss = (found[0] * weight).sum()
    if entropy:
        loss = loss + (found[1] * weight.flip(0)).sum()
    return found, torch.autograd.grad(loss, (hidden, head))


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_the_cut_changes_neither_numbers_nor_gradients(entropy, dtype, off):
    hidden, head, targets = case(dtype)
    whole, slopes = graded(hidden, head, targets, entropy, B * T * V)
    parts, part_slopes = graded(hidden, head, targets, entropy, CHUNK)
    assert (whole[1] is not None) == (parts[1] is not None) == entropy
    for one, other in zip((*whole, *slopes), (*parts, *part_slopes), strict=True):
        if one is not None:
            size = float(one.detach().abs().max())
            torch.testing.assert_close(other, one, rtol=off, atol=off * size)


def test_the_gradient_is_the_difference_quotient():
    hidden, head, targets = case()
    few = (hidden[:1, :3].detach().requires_grad_(), head, targets[:1, :3])
    for place in (0, 1):
        assert torch.autograd.gradcheck(
            lambda h, w, place=place: logprobs_and_entropy(h, w, few[2], 0.7, True, 2 * V)[place],
            few[:2],
        )


def test_a_frozen_head_gets_no_gradient():
    hidden, head, targets = case()
    (hidden_slope,) = torch.autograd.grad(
        logprobs_and_entropy(hidden, head.detach(), targets, chunk=CHUNK)[0].sum(), hidden
    )
    wanted = torch.autograd.grad(logprobs_and_entropy(hidden, head, targets)[0].sum(), hidden)[0]
    torch.testing.assert_close(hidden_slope, wanted)


# -- bf16: logits in float32, where the model is wide enough --------------------------------


def wide_case() -> tuple[torch.Tensor, ...]:
    """bf16 of a width from which on logits are float32, and a vocabulary that no tile divides."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, 9, fused.WIDE, generator=generator).bfloat16()
    head = torch.randn(V + 3, fused.WIDE, generator=generator).bfloat16()
    targets = torch.randint(0, V, (2, 9), generator=generator)
    return hidden.requires_grad_(), head.requires_grad_(), targets


needs_bf16 = pytest.mark.skipif(
    fused.libraries(True) is None, reason="no bf16 in hardware, or no C"
)


@needs_bf16
@pytest.mark.parametrize("chunk", [2**25, 5 * V])
def test_logits_of_a_wide_bf16_model_are_float32(chunk):
    hidden, head, targets = wide_case()
    exact = logits_of(hidden.detach().float(), head.detach().float(), 1.0)
    found = logits_of(hidden, head, 1.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-4)
    assert (exact.bfloat16().float() - exact).abs().max() > 0.05  # what rounding would cost
    logprobs, entropies = logprobs_and_entropy(hidden, head, targets, 0.7, True, chunk)
    wide = [x.detach().float().requires_grad_() for x in (hidden, head)]
    wanted = logprobs_and_entropy(*wide, targets, 0.7, True)
    torch.testing.assert_close(logprobs, wanted[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(entropies, wanted[1], rtol=1e-4, atol=1e-4)
    slopes = torch.autograd.grad(logprobs.sum() + entropies.sum(), (hidden, head))
    for slope, other in zip(
        slopes, torch.autograd.grad(wanted[0].sum() + wanted[1].sum(), wide), strict=True
    ):
        assert slope.dtype == torch.bfloat16
        assert (slope.float() - other).norm() < 0.01 * other.norm()


@needs_bf16
def test_a_narrow_model_computes_as_it_did_when_its_runs_were_filed():
    hidden, head, _ = (x.detach() for x in wide_case())
    narrow = fused.WIDE // 2
    found = logits_of(hidden[..., :narrow].contiguous(), head[:, :narrow].contiguous(), 1.0)
    assert found.dtype == torch.bfloat16


@needs_bf16
def test_a_wide_bf16_trainer_scores_as_the_loop_in_c_generates(monkeypatch):
    """Residual stream and logits that are rounded are what the two differ by."""
    config = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 4}
    policy = tiny_transformer(**config, tie_word_embeddings=False)
    for layer in policy.model.layers:  # each adds little to a large stream, as in real models
        for linear in layer.linears().values():
            linear.weight.data *= 0.15
    prompt = Prompt(Problem("", "", {}), "", (5, 6, 7))
    engine = NativeEngine(policy, TOKENIZER, "bfloat16")
    assert engine.compiled is not None
    (rows,) = engine.generate([prompt], Sampling(40, 8))

    def gap() -> float:
        gaps = []
        for row in rows:
            tokens = torch.tensor([prompt.tokens + row.tokens])
            scored = policy.token_logprobs(tokens, len(prompt.tokens), torch.bfloat16)[0]
            gaps.append((scored.detach() - torch.tensor(row.logprobs)).abs())
        return float(torch.cat(gaps).mean())

    kept = gap()
    monkeypatch.setattr(fused, "WIDE", 257)
    assert kept < 0.8 * gap()


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that any operation gives."""

    numel = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        found = function(*arguments, **(keywords or {}))
        for tensor in found if isinstance(found, tuple | list) else [found]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return found


def held(chunk: int) -> tuple[int, int]:
    """(largest tensor made, largest tensor saved for the backward pass), in numbers."""
    hidden, head, targets = case(torch.float32)
    saved = [0]

    def note(tensor):
        saved.append(tensor.numel())
        return tensor

    with Largest() as made, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        graded(hidden, head, targets, True, chunk)
    return made.numel, max(saved)


def test_no_tensor_has_a_number_for_every_position_and_word():
    assert held(B * T * V) == (B * T * V, B * T * V)  # the plain way does, so the count counts
    made, saved = held(CHUNK)
    assert made == max(CHUNK, V * C) and saved == V * C


def test_the_decoder_takes_the_chunks_when_there_are_many_logits(monkeypatch):
    policy = tiny_transformer(vocab_size=V)
    tokens_BT = torch.randint(0, V, (3, 40))
    with Largest() as whole:
        plain = policy.logprobs_and_entropy(tokens_BT, 5, temperature=0.8, entropy=True)
    monkeypatch.setattr(logprobs_and_entropy, "__defaults__", (1.0, False, 11 * V))
    with Largest() as made:
        parts = policy.logprobs_and_entropy(tokens_BT, 5, temperature=0.8, entropy=True)
    for one, other in zip(plain, parts, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-5)
    assert made.numel < whole.numel == 3 * 35 * V


# -- activations again in the backward pass -------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recomputing_changes_no_gradient_and_holds_less(dtype):
    policy = tiny_transformer(num_hidden_layers=4)
    tokens_BT = torch.randint(0, TOKENIZER.vocab_size, (3, 40))
    found = []
    for policy.recompute in (False, True):
        saved = []

        def note(tensor, saved=saved):
            saved.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = policy.token_logprobs(tokens_BT, 3, dtype).sum()
        loss.backward()
        found.append(([p.grad.clone() for p in policy.parameters()], sum(saved)))
        policy.zero_grad()
    (plain, held_plain), (again, held_again) = found
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))
    assert held_again < held_plain / 3
