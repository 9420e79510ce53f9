"""Who has which GPU: from what a launcher says and what torch sees, and each lack refused."""

from dataclasses import replace

import pytest
import torch

from aha.core.errors import ConfigError
from aha.dist.local_ranks import check_ranks
from aha.dist.rank_device import HeldGpu, SeenGpus, check_gpus, check_not_shared, gpu_of
from aha.dist.rank_place import LocalPlace, RankPlace, place_of

FOUR, ONE = SeenGpus("NVIDIA", 4), SeenGpus("NVIDIA", 1, listed="3")
CPU = "--model.device cpu"


def env(rank: int, size: int, local_rank: int, local_size: int) -> dict[str, str]:
    """What torchrun, Ray Train, and a task of Slurm that calls itself a rank have in common."""
    numbers = {"RANK": rank, "WORLD_SIZE": size}
    numbers |= {"LOCAL_RANK": local_rank, "LOCAL_WORLD_SIZE": local_size, "MASTER_PORT": 29500}
    return {"MASTER_ADDR": "node-0"} | {name: str(number) for name, number in numbers.items()}


# One machine, and the second of two.
@pytest.mark.parametrize("place", [env(3, 4, 3, 4), env(7, 8, 3, 4)])
def test_by_torchrun_a_rank_has_the_gpu_of_its_number(place):
    assert gpu_of(place_of(place).local, FOUR, CPU) == 3


def test_a_task_that_sees_its_own_gpu_alone_has_that():
    """As with `srun --gpus-per-task 1`: each process has a list of one."""
    assert [gpu_of(place_of(env(r, 4, r, 4)).local, ONE, CPU) for r in range(4)] == [0] * 4


def test_by_ray_a_rank_has_the_gpu_that_ray_has_given_it():
    """The other ranks of the machine may have any, in any order."""
    place = replace(place_of(env(1, 2, 1, 2)), gpu=2)
    assert gpu_of(place.local, FOUR, CPU) == 2
    with pytest.raises(ConfigError, match="GPU 2 from the launcher, and torch sees 2 GPUs"):
        gpu_of(place.local, replace(FOUR, count=2), CPU)


def test_a_command_that_starts_its_ranks_gives_each_its_own():
    check_gpus(4, FOUR, CPU)
    assert [gpu_of(LocalPlace(rank, 4), FOUR, CPU) for rank in range(4)] == [0, 1, 2, 3]
    # One machine with several GPUs of which it uses fewer, and one rank on each of two machines.
    assert gpu_of(LocalPlace(1, 2), FOUR, CPU) == 1 and gpu_of(LocalPlace(0, 1), ONE, CPU) == 0


@pytest.mark.parametrize(
    ("ranks", "gpus", "words", "fix"),
    [
        (5, FOUR, "--ranks 5, and torch sees 4 GPUs;", f"--ranks 4, or {CPU}"),
        (2, ONE, "torch sees 1 GPU (CUDA_VISIBLE_DEVICES='3');", f"--ranks 1, or {CPU}"),
        (2, SeenGpus("NVIDIA", 0, listed=""), "0 GPUs (CUDA_VISIBLE_DEVICES='')", CPU),
        (2, SeenGpus("AMD", 8), "several ranks on AMD GPUs", f"--ranks 1, or {CPU}"),
        (2, SeenGpus("Apple", 1, False), "several ranks on Apple GPUs", f"--ranks 1, or {CPU}"),
        (2, SeenGpus("NVIDIA", 2, False), "this torch has no NCCL", f"--ranks 1, or {CPU}"),
    ],
)
def test_ranks_of_a_command_without_a_gpu_each_are_refused(ranks, gpus, words, fix):
    with pytest.raises(ConfigError) as refused:
        check_gpus(ranks, gpus, CPU)
    assert words in str(refused.value) and refused.value.fix == fix


@pytest.mark.parametrize(
    ("place", "gpus", "words", "fix"),
    [
        (
            LocalPlace(2, 4),
            SeenGpus("NVIDIA", 2, listed="0,1"),
            "4 ranks on a machine where torch sees 2 GPUs (CUDA_VISIBLE_DEVICES='0,1')",
            "2 processes a machine (torchrun --nproc-per-node 2), or",
        ),
        (LocalPlace(0, 1), SeenGpus("NVIDIA", 0), "1 rank on a machine where torch sees 0", CPU),
        (LocalPlace(1, 2), SeenGpus("AMD", 2), "several ranks on AMD GPUs", "--ranks 1"),
    ],
)
def test_a_rank_of_a_launcher_without_a_gpu_is_refused(place, gpus, words, fix):
    with pytest.raises(ConfigError) as refused:
        gpu_of(place, gpus, CPU)
    assert words in str(refused.value) and refused.value.fix.startswith(fix)


def test_two_ranks_with_one_gpu_are_refused_by_their_numbers():
    here, there = HeldGpu("node-a", "7f"), HeldGpu("node-b", "1c")
    check_not_shared([here, there, HeldGpu("node-b", "7f")], CPU)
    with pytest.raises(ConfigError) as refused:
        check_not_shared([there, here, here], CPU)
    assert "rank 1 and rank 2 both have the GPU 7f of node-a" in str(refused.value)
    assert "--nproc-per-node" in refused.value.fix


def test_where_a_place_comes_from():
    assert RankPlace(5, 8, 1, 4, "node-0", 29500).local == LocalPlace(1, 4)


def test_apples_gpu_is_refused_by_name_on_any_machine():
    with pytest.raises(ConfigError, match="several ranks on Apple GPUs") as refused:
        check_ranks(2, torch.device("mps"), CPU)
    assert refused.value.fix == f"--ranks 1, or {CPU}"
    assert check_ranks(1, torch.device("mps"), CPU) == 1
