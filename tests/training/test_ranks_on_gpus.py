"""Two ranks on two GPUs, with NCCL: the steps of one rank on one GPU, and the end of a rank."""

from functools import partial
from pathlib import Path

import pytest
import torch

from aha.core.errors import ConfigError, RunStopped
from aha.dist.local_ranks import LOST_RANK, LocalRanks, check_ranks
from aha.dist.world import World

from ..dist import rank_work
from .rank_steps import take_steps
from .sharded_steps import FEW, take_both
from .test_ranks import compare
from .test_sharded_trainer import compare as compare_with_shards

ROOT = Path(__file__).resolve().parents[2]
CUDA = torch.device("cuda")
needs_two = pytest.mark.skipif(
    torch.cuda.device_count() < 2, reason="wanted two CUDA GPUs: NCCL takes one for each rank"
)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """A started process has this one's sys.path."""
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.mark.gpu
@needs_two
def test_two_ranks_take_the_steps_of_one():
    take = partial(take_steps, few=True, device=CUDA)
    alone = take(World())
    with LocalRanks(2, take) as world:
        compare(take(world), alone)
        assert world.device_group.size() == 2 and torch.cuda.current_device() == 0


@pytest.mark.gpu
@needs_two
def test_two_ranks_in_shards_take_the_steps_of_whole_ones():
    take = partial(take_both, names=FEW, device=CUDA)
    with LocalRanks(2, take) as world:
        compare_with_shards(take(world))


@pytest.mark.gpu
@needs_two
@pytest.mark.parametrize("work", [rank_work.disappear_on_gpu, rank_work.disappear_in_a_model])
def test_a_rank_that_is_killed_while_a_gpu_waits_for_it_is_named(work):
    with pytest.raises(RunStopped, match=r"rank 1 \(process \d+\) was ended by SIGKILL") as lost:
        with LocalRanks(2, work) as world:
            work(world)
    assert lost.value.check == LOST_RANK


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="wanted a CUDA GPU")
def test_two_ranks_on_one_gpu_are_refused_before_nccl_is_asked():
    more = torch.cuda.device_count() + 1
    with pytest.raises(ConfigError, match=f"--ranks {more}, and torch sees"):
        check_ranks(more, CUDA, "--model.device cpu")
