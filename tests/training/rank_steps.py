"""Steps that several ranks take together, and what a test compares of them.

A started process imports this: `LocalRanks(2, take_steps)`.
"""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any
from zlib import crc32

import torch

from aha.algo.recipe import load_recipe
from aha.core.config import RunConfig
from aha.core.recipe_layers import set_dotted
from aha.core.records import Graded, Problem
from aha.dist.rank_device import RankDevice
from aha.dist.world import World
from aha.model.lora import add_lora
from aha.rollout.native import NativeEngine
from aha.training.rl import RLTrainer

from ..tiny import TOKENIZER, StartsWith, tiny_transformer

STEPS = 3
CPU = torch.device("cpu")
RECIPES = sorted((Path(str(files("aha"))) / "recipes").glob("*.toml"))
# What no packaged recipe has, or not together.
OTHERS: dict[str, dict[str, Any]] = {
    "lora": {"model.lora_rank": 2},
    "lora-critic": {"model.lora_rank": 2, "algo.advantage": "gae", "algo.kl": "reward"},
    "kl-in-reward": {"algo.kl": "reward", "algo.kl_coef": 0.1},
    "kl-by-token": {"algo.advantage": "reinforce_pp", "algo.kl": "reward", "algo.kl_coef": 0.1},
    "correction": {"algo.correction": "token_tis"},
    "host-optimiser": {"optim.state": "cpu"},
    "single-completions": {"algo.advantage": "reinforce", "rollout.group_size": 1},
    "pool": {"algo.curriculum": "pools", "algo.pool": 9},
    "twice": {"task.name": "twice"},
    "nothing-counts": {"algo.zero_variance": "drop", "task.name": "flat"},
}


def configs() -> Iterator[tuple[str, RunConfig]]:
    """All recipes, small, with a number of groups that no two or four ranks share evenly."""
    for path in RECIPES:
        raw = load_recipe(path).model_dump()
        raw["algo"] |= {"pool": 32} | ({"pass_k": 2} if raw["algo"]["pass_k"] else {})
        raw["critic"]["warmup"] = min(1, raw["critic"]["warmup"])
        group_size = min(4, raw["rollout"]["group_size"])
        yield path.stem, small(raw, group_size)
    for name, changes in OTHERS.items():
        raw = RunConfig().model_dump()
        for key, value in changes.items():
            set_dotted(raw, key, value)
        yield name, small(raw, min(4, changes.get("rollout.group_size", 4)))


def small(raw: dict[str, Any], group_size: int) -> RunConfig:
    prompts = 5 if group_size > 1 else 13
    raw["rollout"] |= {"prompts": prompts, "group_size": group_size, "max_new_tokens": 6}
    raw["rollout"] |= {"dtype": "float32", "expected_tokens": 0.0}
    raw["optim"] |= {"dtype": "float32", "micro_batch_tokens": 100, "lr": 1e-4, "warmup": 0}
    raw["algo"]["overlong_buffer"] = min(2, raw["algo"]["overlong_buffer"])  # of six tokens
    return RunConfig.model_validate(raw)


class Coin(StartsWith):
    """Right or wrong by a hash of the text, so that every step has something to learn, for ever.

    Where all rewards are equal, what is left of a KL in the reward is rounding, and whitening makes
    it large: there the order of sums decides.
    """

    def grade(self, problem: Problem, text: str) -> Graded:
        correct = bool(crc32(f"{problem.id} {text}".encode()) % 2)
        return Graded(float(correct), correct, "by chance")


class Twice(Coin):
    """Every problem comes twice: its second group has other completions than its first."""

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        for problem in super().problems(split, seed):
            yield from (problem, problem)


def trainer_of(cfg: RunConfig, world: World, device: torch.device = CPU) -> RLTrainer:
    policy = tiny_transformer().to(device)
    if cfg.model.lora_rank:
        add_lora(policy, cfg.model.lora_rank, 4.0, 0)
    engine = NativeEngine(policy, TOKENIZER, "float32", cfg.rollout.max_rows)
    tasks = {"twice": Twice(""), "flat": StartsWith("")}
    task = tasks.get(cfg.task.name, Coin(""))
    return RLTrainer(policy, TOKENIZER, task, engine, cfg, world)


Steps = list[tuple[dict[str, float], list[tuple[int, ...]], tuple[Any, ...]]]


def take_steps(world: World, few: bool = False, device: torch.device = CPU) -> dict[str, Steps]:
    """By recipe, for each step: its numbers, its completions' tokens, its advantages. `few`: none
    of the packaged recipes but ppo."""
    world.take_device(device)
    taken = {}
    for name, cfg in configs():
        if few and name not in (*OTHERS, "ppo"):
            continue
        trainer = trainer_of(cfg, world, device)
        steps: Steps = []
        for _ in range(STEPS):
            report = trainer.step(trainer.problems())
            tokens = [graded.completion.tokens for group in report.groups for graded in group]
            steps.append((dict(report.numbers), tokens, report.advantages))
        world.check_equal(trainer.policy.parameters(), name)
        taken[name] = steps
    return taken


def take_steps_on_device(world: World) -> dict[str, Steps]:
    """The same, where gradients are added up in a group of the device: of gloo, in the place of
    NCCL's."""
    world.open_device_group(RankDevice(CPU, "gloo"))
    return take_steps(world, few=True)
