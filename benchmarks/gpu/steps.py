"""Whole steps at full length: memory, time, and how both compare with the plan.

The steps are those of a run (`make_trainer`, `RLTrainer.step`), on random weights and completions
that all reach the limit: the most that a recipe can ask for. Fewer prompts than the recipe's, as
memory depends on the rows side by side alone; the plan is asked about the same number. Rewards are
a hash of the text and the advantage is the reward, so that every row is trained, which the plan
then counts on as well.
"""

import statistics
from pathlib import Path

import torch

from aha.algo.algorithms import method_of
from aha.core.config import RunConfig
from aha.core.sizes import GB
from aha.machine.device import PeakMemory, device_memory
from aha.machine.host import process_bytes, status_bytes
from aha.measure.probe import probe
from aha.model.weights import LoadedModel
from aha.plan.calibration import Calibration
from aha.plan.estimate import estimate
from aha.plan.prediction import compare, predict
from aha.plan.shapes import Shape
from aha.plan.speed import PROMPT_TOKENS, Workload
from aha.training.builders import make_trainer

from .._common import Digits
from .bench import Bench, Endless, extreme
from .rows import Check

EVERY_ROW = {"algo.advantage": "reinforce"}  # a row's credit is its own: none is left out
SMALL = {"rollout.max_new_tokens": 32, "rollout.group_size": 2, "rollout.max_rows": 4}
SMALL |= {"optim.micro_batch_tokens": 512}


# -- too much for a card? ------------------------------------------------------------------------


def memory_8gb(bench: Bench) -> tuple[dict, list[Check]]:
    """1.5B with adapters."""
    numbers, case = run_within(bench, "laptop-8gb", 8.0, bench.pick(4, 2, 2))
    return numbers, [
        Check("peak of tensors, GB", 8.0, 6.0, False, case.get("allocated_gb")),
        Check("ran in an allocator of 8 GB (1: yes)", 1.0, None, True, case.get("within")),
    ]


def memory_24gb(bench: Bench) -> tuple[dict, list[Check]]:
    """3B, all weights."""
    numbers, case = run_within(bench, "one-gpu-24gb", 24.0, bench.pick(1, 1, 2))
    return numbers, [
        Check("peak of tensors, GB", 24.0, None, False, case.get("allocated_gb")),
        Check("ran in an allocator of 24 GB (1: yes)", 1.0, None, True, case.get("within")),
        Check("peak of the process on the host, GB", None, None, False, case.get("host_gb")),
    ]


def run_within(bench: Bench, recipe: str, size: float, batches: int) -> tuple[dict, dict]:
    """A recipe within that many GB; without the limit where that does not do, to see what it
    takes. `batches`: how often the rows side by side are filled."""

    def work() -> dict:
        cfg = full_length(bench, recipe, batches)
        shape = bench.shape(cfg.model.path)
        try:
            result = run_steps(bench, cfg, shape, size) | {"within": 1.0}
        except Exception as error:
            if not bench.on_gpu:
                raise
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
        else:
            return result | compare_with_plan(bench, cfg, shape, result)
        bench.forget()
        result = run_steps(bench, cfg, shape, None) | {"within": 0.0, "limited": reason}
        return result | compare_with_plan(bench, cfg, shape, result)

    case = bench.attempt(recipe, work)
    return {"cases": [case], "limit_gb": size}, case


