"""Steps of trainers in shards, and what a test compares of them with whole ones.

A started process imports this: `LocalRanks(2, take_both)`.
"""

from collections.abc import Collection
from functools import partial
from typing import Any

import torch

from aha.core.config import RunConfig
from aha.core.records import StepReport
from aha.dist.rank_device import RankDevice
from aha.dist.sharded_tensors import in_shards
from aha.dist.world import World
from aha.rollout.generation_copy import GenerationCopy
from aha.rollout.native import NativeEngine
from aha.training.rl import RLTrainer
from aha.training.sharded_trainer import enter_shards

from ..tiny import TOKENIZER
from .rank_steps import CPU, configs, trainer_of

# A critic beside a reference, adapters with both, an update without a row: the others are slow.
FEW = ("ppo", "lora-critic", "nothing-counts")
LONG = "grpo"  # takes 20 steps

# (numbers of the report, completions' tokens) of a step
Step = tuple[dict[str, float], list[tuple[int, ...]]]


def sharded_trainer(cfg: RunConfig, world: World, device: torch.device = CPU) -> RLTrainer:
    trainer = trainer_of(cfg, world)
    trainer.device = trainer.micro_batch.device = device  # where the shards go
    open_with = partial(
        NativeEngine, tokenizer=TOKENIZER, dtype="float32", max_rows=cfg.rollout.max_rows
    )
    trainer.rollout.engine = GenerationCopy(open_with)
    enter_shards(trainer, None)
    return trainer


def in_short(report: StepReport) -> Step:
    tokens = [graded.completion.tokens for group in report.groups for graded in group]
    return dict(report.numbers), tokens


def take_both(
    world: World, names: Collection[str] = (*FEW, LONG), device: torch.device = CPU
) -> dict[str, Any]:
    """By recipe, the steps of a whole trainer and of one in shards (the same world, so the same
    order of sums but within a gradient), and how many numbers each of them holds in this rank; not
    where adapters are whole. `names`: which recipes; none: all."""
    world.take_device(device)
    taken: dict[str, Any] = {}
    for name, cfg in configs():
        if names and name not in names:
            continue
        if cfg.optim.state != "device":  # refused by name
            continue
        number = 20 if name == LONG else 3
        if name == LONG:
            raw = cfg.model_dump()
            raw["rollout"]["max_new_tokens"] = 12
            cfg = RunConfig.model_validate(raw)
        world.in_shards = False
        both: list[list[Step]] = []
        own: list[float] = []
        for make in (trainer_of, sharded_trainer):
            trainer = make(cfg, world, device)
            both.append([in_short(trainer.step(trainer.problems())) for _ in range(number)])
            own.append(held(trainer))
        taken[name] = (*both, [] if cfg.model.lora_rank else own)
    world.in_shards = False
    return taken


def held(trainer: RLTrainer) -> float:
    """The numbers that this rank has of the models and of the optimisers' state."""
    models = [trainer.policy, *(getattr(trainer.advantages, "model", None) or [],)]
    tensors = [weight for model in models if model for weight in model.parameters()]
    for optimizer in trainer.optimizers:
        tensors += [t for state in optimizer.adam.state.values() for t in state.values()]
    return float(sum((t.to_local() if in_shards(t) else t).numel() for t in tensors if t.dim()))


def take_both_on_device(world: World) -> dict[str, Any]:
    """A few of them, where the shards meet in the group of the device: of gloo, in the place of
    NCCL's."""
    world.open_device_group(RankDevice(CPU, "gloo"))
    return take_both(world, names=FEW)
