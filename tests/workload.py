"""A recipe with a model's shape, as the callers of the plan put them together."""

import json
from pathlib import Path

from aha.algo.algorithms import method_of
from aha.core.config import RunConfig
from aha.plan.shapes import Shape
from aha.plan.speed import Workload


def workload(cfg: RunConfig, shape: Shape) -> Workload:
    return Workload(cfg, method_of(cfg), shape)


def share_of_ranks() -> float:
    """Of the time of one process with threads, for which plans are made: what a step of the demo
    takes by a rank on each core, as it was measured (results/bench/ranks.jsonl)."""
    path = Path(__file__).parents[1] / "results" / "bench" / "ranks.jsonl"
    (row,) = [
        row
        for row in map(json.loads, path.read_text().splitlines())
        if row["settings"]["recipe"] == "demo" and not row["settings"]["shape"]
    ]
    share: float = row["ratios"]["ranks / threads"]["median"]
    return share
