"""The GPU beside the CPU of the same machine: the same losses, and which is quicker for what size.

In tiny mode the other device is the CPU again, with the engine's plain loop.
"""

import statistics
from itertools import pairwise
from pathlib import Path

from aha.core.config import RunConfig
from aha.core.records import Completion, Prompt, StepReport
from aha.machine.device import choose_device
from aha.machine.host import SMALL_MODEL
from aha.model.policy import Policy
from aha.model.weights import LoadedModel
from aha.plan.shapes import Shape, shape_of
from aha.plan.speed import PROMPT_TOKENS
from aha.rollout.engine import Sampling
from aha.training.builders import make_trainer, open_policy, task_of
from aha.training.rl import RLTrainer

from .._common import Digits
from .bench import Bench, Endless
from .rows import Check

RECIPE = "demo"  # aha-tiny's own
CPU = {"model.device": "cpu"}


def other_device(bench: Bench) -> dict:
    """The keys of the other device."""
    loop = "auto" if bench.on_gpu else "torch"
    return {"model.device": bench.device.type, "rollout.loop": loop}


# -- the same losses -----------------------------------------------------------------------------


class Replay:
    """An engine that hands out what another has written."""

    def __init__(self, rollouts: list[list[list[Completion]]]):
        self.rollouts = iter(rollouts)

    def load(self, policy: Policy, version: int) -> None:
        """Takes over nothing: what is handed out is written already."""

    def release(self) -> None:
        """Nothing is held."""

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[list[Completion]]:
        return next(self.rollouts)


def same_losses(bench: Bench) -> tuple[dict, list[Check]]:
    """Five steps of aha-tiny's recipe in float32. Each device writes its own completions; and once
    more trains on the CPU's, which tells a draw at an edge from an error of arithmetic."""
    case = bench.attempt(RECIPE, lambda: compare_losses(bench))
    what = "largest difference of losses, five steps in float32"
    return {"cases": [case]}, [
        Check(what, 1e-4, None, False, case.get("gap")),
        Check("the same on the CPU's completions", None, None, False, case.get("gap_replayed")),
    ]


def compare_losses(bench: Bench) -> dict:
    sizes = bench.pick((16, 16, 320), (16, 8, 160), (2, 8, 64))
    keys = ("rollout.prompts", "rollout.group_size", "rollout.max_new_tokens")
    changes = dict(zip(keys, sizes, strict=True)) | {"steps": 5}
    changes |= {"rollout.dtype": "float32", "optim.dtype": "float32"}
    tiny = {"task.verifier": "tinyzero"}  # it pays for a block of any content
    first, second = (
        bench.recipe(RECIPE, changes | side, tiny) for side in (CPU, other_device(bench))
    )
    on_cpu = steps_of(trainer_of(first))
    assert any(losses(on_cpu)), "nothing was rewarded, so there is no loss to compare"
    on_other = steps_of(trainer_of(second))
    again = trainer_of(second)
    again.rollout.engine = Replay([completions(report) for report in on_cpu])
    replayed = steps_of(again)
    written = [(completions(a), completions(b)) for a, b in zip(on_cpu, on_other, strict=True)]
    pairs = [
        (one.tokens, other.tokens)
        for cpu_groups, other_device_groups in written
        for group, other_group in zip(cpu_groups, other_device_groups, strict=True)
        for one, other in zip(group, other_group, strict=True)
    ]
    return {
        "gap": gap(on_cpu, on_other),
        "gap_replayed": gap(on_cpu, replayed),
        "equal_completions": sum(a == b for a, b in pairs) / len(pairs),
        "losses": losses(on_cpu),
        "losses_there": losses(on_other),
        "losses_replayed": losses(replayed),
        "there": other_device(bench),
    }


def trainer_of(cfg: RunConfig) -> RLTrainer:
    return make_trainer(cfg, open_policy(cfg), task_of(cfg))


def steps_of(trainer: RLTrainer) -> list[StepReport]:
    return [trainer.step(trainer.problems()) for _ in range(trainer.cfg.steps)]


def completions(report: StepReport) -> list[list[Completion]]:
    return [[one.completion for one in group] for group in report.groups]


def losses(reports: list[StepReport]) -> list[float]:
    return [report.numbers["loss"] for report in reports]


def gap(first: list[StepReport], second: list[StepReport]) -> float:
    return max(abs(a - b) for a, b in zip(losses(first), losses(second), strict=True))


