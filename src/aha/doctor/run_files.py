"""The records of a run, read from its folder. No torch, no model.

config.json, metrics.jsonl, evals.jsonl, before.json, after.json, and the bytes of the weights.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from aha.core.errors import RunError
from aha.doctor.weight_change import compare_weight_files, weight_files
from aha.store.jsonl import read_rows
from aha.store.run_folder import Run

FEW = 5  # steps: the start of a run; a run of fewer than twice as many is too short to judge


@dataclass(frozen=True)
class RunRecords:
    """The records of a run. `metrics` and `evals` are rows in the order of the steps."""

    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    evals: list[dict[str, Any]]
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None
    finished: bool = False
    changed_share: float | None = None  # of the weights, those that differ from the base model's
    distance: float | None = None  # norm of their difference against the norm of the base's weights

    @classmethod
    def read(cls, path: Path) -> "RunRecords":
        """The records in a run folder. Raises RunError where there is no run."""
        run = Run.open(path)
        if not run.metrics.exists() and not run.completions.is_dir():
            raise RunError(f"{path} is no run", "a folder with metrics.jsonl", "see `ls runs`")
        config = run.read("config.json")
        if not isinstance(config, dict):
            raise RunError(f"{path / 'config.json'} holds no object", "a run's settings")
        metrics, evals = (
            [row for row in read_rows(file) if isinstance(row, dict)]
            for file in (run.metrics, path / "evals.jsonl")
        )
        before, after = (
            run.read(f"{name}.json") if (path / f"{name}.json").exists() else None
            for name in ("before", "after")
        )
        share, distance = compare_weight_files(weight_files(path, config)) or (None, None)
        return cls(
            config,
            metrics,
            evals,
            before,
            after,
            finished=(path / "summary.json").exists(),
            changed_share=share,
            distance=distance,
        )

    def setting(self, section: str, key: str, default: Any) -> Any:
        """A setting of the run's config; the default where the config does not have it."""
        return self.config.get(section, {}).get(key, default)

    def column(self, key: str) -> list[float]:
        """A column of the metrics; rows without a number there are left out."""
        return [row[key] for row in self.metrics if isinstance(row.get(key), int | float)]

    def start(self, key: str) -> float:
        """Mean of a column over the first few steps; NaN without any."""
        return mean(self.column(key)[:FEW])

    def end(self, key: str) -> float:
        """Mean of a column over the last quarter of the steps, at least over a few; NaN without."""
        column = self.column(key)
        return mean(column[-max(FEW, len(column) // 4) :])

    @cached_property
    def evaluations(self) -> list[dict[str, Any]]:
        """All held-out evaluations: the test before, those of the training, the test after."""
        return [report for report in (self.before, *self.evals, self.after) if report]

    def first_and_last(self, key: str) -> tuple[float, float] | None:
        """A behaviour in the first and in the last evaluation; None where only one has it."""
        values = [e["behaviors"][key] for e in self.evaluations if key in e.get("behaviors", {})]
        return (values[0], values[-1]) if len(values) > 1 else None

    @property
    def solve_rates(self) -> tuple[float, float]:
        """The solve rate at the start and at the end: of the two tests, else of the training."""
        if self.before and self.after:
            return self.before["solve_rate"], self.after["solve_rate"]
        return self.start("solve_rate"), self.end("solve_rate")


def mean(values: list[float]) -> float:
    """The arithmetic mean; NaN for no values."""
    return sum(values) / len(values) if values else math.nan


def median(values: list[float]) -> float:
    """The middle one of at least one value, the upper one of two."""
    return sorted(values)[len(values) // 2]
