"""A world of one: it costs nothing and changes nothing."""

import torch

from aha.dist.world import World

from .rank_work import exchange


def test_a_world_of_one_is_itself():
    came = exchange(World())
    assert [grad.unique().tolist() for grad in came["grads"]] == [[1.0], [10.0]]
    assert came["loss"] == 0.5 and came["requests"] == (True, False)
    assert came["gathered"] == [{"rank": 0}] and came["broadcast"] == b"r"
    assert came["rows"] == [[0, 1, 2, 3, 4]]
    assert not torch.distributed.is_initialized()


def test_the_share_of_one_is_the_same_memory():
    rows = torch.arange(6).view(3, 2)
    share = World().share(rows)
    assert share.data_ptr() == rows.data_ptr() and share.is_contiguous()
