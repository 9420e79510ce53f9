"""Token by token over a cache: the same numbers as the whole row at once."""

import pytest
import torch

from aha.model.decode import BLOCK, InferenceWeights, KVCache, decode_step, prefill

from ..tiny import TOKENIZER, tiny_transformer


def weights_of(policy, dtype=torch.float32) -> InferenceWeights:
    return InferenceWeights.of(policy, dtype)


def some_row(length: int, seed: int = 0) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(0, TOKENIZER.vocab_size, (length,), generator=generator).tolist())


@torch.no_grad()
def whole(policy, row) -> torch.Tensor:
    """Logits [T, V] of one row alone."""
    return policy(torch.tensor([row]))[0]


def close(found, wanted) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("heads", [{}, {"num_key_value_heads": 1}, {"num_key_value_heads": 4}])
def test_prompts_of_any_length_then_token_by_token(heads):
    """Three rows side by side, far enough for the cache to grow twice."""
    policy = tiny_transformer(**heads)
    rows = [some_row(length + 2 * BLOCK, length) for length in (3, 17, 9)]
    starts = (3, 17, 9)
    weights = weights_of(policy)
    wanted = [whole(policy, row) for row in rows]
    logits, cache = prefill(weights, [row[:start] for row, start in zip(rows, starts, strict=True)])
    assert cache.lengths.tolist() == [3, 17, 9] and cache.capacity == 17
    for offset in range(2 * BLOCK):
        for b, start in enumerate(starts):
            close(logits[b], wanted[b][start + offset - 1])
        cache.reserve(int(cache.lengths.max()) + 1)
        drawn = [row[start + offset] for row, start in zip(rows, starts, strict=True)]
        logits = decode_step(weights, cache, torch.tensor(drawn))
    assert cache.capacity % BLOCK == 0


def test_rows_can_be_placed_kept_and_continued():
    """A prompt read once serves two rows; a gap is closed; the rows that stay do not notice."""
    policy = tiny_transformer()
    rows = [some_row(20, seed) for seed in range(3)]
    weights = weights_of(policy)
    logits, prompts = prefill(weights, [row[:8] for row in rows])
    cache = KVCache(weights, 6, 0)
    cache.copy_prompts(0, prompts, torch.tensor([0, 0, 1, 1, 2, 2]))
    cache.compact(torch.tensor([1, 3, 4]))
    assert cache.lengths[:3].tolist() == [8, 8, 8]
    for offset in range(8, 20):
        cache.reserve(offset + 1)
        logits = decode_step(weights, cache, torch.tensor([row[offset] for row in rows]))
    for b, row in enumerate(rows):
        close(logits[b], whole(policy, row)[-1])


def test_what_lies_behind_a_row_is_never_read():
    policy, row = tiny_transformer(), some_row(12)
    weights = weights_of(policy)
    _, cache = prefill(weights, [row[:11]])
    cache.reserve(40)
    for cached in (*cache.keys, *cache.values):
        cached[:, :, 11:] = 1e6
    close(decode_step(weights, cache, torch.tensor([row[11]]))[0], whole(policy, row)[-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_are_a_frozen_copy(dtype):
    """An engine that has not been told of an update must not have half of it."""
    policy, prompt = tiny_transformer(), [some_row(5)]
    weights = weights_of(policy, dtype)
    before, _ = prefill(weights, prompt)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(1.0)
    after, _ = prefill(weights, prompt)
    assert torch.equal(before, after)


def test_bf16_is_near_float32():
    policy, prompt = tiny_transformer(std=0.1), [some_row(30)]
    rough, _ = prefill(weights_of(policy, torch.bfloat16), prompt)
    exact, _ = prefill(weights_of(policy), prompt)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)
