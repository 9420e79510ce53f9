"""The plan counts the rows that the trainer computes: both ask `Method`, and here both are held to
the same groups."""

from importlib.resources import files
from pathlib import Path
from random import Random

import pytest
import torch

from aha.algo.algorithms import method_of
from aha.algo.recipe import load_recipe
from aha.batching.batch import TrainingRow
from aha.core.config import RunConfig
from aha.core.records import Completion, Graded, Problem, Prompt
from aha.plan.shapes import shape_of
from aha.plan.speed import BETA, computed_share, mixed_share
from aha.rollout.native import NativeEngine
from aha.training.objective import Objective
from aha.training.parts import make_terms
from aha.training.rl import RLTrainer

from ..tiny import TOKENIZER, StartsWith, tiny_transformer
from ..workload import workload

RECIPES = Path(str(files("aha"))) / "recipes"
LAPTOP = [path.stem for path in sorted(RECIPES.glob("*.toml")) if "[model]" not in path.read_text()]
MIXED = (3, 5)  # of so many groups: the share that the plan assumes


class CountingObjective(Objective):
    """Counts the rows whose gradient is computed."""

    num_computed = 0

    def accumulate_gradient(self, rows: list[TrainingRow], *rest) -> torch.Tensor:
        self.num_computed += len(rows)
        return super().accumulate_gradient(rows, *rest)


def groups_of(cfg: RunConfig, num_mixed: int) -> list[list[Graded]]:
    """Five groups for each update: in the first `num_mixed` one completion is right, in the others
    none. The groups of an update are every `updates`-th."""
    groups = []
    for place in range(MIXED[1] * cfg.algo.updates):
        text = f"{place:03d}"
        prompt = Prompt(Problem(text, "made up", {}), text, tuple(TOKENIZER.encode(text)))
        mixed = place // cfg.algo.updates < num_mixed
        group = []
        for g in range(cfg.rollout.group_size):
            tokens = (*TOKENIZER.encode(f"{g}{place % 7}"), TOKENIZER.stop_ids[0])
            logprobs = tuple(-1.0 - 0.1 * g for _ in tokens)
            completion = Completion(prompt, tokens, logprobs, "", "stop", 0, (0.1,) * len(tokens))
            correct = mixed and g == place % cfg.rollout.group_size
            group.append(Graded(float(correct), correct, "", completion=completion))
        groups.append(group)
    return groups


def share_of_trainer(cfg: RunConfig) -> float:
    """Of the rows of one rollout, the share whose gradient the trainer computes."""
    policy, method = tiny_transformer(), method_of(cfg)
    engine = NativeEngine(policy, TOKENIZER, "float32", 8)
    trainer = RLTrainer(policy, TOKENIZER, StartsWith("0"), engine, cfg)
    terms = make_terms(cfg, trainer.reference)
    settings = (cfg.algo.aggregation, trainer.dtype, 1.0, trainer.objective.mismatch)
    trainer.objective = counting = CountingObjective(policy, terms, *settings)
    # With "resample" the rollout hands over mixed groups alone.
    groups = groups_of(cfg, MIXED[1] if method.resamples else MIXED[0])
    estimate = trainer.advantages.estimate(groups, trainer.rollout.scores(groups))
    trainer.objective.begin_step([graded for group in groups for graded in group])
    trainer.learn(estimate)
    return counting.num_computed / sum(map(len, groups))


def small(name: str, **changes) -> RunConfig:
    """The recipe with groups of at most 8."""
    path = RECIPES / f"{name}.toml"
    size = min(8, load_recipe(path).rollout.group_size)
    same = {"rollout.group_size": size, "critic.warmup": 0, "optim.dtype": "float32"}
    return load_recipe(path, same | changes)


def check(cfg: RunConfig) -> None:
    planned = computed_share(workload(cfg, shape_of("aha-tiny")), MIXED[0] / MIXED[1])
    assert share_of_trainer(cfg) == pytest.approx(planned)


def test_the_assumed_share_is_that_of_the_groups_here():
    assert mixed_share(16) == pytest.approx(MIXED[0] / MIXED[1], abs=0.002) and len(LAPTOP) >= 25


@pytest.mark.parametrize("size", [1, 2, 8])
def test_smaller_groups_are_flat_more_often(size):
    """By drawing solve rates and groups."""
    draw = Random(0)
    rates = [draw.betavariate(BETA, BETA) for _ in range(20_000)]
    right = [sum(draw.random() < rate for _ in range(size)) for rate in rates]
    drawn = sum(0 < count < size for count in right) / len(right)
    assert mixed_share(size) == pytest.approx(drawn, abs=0.01)
    assert mixed_share(size) < mixed_share(size + 1)


@pytest.mark.parametrize("name", LAPTOP)
def test_plan_and_trainer_agree(name):
    check(small(name))


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("demo", {"algo.entropy_coef": 0.01}),  # the bonus moves every row
        ("demo", {"algo.kl": "reward"}),  # the KL makes the rewards of a flat group differ
        ("demo", {"algo.zero_variance": "drop", "algo.kl": "loss"}),  # what left is not computed
        ("skywork", {"algo.entropy_coef": 0.01, "algo.zero_variance": "keep"}),
        ("kl_cov", {"algo.updates": 2}),
    ],
)
def test_plan_and_trainer_agree_on_what_recipes_change(name, changes):
    check(small(name, **changes))


def test_the_share_of_kl_cov_by_hand():
    """Eight updates: in the first .6 of the rows, in seven all of them, (.6 + 7) / 8 = .95."""
    load = workload(small("kl_cov"), shape_of("aha-tiny"))
    assert computed_share(load, 0.6) == pytest.approx(0.95)
