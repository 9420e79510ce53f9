"""Two ranks on two GPUs beside one: the same losses, gradients a second, and the end of a rank.

A machine with one GPU leaves a row without a figure. In tiny mode the ranks compute on the CPU, and
a group of gloo adds up what NCCL would.
"""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch

from aha.core.config import RunConfig
from aha.core.errors import RunStopped
from aha.core.records import Completion, Prompt
from aha.dist.local_ranks import LOST_RANK, LocalRanks
from aha.dist.rank_device import RankDevice
from aha.dist.world import World
from aha.machine.device import num_gpus, peak_bytes, synchronize
from aha.model.policy import Policy
from aha.rollout.engine import Sampling
from aha.training.builders import make_trainer, open_policy, task_of
from aha.training.rl import RLTrainer
from aha.training.sharded_trainer import enter_shards

from .bench import Bench
from .devices import RECIPE, completions, losses, steps_of
from .rows import Check

RANKS = 2
Written = list[dict[str, list[Completion]]]  # by step and problem


def ranks(bench: Bench) -> tuple[dict, list[Check]]:
    """Everything of two ranks that takes two GPUs."""
    cases: dict[str, dict] = {}
    if bench.on_gpu and num_gpus() < RANKS:
        print(f"  not measured: {num_gpus()} GPU, wanted {RANKS}", flush=True)
    else:
        work = {
            "steps": lambda: compare_steps(bench),
            "sums": lambda: time_sums(bench),
            "a killed rank": lambda: time_ends(bench),
        }
        cases = {name: bench.attempt(name, do) for name, do in work.items()}
    steps, sums, ends = (cases.get(name, {}) for name in ("steps", "sums", "a killed rank"))
    return {"gpus": num_gpus(), "cases": list(cases.values())}, [
        Check("losses of 2 ranks less those of 1", 1e-5, None, False, steps.get("gap")),
        Check("the same in shards", 1e-5, None, False, steps.get("gap_in_shards")),
        Check("a step of 2 ranks over one of 1", None, None, False, steps.get("time_over_one")),
        Check("gradients added up, GB/s", None, None, True, sums.get("gigabytes_per_second")),
        Check("seconds to the end after a kill, sums", 30.0, 5.0, False, ends.get("sums_s")),
        Check("seconds to the end after a kill, model", 30.0, 5.0, False, ends.get("model_s")),
    ]


def take_device(world: World, device: torch.device) -> None:
    """The GPU of a rank; on a CPU a group of gloo in the place of NCCL's."""
    if device.type == "cpu":
        world.open_device_group(RankDevice(device, "gloo"))
    else:
        world.take_device(device)


# -- the same steps --------------------------------------------------------------------------------


class WrittenBefore:
    """An engine that hands out what one rank has written: what differs then is the training."""

    def __init__(self, written: Written):
        self.steps = iter(written)

    def load(self, policy: Policy, version: int) -> None:
        """Takes over nothing: what is handed out is written already."""

    def release(self) -> None:
        """Nothing is held."""

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[list[Completion]]:
        step = next(self.steps)
        return [step[prompt.problem.id] for prompt in prompts]


class Taken(NamedTuple):
    losses: list[float]
    seconds: list[float]


def compare_steps(bench: Bench) -> dict:
    sizes = bench.pick((16, 16, 320), (16, 8, 160), (4, 8, 64))
    keys = ("rollout.prompts", "rollout.group_size", "rollout.max_new_tokens")
    changes = dict(zip(keys, sizes, strict=True)) | {"steps": bench.pick(5, 5, 3)}
    changes |= {"rollout.dtype": "float32", "optim.dtype": "float32"}
    cfg = bench.recipe(RECIPE, changes, {"task.verifier": "tinyzero"})
    reports = steps_of(make_trainer(cfg, open_policy(cfg), task_of(cfg)))
    assert any(losses(reports)), "nothing was rewarded, so there is no loss to compare"
    written = [
        {group[0].prompt.problem.id: group for group in completions(report)} for report in reports
    ]
    alone = take_steps(cfg, bench.device, written, False, World())
    found: dict[str, object] = {"losses": alone.losses, "seconds": alone.seconds}
    for name, in_shards in (("", False), ("_in_shards", True)):
        work = partial(take_steps, cfg, bench.device, written, in_shards)
        with LocalRanks(RANKS, work) as world:
            taken = work(world)
        pairs = zip(taken.losses, alone.losses, strict=True)
        found |= {f"gap{name}": max(abs(a - b) for a, b in pairs)}
        found |= {f"losses{name or '_of_ranks'}": taken.losses}
        found |= {f"time_over_one{name}": taken.seconds[-1] / alone.seconds[-1]}
    return found