def full_length(bench: Bench, recipe: str, batches: int) -> RunConfig:
    """The recipe with so many prompts that its rows side by side are filled `batches` times."""
    cfg = bench.recipe(recipe, EVERY_ROW, SMALL)
    rollout = cfg.rollout
    rows = min(rollout.max_rows, rollout.prompts * rollout.group_size)
    prompts = batches * max(1, rows // rollout.group_size)
    return bench.recipe(recipe, EVERY_ROW | {"rollout.prompts": prompts, "steps": 2}, SMALL)


def run_steps(bench: Bench, cfg: RunConfig, shape: Shape, limit: float | None) -> dict:
    """Two steps of a recipe, the first of them to warm up; memory counts both."""
    held_before = process_bytes()
    policy, tokenizer = bench.policy(cfg, shape), Endless(shape.V)
    task = Digits(PROMPT_TOKENS[cfg.task.template])
    model = LoadedModel(policy, tokenizer, Path("random"))
    with bench.at_most(limit):
        memory, seconds = PeakMemory(bench.device), []
        trainer = make_trainer(cfg, model, task)
        for _ in range(cfg.steps):
            elapsed, report = bench.timed(lambda: trainer.step(trainer.problems()))
            seconds.append(elapsed)
        peak = memory.bytes()
    result = {
        "allocated_gb": peak / GB,
        "host_gb": status_bytes("VmHWM") / GB,
        "step_s": statistics.median(seconds[1:]),
        "first_step_s": seconds[0],
        "phases_s": dict(report.seconds),
        "tokens_of_a_step": sum(len(one.completion.tokens) for g in report.groups for one in g),
        "micro_batch_tokens": trainer.micro_batch.tokens,
        "recipe_micro_batch_tokens": cfg.optim.micro_batch_tokens,
        "held_before_gb": held_before / GB,
        "config": cfg.model_dump(mode="json", include={"model", "rollout", "optim", "algo"}),
    }
    if bench.on_gpu:
        free, whole = device_memory(bench.device)
        result["reserved_gb"] = torch.cuda.max_memory_reserved(bench.device) / GB
        result["card_in_use_gb"] = (whole - free) / GB  # context and other processes as well
    return result


def compare_with_plan(
    bench: Bench,
    cfg: RunConfig,
    shape: Shape,
    result: dict,
    calibration: Calibration | None = None,
) -> dict:
    """What was measured over what the plan says, with the table's card or one that a probe has
    calibrated. A card that the table lacks has no time."""
    name, card = bench.card
    if calibration:
        card = calibration.card(cfg.usd_per_hour, cfg.watts)
        name = calibration.machine
    load = Workload(cfg, method_of(cfg), shape)
    prediction = predict(
        load,
        card,
        name or "not in the table",
        bool(calibration),
        result["held_before_gb"] * GB,
    )
    outcome = {"peak_bytes": result["allocated_gb"] * GB, "seconds": cfg.steps * result["step_s"]}
    figures = compare(prediction, load, float(cfg.rollout.max_new_tokens), outcome)["figures"]
    key = "probe" if calibration else "table"
    ratios = {"planned_gb": prediction["peak_bytes"] / GB, "planned_parts": prediction["memory"]}
    if card:
        ratios["planned_host_gb"] = estimate(load, card).host / GB
    ratios["memory_over_plan"] = figures["peak_bytes"]["ratio"]
    if "seconds" in figures:
        ratios[f"time_over_plan_{key}"] = figures["seconds"]["ratio_at_length"]
    return ratios


# -- the plan ------------------------------------------------------------------------------------

PLANNED = {
    # Adapters, layers computed again; and all weights with AdamW in float32.
    "laptop-8gb": {"rollout.max_new_tokens": 512},
    "tinyzero-1.5b-grpo": {"rollout.max_new_tokens": 512, "rollout.max_rows": 64},
}


def plan(bench: Bench) -> tuple[dict, list[Check]]:
    """Both plans of each recipe against two steps of it, and what the probe measured."""
    cases = []
    for recipe, changes in PLANNED.items():

        def work(recipe: str = recipe, changes: dict = changes) -> dict:
            more = {"rollout.prompts": 8, "steps": 2}
            cfg = bench.recipe(recipe, EVERY_ROW | changes | more, SMALL)
            shape = bench.shape(cfg.model.path)
            calibration = probe(cfg, shape, cfg.model.path)
            bench.forget()
            result = run_steps(bench, cfg, shape, None)
            result |= compare_with_plan(bench, cfg, shape, result)
            result |= compare_with_plan(bench, cfg, shape, result, calibration)
            return result | {"probe": calibration.lines(), "probe_s": calibration.seconds}

        cases.append(bench.attempt(recipe, work))
    checks = [
        Check(f"{what} off by, {how}", must, aim, False, furthest(cases, key))
        for what, how, key, must, aim in (
            ("memory", "from shapes", "memory_over_plan", 0.15, 0.05),
            ("time", "from the table", "time_over_plan_table", 0.3, 0.15),
            ("time", "after a probe", "time_over_plan_probe", 0.3, 0.15),
        )
    ]
    return {"cases": cases}, checks


def furthest(cases: list[dict], key: str) -> float | None:
    """How far from 1 the worst of these ratios is."""
    ends = [extreme(pick, cases, key) for pick in (min, max)]
    return None if None in ends else max(abs(end - 1) for end in ends)
