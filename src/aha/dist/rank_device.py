"""The device of each rank: on GPUs every rank has one of its own, which no other rank has.

Who has which GPU is decided here from numbers alone: what a launcher says of the ranks of a
machine, and how many GPUs torch sees in this process. NCCL, which adds up on GPUs, refuses two
ranks on one GPU only after it has waited for all of them, so it is refused here first.
"""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch

from aha.core.errors import ConfigError, shown
from aha.dist.rank_place import LocalPlace
from aha.machine.device import gpu_id, num_gpus

Maker = Literal["NVIDIA", "AMD", "Apple"]
# The back ends of a process group for tensors on a GPU. What is not on the GPU, such as the plan of
# a checkpoint, is exchanged by gloo.
GPU_BACKENDS = "cpu:gloo,cuda:nccl"
OWN_GPU = "a GPU for each rank: NCCL cannot share one"
VISIBLE = "CUDA_VISIBLE_DEVICES"


class RankDevice(NamedTuple):
    """Where a rank computes, and the back ends of the process group that adds up there."""

    device: torch.device
    backends: str


class HeldGpu(NamedTuple):
    """A GPU that a rank has taken: its own name in all the world, and its machine."""

    host: str
    name: str


@dataclass(frozen=True)
class SeenGpus:
    """The GPUs that torch sees in a process: their maker and number, whether torch has NCCL, and
    the list that limits them (`CUDA_VISIBLE_DEVICES`), None where there is none."""

    maker: Maker
    count: int
    nccl: bool = True
    listed: str | None = None

    @classmethod
    def here(cls, device: torch.device) -> "SeenGpus":
        """Those of this process, of the kind of `device`."""
        if device.type == "mps":
            return cls("Apple", 1, False)
        maker: Maker = "AMD" if torch.version.hip else "NVIDIA"
        nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
        return cls(maker, num_gpus(), nccl, os.environ.get(VISIBLE))

    def __str__(self) -> str:
        listed = "" if self.listed is None else f" ({VISIBLE}={shown(self.listed)})"
        return f"{self.count} GPU{'' if self.count == 1 else 's'}{listed}"


def check_meetable(gpus: SeenGpus, on_cpu: str) -> None:
    """Raise ConfigError where several ranks cannot meet on GPUs of this kind. `on_cpu`: the option
    that computes on the CPU."""
    one = f"--ranks 1, or {on_cpu}"
    if gpus.maker != "NVIDIA":
        got = f"several ranks on {gpus.maker} GPUs"
        raise ConfigError(got, "one; several meet on CPUs, and on NVIDIA GPUs", one)
    if not gpus.nccl:
        got = "several ranks on GPUs, and this torch has no NCCL"
        raise ConfigError(got, "one; or a torch with NCCL, as that of Linux with CUDA has", one)


def check_gpus(ranks: int, gpus: SeenGpus, on_cpu: str) -> None:
    """Raise ConfigError unless so many ranks that a command starts itself have a GPU each."""
    check_meetable(gpus, on_cpu)
    if ranks > gpus.count:
        fewer = f"--ranks {gpus.count}, or " if gpus.count else ""
        got = f"--ranks {ranks}, and torch sees {gpus}"
        raise ConfigError(got, OWN_GPU, f"{fewer}{on_cpu}")


def gpu_of(place: LocalPlace, gpus: SeenGpus, on_cpu: str) -> int:
    """The number of a rank's GPU, among those that its process sees.

    A launcher may show each process all GPUs of a machine (torchrun), or its own alone (a task of
    Slurm with `--gpus-per-task`), or have chosen one (Ray). Raises ConfigError where there is none
    for it. Two ranks that each see one GPU may see the same one: see `check_not_shared`.
    """
    check_meetable(gpus, on_cpu)
    if place.gpu is not None:
        if place.gpu >= gpus.count:
            got = f"GPU {place.gpu} from the launcher, and torch sees {gpus}"
            raise ConfigError(got, "one that torch sees", f"leave {VISIBLE} to the launcher")
        return place.gpu
    if place.size <= gpus.count:
        return place.rank
    if gpus.count == 1:
        return 0
    fewer = f"{gpus.count} processes a machine (torchrun --nproc-per-node {gpus.count}), or "
    raise ConfigError(
        f"{place.size} rank{'' if place.size == 1 else 's'} on a machine where torch sees {gpus}",
        OWN_GPU,
        f"{fewer if gpus.count else ''}{on_cpu}",
    )


def check_not_shared(held: Sequence[HeldGpu], on_cpu: str) -> None:
    """Raise ConfigError where two ranks have taken the same GPU; `held` is by rank."""
    for rank, gpu in enumerate(held):
        first = held.index(gpu)
        if first != rank:
            raise ConfigError(
                f"rank {first} and rank {rank} both have the GPU {gpu.name} of {gpu.host}",
                OWN_GPU,
                f"one process for each GPU of a machine (torchrun --nproc-per-node), or {on_cpu}",
            )


def take_gpu(place: LocalPlace, device: torch.device, rank: int, on_cpu: str) -> HeldGpu:
    """Make the GPU of this rank the one that `device` means in this process from now on.

    Raises ConfigError as `gpu_of` does; and in rank 0, which has opened its model before the ranks
    meet, where that GPU is another one than torch has begun with.
    """
    number = gpu_of(place, SeenGpus.here(device), on_cpu)
    if rank == 0 and torch.cuda.current_device() != number:
        raise ConfigError(
            f"rank 0 with the GPU {number} of its machine (LOCAL_RANK {place.rank})",
            "rank 0 with the first one",
            "a launcher that gives rank 0 LOCAL_RANK 0, as torchrun does",
        )
    torch.cuda.set_device(number)
    return HeldGpu(socket.gethostname(), gpu_id(number))
