"""What a new run needs before its folder is made: its model, its price, its fingerprints, its plan.

Writes nothing. What a run refuses, it refuses here or when its trainer is built.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aha.algo.recipe import check_recipe
from aha.core.config import RunConfig
from aha.core.findings import Finding
from aha.machine.device import choose_device
from aha.machine.host import process_bytes
from aha.model.folders import PlannedModel, resolve_model
from aha.model.weights import LoadedModel, tokenizer_of
from aha.plan.calibration import Calibration
from aha.plan.machines import budget_seconds
from aha.plan.prediction import lines_before
from aha.plan.shapes import shape_of
from aha.plan.speed import TaskSizes
from aha.store.run_folder import check_new
from aha.tasks.protocol import Task
from aha.training.builders import (
    device_of,
    open_policy,
    prediction_of,
    price_of_run,
    task_of,
)
from aha.training.fingerprints import NAME as FINGERPRINTS
from aha.training.fingerprints import Fingerprints, fingerprints_of
from aha.training.joint_work import check_setting
from aha.training.preflight import (
    check_memory,
    cluster_of,
    predict_run,
    readable_task,
    refuse_weights,
    shape_in_folder,
    with_machine_price,
)
from aha.training.recipe_fit import misfits
from aha.training.task_sizes import prompt_tokens_of, sizes_before


@dataclass(frozen=True)
class PreparedRun:
    """`cfg` has the machine's price; `records` are the JSON files of the new folder by name."""

    cfg: RunConfig
    model: LoadedModel
    fingerprints: Fingerprints
    base: Path
    budget_s: float
    records: dict[str, Mapping[str, Any]]
    misfits: list[Finding]  # of recipe and model


def seconds_of_budget(budget: str | None, cfg: RunConfig) -> float:
    """Seconds that a budget buys on this machine; infinite without one."""
    return math.inf if budget is None else budget_seconds(budget, price_of_run(cfg)[0])


def predicted_lines(cfg: RunConfig, budget: str | None, ranks: int = 1) -> list[str]:
    """Lines of text: time, cost and memory of the run on this machine by so many ranks, and how far
    a budget goes. The model may be on the hub, and is not fetched.

    Raises ModelError where the model has no shape that is known here.
    """
    planned = PlannedModel.named(cfg.model.path)
    shape = shape_of(planned.shaped)
    device = choose_device(cfg.model.device, shape.parameters)
    cfg = with_machine_price(cfg, device, ranks)
    shared = (cfg, shape, device, None, process_bytes())
    prediction = predict_run(*shared, sizes_before(cfg, planned.tokenizer), cluster_of(ranks))
    return lines_before(prediction, seconds_of_budget(budget, cfg))


def check_base(
    cfg: RunConfig,
    base: Path,
    task: Task,
    say: Callable[[str], None],
    ranks: int = 1,
    shard: str = "off",
) -> bool:
    """Refuse too little memory before the weights of `base` are read. Returns and says what
    `check_memory` does."""
    shape = shape_in_folder(base)
    if shape is None:
        refuse_weights(cfg, base)
        return ranks > 1 and shard == "on"
    device = choose_device(cfg.model.device, shape.parameters)
    sizes = TaskSizes(prompt_tokens_of(cfg, task, tokenizer_of(base)))
    return check_memory(cfg, shape, device, say, ranks, shard, sizes)


def prepare_run(
    cfg: RunConfig,
    path: Path,
    say: Callable[[str], None],
    calibration: Calibration | None,
    budget: str | None,
    ranks: int,
    shard: str = "auto",
) -> PreparedRun:
    """Everything of a new run in `path` that can be known before it is there; arguments as those of
    `Experiment.start`."""
    check_new(path)
    check_recipe(cfg)
    check_setting(ranks, cfg, shard)
    cfg = cfg.model_copy(update={"task": cfg.task.anywhere()})
    resident = process_bytes()
    base = resolve_model(cfg.model.path)
    if shape := shape_in_folder(base):  # a GPU without a price is an error now, not in a minute
        cfg = with_machine_price(cfg, choose_device(cfg.model.device, shape.parameters), ranks)
    task = task_of(cfg)
    in_shards = check_base(cfg, base, task, say, ranks, shard)
    model = open_policy(cfg, for_shards=in_shards)
    cfg = with_machine_price(cfg, device_of(cfg, model), ranks)
    budget_s = seconds_of_budget(budget, cfg)
    readable, _ = readable_task(cfg, task, model)
    fingerprints = fingerprints_of(cfg, base, task, ranks=ranks, shard=shard)
    records: dict[str, Mapping[str, Any]] = {FINGERPRINTS: fingerprints}
    if prediction := prediction_of(cfg, model, calibration, resident, ranks, readable):
        records["prediction.json"] = prediction
    if calibration:
        records["calibration.json"] = asdict(calibration)
    unsuited = misfits(cfg, model, task)
    return PreparedRun(cfg, model, fingerprints, base, budget_s, records, unsuited)
