"""What the ranks of the tests of this room do: functions that a started process can import."""

import os
import signal
import time
from typing import Any

import torch

from aha.core.errors import ConfigError, RunStopped
from aha.dist.rank_device import RankDevice
from aha.dist.world import World


def exchange(world: World) -> dict[str, Any]:
    """Every call of a world once, on values that differ from rank to rank."""
    weights = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(4))]
    for place, weight in enumerate(weights):
        weight.grad = torch.full_like(weight, 10.0 ** (world.rank + place))
    world.requests = {"stop": lambda: world.rank == world.size - 1, "save": lambda: False}
    loss = world.sum_gradients(weights, torch.tensor(world.rank + 0.5), "update 1")
    # One that the last rank alone has a gradient for, and one that no rank has one for.
    rare, idle = (torch.nn.Parameter(torch.zeros(3)) for _ in range(2))
    if world.rank == world.size - 1:
        rare.grad = torch.full((3,), 2.0)
    sums = world.sum_gradients([rare, idle], torch.tensor([1.0, world.rank]), "update 2")
    values = torch.tensor([1.0, world.rank], dtype=torch.float64)
    world.add_up(values, "values")
    world.check_equal([weight.grad for weight in weights], "the gradients")
    world.barrier("a barrier")
    return {
        "grads": [weight.grad for weight in weights],
        "loss": loss.item(),
        "rare": rare.grad.tolist(),
        "idle": idle.grad,
        "sums": sums.tolist(),
        "values": values.tolist(),
        "requests": (world.should("stop"), world.should("save")),
        "gathered": world.gather({"rank": world.rank}, "names"),
        "broadcast": world.broadcast(b"r" * (world.rank + 1), world.size - 1, "a value"),
        "rows": world.gather(world.share(torch.arange(5)).tolist(), "rows"),
        "threads": world.gather(torch.get_num_threads(), "threads"),
    }


def refuse(world: World) -> None:
    """Rank 1 has an error for the user."""
    if world.rank == 1:
        raise ConfigError("a fork", "a spoon", "look in the drawer")
    world.barrier("the table")


def stumble(world: World) -> None:
    """Rank 1 has a fault of the program, the others miss it."""
    if world.rank == 1:
        raise ZeroDivisionError("a half of nothing")
    world.barrier("the table")


def disappear(world: World) -> None:
    """Rank 1 is killed, as by a system without memory."""
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    world.barrier("the table")


def fall_asleep(world: World) -> None:
    """Rank 1 stops for good."""
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    world.barrier("the table")


def wait(world: World) -> None:
    """Come once, and then wait for rank 0 for ever."""
    world.barrier("the beginning")
    world.barrier("what never comes")


def differ(world: World) -> None:
    """Rank 1 has one weight that the others do not have."""
    weights = torch.zeros(1_000)
    weights[500] = 1e-30 * (world.rank == 1)
    world.check_equal([torch.ones(3), weights], "the start")


def fail_after_rank_0(world: World) -> None:
    """Rank 1 has an error when rank 0 has no more calls."""
    world.barrier("the last")
    if world.rank == 1:
        raise ConfigError("crumbs", "a clean table", "wipe it")


# -- with a device group ---------------------------------------------------------------------------


def open_second_group(world: World) -> None:
    """As GPUs have it, with a second group of gloo in the place of NCCL's, on the CPU."""
    world.open_device_group(RankDevice(torch.device("cpu"), "gloo"))


def exchange_on_device(world: World) -> dict[str, Any]:
    """Every call once, where gradients are added up in the group of the device."""
    open_second_group(world)
    came = exchange(world)
    turned = torch.nn.Parameter(torch.zeros(3, 4).t())
    half = torch.nn.Parameter(torch.zeros(5, dtype=torch.bfloat16))
    double = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
    if world.rank:  # elsewhere zeros stand in, which lie as the weight does
        turned.grad = torch.arange(12.0).view(4, 3)
    half.grad = torch.full((5,), 1.0 + world.rank, dtype=torch.bfloat16)
    double.grad = torch.full((2,), 0.5, dtype=torch.float64)
    world.sum_gradients([turned, half, double], torch.zeros(()), "update 3")
    world.check_equal([turned.grad, half.grad, double.grad], "the gradients")
    kinds = [(p.grad.dtype, p.grad.tolist()) for p in (turned, half, double)]
    return came | {"kinds": kinds, "group": world.device_group.size()}


def disappear_on_device(world: World) -> None:
    """Rank 1 is killed when the others wait for it in the group of the device alone."""
    open_second_group(world)
    world.barrier("the table")
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    world.add_up_on_device(torch.ones(3), "the gradients")


def wait_for_a_gpu(world: World) -> None:
    """The same where nobody who waits is told, as on a GPU: the loss of a rank is noticed by the
    launcher's thread alone. What then comes out of the work is nothing to stop a run for."""
    open_second_group(world)
    world.in_shards = True
    world.barrier("the table")
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with world.joint("the updates of step 1"):
        while not world.aborted:
            time.sleep(0.01)
        raise RunStopped("a loss that is nan", "a number", check="loss")


def stumble_on_device(world: World) -> None:
    """Rank 1 has a fault where the others wait in the group of the device."""
    open_second_group(world)
    world.barrier("the table")
    if world.rank == 1:
        raise ZeroDivisionError("a half of nothing")
    world.add_up_on_device(torch.ones(3), "the gradients")


def sleep_on_device(world: World) -> None:
    """Rank 1 stops for good where the others wait in the group of the device."""
    open_second_group(world)
    world.barrier("the table")
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    world.add_up_on_device(torch.ones(3), "the gradients")


# -- on GPUs ---------------------------------------------------------------------------------------


def disappear_on_gpu(world: World) -> None:
    """Rank 1 is killed when the others wait for it in NCCL alone."""
    world.take_device(torch.device("cuda"))
    world.barrier("the table")
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    world.add_up_on_device(torch.ones(3, device="cuda"), "the gradients")


def disappear_in_a_model(world: World) -> None:
    """The same where rank 0 waits for its GPU, and the GPU for rank 1."""
    world.take_device(torch.device("cuda"))
    world.in_shards = True
    world.barrier("the table")
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with world.joint("the updates of step 1"):
        numbers = torch.ones(3, device="cuda")
        world.device_group.allreduce([numbers]).wait()
        numbers.sum().item()
