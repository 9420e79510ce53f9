"""What a run left behind, read from its folder. No torch, no model.

config.json, metrics.jsonl, evals.jsonl, before.json, after.json, and the bytes of the weights.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from aha.core.errors import RunError
from aha.doctor.weight_change import changes, weight_files
from aha.store.jsonl import read_rows
from aha.store.run_folder import Run

FEW = 5  # steps: the start of a run, and what is too short to judge
TESTS = ("before", "after")


@dataclass(frozen=True)
class RunRecords:
    """What a run left behind. `metrics` and `evals` are rows in the order of the steps."""

    config: dict
    metrics: list[dict]
    evals: list[dict]
    before: dict | None = None
    after: dict | None = None
    finished: bool = False
    restless: float | None = None  # share of the weights that differ from the base's ...
    distance: float | None = None  # ... and how far they went, against the base's norm

    @classmethod
    def read(cls, path: Path) -> "RunRecords":
        """Raises RunError where there is no run."""
        run = Run.open(path)
        if not run.metrics.exists() and not run.completions.is_dir():
            raise RunError(f"{path} is no run", "a folder with metrics.jsonl", "see `ls runs`")
        config = run.read("config.json")
        if not isinstance(config, dict):
            raise RunError(f"{path / 'config.json'} holds no object", "a run's settings")
        rows = [
            [row for row in read_rows(file) if isinstance(row, dict)]
            for file in (run.metrics, path / "evals.jsonl")
        ]
        share, distance = changes(weight_files(path, config)) or (None, None)
        return cls(
            config,
            *rows,
            *(run.read(f"{n}.json") if (path / f"{n}.json").exists() else None for n in TESTS),
            finished=(path / "summary.json").exists(),
            restless=share,
            distance=distance,
        )

    def setting(self, section: str, key: str, default):
        return self.config.get(section, {}).get(key, default)

    def of(self, key: str) -> list[float]:
        """A column of the metrics, rows without it left out."""
        return [row[key] for row in self.metrics if isinstance(row.get(key), int | float)]

    def start(self, key: str) -> float:
        """Mean over the first few steps; NaN without any."""
        return mean(self.of(key)[:FEW])

    def end(self, key: str) -> float:
        """Mean over the last quarter, of a few steps at least."""
        column = self.of(key)
        return mean(column[-max(FEW, len(column) // 4) :])

    @cached_property
    def tests(self) -> list[dict]:
        """Every look at held-out problems, the tests before and after around the others."""
        return [test for test in (self.before, *self.evals, self.after) if test]

    def habit(self, key: str) -> tuple[float, float] | None:
        """A ratio of the completions' lines at the first and the last look; None without both."""
        found = [t["behaviors"][key] for t in self.tests if key in t.get("behaviors", {})]
        return (found[0], found[-1]) if len(found) > 1 else None

    @property
    def solved(self) -> tuple[float, float]:
        """The solve rate at the start and at the end, held out where that was looked at."""
        if self.before and self.after:
            return self.before["solve_rate"], self.after["solve_rate"]
        return self.start("solve_rate"), self.end("solve_rate")


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]
