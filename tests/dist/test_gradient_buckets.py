"""Gradients in vectors of a bounded size: every number once, in its place, in float32."""

import pytest
import torch

from aha.dist.gradient_buckets import add_up_in_buckets, buckets


def numbers(*shape: int, first: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    count = torch.Size(shape).numel()
    return torch.arange(first, first + count, dtype=torch.float32).to(dtype).view(shape)


@pytest.mark.parametrize("most", [1, 3, 4, 7, 100])
def test_every_number_is_added_up_once(most):
    gradients = [
        numbers(2, 3),
        numbers(5, first=6),
        numbers(0),
        numbers(first=11),
        numbers(9, first=12),
    ]
    before, seen = [g.clone() for g in gradients], []

    def add_up(vector: torch.Tensor) -> None:
        assert vector.dim() == 1 and 0 < len(vector) <= most and vector.dtype == torch.float32
        seen.extend(vector.tolist())
        vector.mul_(3.0)

    add_up_in_buckets(gradients, add_up, most)
    assert seen == [float(n) for n in range(21)]
    for gradient, old in zip(gradients, before, strict=True):
        assert torch.equal(gradient, 3.0 * old)


def test_sums_are_those_of_float32_and_rounded_once():
    """In bf16 256 + 1 is 256, so of 256 ranks with 1 each none would be counted."""
    gradient = torch.ones(3, dtype=torch.bfloat16)

    def add_up(vector: torch.Tensor) -> None:
        for _ in range(299):
            vector.add_(1.0)

    add_up_in_buckets([gradient], add_up)
    assert gradient.dtype == torch.bfloat16 and gradient.tolist() == [300.0] * 3


def test_a_gradient_in_another_order_of_memory_has_the_same_vectors():
    """Of a weight that another rank has no gradient for, the zeros may lie otherwise."""
    turned, plain = numbers(4, 3).t().contiguous().t(), numbers(4, 3)
    assert not turned.is_contiguous() and torch.equal(turned, plain)
    vectors: list[list[torch.Tensor]] = []
    for gradient in (turned, plain):
        vectors.append([])
        add_up_in_buckets([gradient], lambda v: vectors[-1].append(v.clone()) or v.add_(1.0), 5)
    assert [list(map(torch.Tensor.tolist, own)) for own in vectors][0] == [
        vector.tolist() for vector in vectors[1]
    ]
    assert torch.equal(turned, numbers(4, 3) + 1) and torch.equal(plain, turned)


def test_a_large_gradient_is_not_copied_and_small_ones_share_a_vector():
    large, small = torch.zeros(3, 4), [torch.zeros(2), torch.zeros(2)]
    places = [v.data_ptr() for bucket in buckets([large.view(-1)], 5) for v in bucket]
    assert places == [large.data_ptr() + 4 * start for start in (0, 5, 10)]
    assert [len(bucket) for bucket in buckets(small, 5)] == [2]
    lengths: list[int] = []
    add_up_in_buckets([large, *small], lambda vector: lengths.append(len(vector)), 5)
    assert lengths == [5, 5, 4, 2]  # the last two of the large one with the first small one


def test_nothing_is_no_meeting():
    add_up_in_buckets([], pytest.fail)
    add_up_in_buckets([torch.zeros(0)], pytest.fail)