# -- which is quicker ----------------------------------------------------------------------------

# aha-tiny's vocabulary; about 1, 5, 14 and 36 million parameters.
SIZES = {
    "aha-tiny": shape_of("aha-tiny"),
    "5 M": Shape(112, 256, 768, 6, 4, 2, 64, True, bias=True),
    "14 M": Shape(112, 384, 1152, 8, 6, 2, 64, True, bias=True),
    "36 M": Shape(112, 512, 1536, 12, 8, 2, 64, True, bias=True),
}


def small(bench: Bench) -> tuple[dict, list[Check]]:
    """Tokens/s of whole steps on both devices, and whether `model.device = "auto"` takes the
    quicker one for each size: `SMALL_MODEL` in aha.machine.host is where it changes."""
    cases = [bench.attempt("aha-tiny, its recipe", lambda: time_recipe(bench))]
    sizes = bench.pick(SIZES, SIZES, {"aha-tiny": SIZES["aha-tiny"]})
    for name, shape in sizes.items():
        cases.append(bench.attempt(f"{name}, random", lambda s=shape: time_random_model(bench, s)))
    measured = [case for case in cases[1:] if "error" not in case]
    right = [case["auto_is_quicker"] for case in measured]
    share = sum(right) / len(right) if right else None
    numbers = {"cases": cases, "small_parameters": SMALL_MODEL, "quicker_from": crossing(measured)}
    return numbers, [Check("sizes for which device 'auto' is the quicker", None, None, True, share)]


def crossing(cases: list[dict]) -> list[int] | None:
    """Between which two numbers of parameters the GPU becomes the quicker one."""
    for before, after in pairwise(cases):
        if before["times_the_cpu"] < 1 <= after["times_the_cpu"]:
            return [before["parameters"], after["parameters"]]
    return None


def time_recipe(bench: Bench) -> dict:
    steps = bench.pick(4, 3, 2)
    tiny = {"rollout.prompts": 2, "rollout.group_size": 4, "rollout.max_new_tokens": 16}
    trainers = {}
    for name, side in (("cpu", CPU), ("there", other_device(bench))):
        trainers[name] = trainer_of(bench.recipe(RECIPE, {"steps": steps} | side, tiny))
    return rates(bench, trainers)


def time_random_model(bench: Bench, shape: Shape) -> dict:
    changes = {"steps": bench.pick(4, 3, 2), "algo.advantage": "reinforce"}
    changes |= {"rollout.max_new_tokens": bench.pick(64, 32, 8)}
    # A baseline without groups has none to drop.
    changes |= {"algo.zero_variance": "keep", "algo.kl": "none", "algo.kl_coef": 0.001}
    trainers = {}
    for name, side in (("cpu", CPU), ("there", other_device(bench))):
        tiny = {"rollout.prompts": 2, "rollout.group_size": 4}
        cfg = bench.recipe(RECIPE, changes | side, tiny)
        model = LoadedModel(bench.policy(cfg, shape), Endless(shape.V), Path("random"))
        trainers[name] = make_trainer(cfg, model, Digits(PROMPT_TOKENS[cfg.task.template]))
    return {"parameters": shape.parameters} | rates(bench, trainers)


def rates(bench: Bench, trainers: dict[str, RLTrainer]) -> dict:
    """Completion tokens/s of whole steps in turns, the first round left out."""
    rates_by_name: dict[str, list[float]] = {name: [] for name in trainers}
    for _ in range(trainers["cpu"].cfg.steps):
        for name, trainer in trainers.items():
            elapsed, report = bench.timed(lambda t=trainer: t.step(t.problems()))
            tokens = sum(len(one.tokens) for group in completions(report) for one in group)
            rates_by_name[name].append(tokens / elapsed)
    rate = {name: statistics.median(values[1:]) for name, values in rates_by_name.items()}
    parameters = trainers["cpu"].policy.num_parameters()
    auto = "there" if choose_device("auto", parameters).type == "cuda" else "cpu"
    return {
        "cpu_tokens_per_second": rate["cpu"],
        "there_tokens_per_second": rate["there"],
        "times_the_cpu": rate["there"] / rate["cpu"],
        "auto": auto,
        "auto_is_quicker": rate[auto] == max(rate.values()),
        "tokens_per_second": rates_by_name,
    }
