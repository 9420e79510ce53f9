"""The models that a model descends from, and what all of them have cost.

A base made here has its card (`pretraining.json`), a run of training its records. Of any other
model nothing is known but its name: its cost is None, never 0.
"""

import json
from pathlib import Path
from typing import Any, TypedDict

from aha.store.guarded_files import number
from aha.store.run_folder import Run, read_rows

CARD = "pretraining.json"
CHECKPOINTS = "checkpoints"


def name_of(folder: Path) -> str:
    """The hub's name of a folder in its cache; of any other folder the absolute path."""
    for parent in folder.resolve().parents:
        if parent.name.startswith("models--"):
            return parent.name.removeprefix("models--").replace("--", "/")
    return str(folder.resolve())


class Parent(TypedDict):
    """One model of the chain. `kind` is how it was made: pretrain, sft, prefer, rl, or model where
    that is not known; data stands for examples that cost something, such as a teacher's. The cost
    is its own, without that of its parents."""

    name: str
    kind: str
    cost_usd: float | None
    kwh: float | None


def chain_of(model: Path) -> list[Parent]:
    """The model in this folder, last, after those that it descends from, the oldest first."""
    card = model / CARD
    if card.is_file():
        return chain_of_base(model, json.loads(card.read_text(encoding="utf-8")))
    run = run_of(model)
    if run is None:
        return [Parent(name=name_of(model), kind="model", cost_usd=None, kwh=None)]
    config, fingerprints = (run.read_or_none(name) or {} for name in RECORDS)
    kind = str(config.get("kind", "rl"))
    usd, kwh = cost_of_run(run, config, model)
    before = fingerprints.get("parents")
    if not isinstance(before, list):
        before = older_run_parents(config, fingerprints)
    return [*before, Parent(name=run.name, kind=kind, cost_usd=usd, kwh=kwh)]


RECORDS = ("config.json", "fingerprints.json")


def chain_of_base(model: Path, facts: dict[str, Any]) -> list[Parent]:
    """A base made here, with the one that it started from."""
    start, before = facts.get("start"), facts.get("start_cost") or {}
    chain = [parent(str(start), "pretrain", before)] if start or before else []
    return [*chain, parent(model.name, "pretrain", facts)]


def older_run_parents(config: dict[str, Any], fingerprints: dict[str, Any]) -> list[Parent]:
    """The base of a run whose version kept no chain."""
    section = config.get("model")
    path = section.get("path") if isinstance(section, dict) else None
    return [parent(str(path or "?"), "model", fingerprints.get("base_cost") or {})]


def parent(name: str, kind: str, cost: dict[str, Any]) -> Parent:
    usd, kwh = number(cost.get("cost_usd")), number(cost.get("kwh"))
    return Parent(name=name, kind=kind, cost_usd=usd, kwh=kwh)


def run_of(model: Path) -> Run | None:
    """The run of training whose model, or whose checkpoint, is in this folder."""
    folder = model.absolute()
    folder = folder.parent if folder.name == "model" else folder.parent.parent
    is_own = model.name == "model" or model.absolute().parent.name == CHECKPOINTS
    is_run = (folder / "config.json").is_file() and (folder / "metrics.jsonl").is_file()
    return Run(folder) if is_own and is_run else None


def cost_of_run(run: Run, config: dict[str, Any], model: Path) -> tuple[float | None, float | None]:
    """(USD, kWh) of a run up to this model: of a finished one all of it, else of its training."""
    summary = run.read_or_none("summary.json") if model.name == "model" else None
    if summary:
        return number(summary.get("cost_usd")), number(summary.get("kwh"))
    last = model.name.removeprefix("step_")
    steps = int(last) if last.isdecimal() else None
    rows = [row for row in read_rows(run.metrics) if steps is None or row.get("step") == steps]
    seconds = number(rows[-1].get("elapsed_s")) if rows else None
    price, watts = number(config.get("usd_per_hour")), number(config.get("watts"))
    hours = None if seconds is None else seconds / 3600
    usd = None if hours is None or price is None else hours * price
    return usd, None if hours is None or watts is None else hours * watts / 1000


def cost_of_chain(chain: list[Parent]) -> dict[str, float]:
    """cost_usd and kwh of all models of a chain together, as far as they are known; without a key
    of which nothing is known."""
    total: dict[str, float] = {}
    for one in chain:
        for key, value in (("cost_usd", one["cost_usd"]), ("kwh", one["kwh"])):
            if value is not None:
                total[key] = total.get(key, 0.0) + value
    return total