def take_steps(
    cfg: RunConfig, device: torch.device, written: Written, in_shards: bool, world: World
) -> Taken:
    """The training of steps whose completions are written, as one rank does it."""
    if world.size > 1:
        take_device(world, device)
    model = open_policy(cfg, for_shards=in_shards)
    trainer: RLTrainer = make_trainer(cfg, model, task_of(cfg), world)
    trainer.rollout.engine = WrittenBefore(written)
    if in_shards:
        enter_shards(trainer, None)
    taken = Taken([], [])
    for _ in range(cfg.steps):
        synchronize(device)
        start = time.perf_counter()
        report = trainer.step(trainer.problems())
        synchronize(device)
        taken.seconds.append(time.perf_counter() - start)
        taken.losses.append(report.numbers["loss"])
    return taken


# -- sums ------------------------------------------------------------------------------------------


def time_sums(bench: Bench) -> dict:
    """Float32 gradients of a model of half a billion parameters, in tensors of its sizes."""
    count = bench.pick(494_000_000, 100_000_000, 50_000)
    work = partial(add_up_often, bench.device, count, bench.pick(10, 5, 2))
    with LocalRanks(RANKS, work) as world:
        seconds, extra = work(world)
    return {"gigabytes_per_second": 4e-9 * count / seconds, "extra_gigabytes": extra / 1e9}


def add_up_often(device: torch.device, count: int, times: int, world: World) -> tuple[float, int]:
    """(the least seconds of one sum, bytes that it needs besides the gradients)."""
    take_device(world, device)
    sizes = [count // 2, *[count // 20] * 10]
    weights = [torch.nn.Parameter(torch.zeros(size, device=device)) for size in sizes]
    seconds = []
    for turn in range(times + 1):
        for weight in weights:
            weight.grad = torch.ones_like(weight)
        held = torch.cuda.memory_allocated() if device.type == "cuda" else 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        synchronize(device)
        start = time.perf_counter()
        world.sum_gradients(weights, torch.zeros(1), f"sum {turn}")
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    assert all(float(weight.grad.min()) == world.size for weight in weights)
    extra = peak_bytes(device) - held if device.type == "cuda" else 0
    return min(seconds[1:]), extra


# -- the end of a rank -----------------------------------------------------------------------------


def time_ends(bench: Bench) -> dict:
    """Seconds from the kill of a rank to the error of the command, in the two places in which a GPU
    may wait for it."""
    return {
        "sums_s": seconds_to_the_end(bench.device, wait_in_sums),
        "model_s": seconds_to_the_end(bench.device, wait_in_model),
    }


def seconds_to_the_end(
    device: torch.device, wait: Callable[[torch.device, World], object]
) -> float:
    begun: list[float] = []
    try:
        with LocalRanks(RANKS, partial(vanish, device, wait)) as world:
            vanish(device, wait, world, lambda: begun.append(time.perf_counter()))
    except RunStopped as error:
        assert error.check == LOST_RANK, error
        assert begun, "the ranks have not met"
        return time.perf_counter() - begun[0]
    raise AssertionError("nobody has noticed that a rank was killed")


def vanish(
    device: torch.device,
    wait: Callable[[torch.device, World], object],
    world: World,
    begin: Callable[[], object] = bool,
) -> None:
    """Rank 1 is killed where rank 0 waits for it. `begin` is called then: NCCL has taken its
    seconds to start before."""
    take_device(world, device)
    world.in_shards = wait is wait_in_model
    world.barrier("the beginning")
    begin()
    if world.rank:
        os.kill(os.getpid(), signal.SIGKILL)
    wait(device, world)


def wait_in_sums(device: torch.device, world: World) -> None:
    """After the meeting on the CPU, in the sum on the GPUs."""
    world.add_up_on_device(torch.ones(1_000, device=device), "the gradients")


def wait_in_model(device: torch.device, world: World) -> None:
    """Where rank 0 waits for its own GPU, as in a model in shards."""
    with world.joint("a model in shards"):
        numbers = torch.ones(1_000, device=device)
        world.device_group.allreduce([numbers]).wait()
        numbers.sum().item()
