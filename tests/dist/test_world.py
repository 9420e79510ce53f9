"""A world of one: it costs nothing and changes nothing."""

import random

import pytest
import torch

from aha.dist.world import World

from .rank_work import exchange


def test_a_world_of_one_is_itself():
    came = exchange(World())
    assert [grad.unique().tolist() for grad in came["grads"]] == [[1.0], [10.0]]
    assert came["loss"] == 0.5 and came["requests"] == (True, False)
    assert came["rare"] == [2.0] * 3 and came["idle"] is None
    assert came["sums"] == came["values"] == [1.0, 0.0]
    assert came["gathered"] == [{"rank": 0}] and came["broadcast"] == b"r"
    assert came["rows"] == [[0, 1, 2, 3, 4]]
    assert not torch.distributed.is_initialized()


def test_the_share_of_one_is_the_same_memory():
    rows = torch.arange(6).view(3, 2)
    share = World().share(rows)
    assert share.data_ptr() == rows.data_ptr() and share.is_contiguous()


class RankOf(World):
    """One of several ranks, as far as it deals rows."""

    def __init__(self, rank: int, size: int):
        super().__init__()
        self.rank, self.size = rank, size


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_rows_are_dealt_by_their_cost(size):
    draw = random.Random(size)
    costs = [draw.randint(1, 100) for _ in range(40)]
    hands = [RankOf(rank, size).deal(costs, int) for rank in range(size)]
    assert [cost for hand in hands for cost in hand] == costs  # each row once, in order
    assert all(abs(sum(hand) - sum(costs) / size) <= 100 for hand in hands)


def test_few_rows_leave_ranks_without_any():
    assert [RankOf(rank, 2).deal([4, 1, 1, 2], int) for rank in range(2)] == [[4], [1, 1, 2]]
    assert sorted(len(RankOf(rank, 3).deal([5], int)) for rank in range(3)) == [0, 0, 1]
    assert RankOf(1, 3).deal([], int) == []
    assert sum(len(RankOf(rank, 2).deal([0, 0], int)) for rank in range(2)) == 2
