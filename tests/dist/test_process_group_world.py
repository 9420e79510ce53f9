"""Gradients that are added up in a group of the device, in ranks that a command starts itself.

The group is one of gloo in the place of NCCL's: all but the name of the library runs here. That
NCCL itself does the same is tested on two GPUs (tests/training/test_ranks_on_gpus.py); ranks of a
launcher are in test_joined_ranks.py.
"""

import multiprocessing
from pathlib import Path

import pytest
import torch

from aha.core.errors import RunStopped
from aha.dist.local_ranks import LOST_RANK, LocalRanks, can_meet
from aha.dist.world import World

from . import rank_work

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not can_meet(), reason="this torch has no gloo")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """A started process has this one's sys.path."""
    monkeypatch.syspath_prepend(str(ROOT))


def run(size: int, work, late_s: float = 60.0) -> object:
    with LocalRanks(size, work, late_s) as world:
        came = work(world)
    assert multiprocessing.active_children() == [] and not torch.distributed.is_initialized()
    return came


@pytest.mark.parametrize("size", [2, 3])
def test_the_sums_are_those_of_the_cpu(size):
    came = run(size, rank_work.exchange_on_device)
    total = {2: 11.0, 3: 111.0}[size]
    assert [grad.unique().tolist() for grad in came["grads"]] == [[total], [10 * total]]
    assert came["loss"] == {2: 2.0, 3: 4.5}[size] and came["requests"] == (True, False)
    assert came["rare"] == [2.0] * 3 and came["idle"] is None
    assert came["values"] == [size, sum(range(size))] and came["group"] == size
    (_, turned), (half_type, half), (double_type, double) = came["kinds"]
    assert turned == ((size - 1) * torch.arange(12.0).view(4, 3)).tolist()
    assert half_type == torch.bfloat16 and half == [sum(range(1, size + 1))] * 5
    assert double_type == torch.float64 and double == [0.5 * size] * 2


@pytest.mark.parametrize("work", [rank_work.disappear_on_device, rank_work.wait_for_a_gpu])
def test_a_rank_that_is_killed_meanwhile_is_named(work):
    with pytest.raises(RunStopped, match=r"rank 1 \(process \d+\) was ended by SIGKILL") as lost:
        run(2, work)
    assert lost.value.check == LOST_RANK and multiprocessing.active_children() == []


def test_the_error_of_a_rank_is_that_of_the_command():
    with pytest.raises(ZeroDivisionError, match="a half of nothing"):
        run(3, rank_work.stumble_on_device)
    assert multiprocessing.active_children() == []


def test_a_rank_that_does_nothing_is_named_with_the_place():
    where = r"rank 1 \(process \d+\) did not come to the gradients, and did nothing for 2 s"
    with pytest.raises(RunStopped, match=where):
        run(2, rank_work.sleep_on_device, late_s=2.0)
    assert multiprocessing.active_children() == []


def test_a_cpu_needs_no_group_of_its_own():
    World().take_device(torch.device("cuda"))  # a world of one is where its process is
    assert run(2, take_the_cpu) is None


def take_the_cpu(world: World) -> object:
    world.take_device(torch.device("cpu"))
    world.barrier("the table")
    return world.device_group
