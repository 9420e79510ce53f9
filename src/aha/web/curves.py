"""Metrics and behaviours of a run by step, as columns with few enough points for a plot.

`Curves` reads metrics.jsonl and thins it: the lowest and the highest value of every stretch stay,
so that no spike is lost. `BehaviorCurves` counts behaviours in the files of completions.
"""

import threading
import time
from collections.abc import Iterable
from itertools import chain
from typing import Any, TypeVar

from aha.web.event_spans import Row, mean_behaviours
from aha.web.file_reader import JsonLines, all_rows, number
from aha.web.runs import RunFolder

MAX_POINTS = 600  # of one curve
AXES = ("step", "total_tokens", "elapsed_s")
OVERVIEW_COLUMNS = (
    *("solve_rate", "reward", "groups_none_solved", "groups_all_solved", "mean_tokens"),
    *("truncated", "entropy", "grad_norm", "tokens_per_s", "elapsed_s"),
)

Column = list[float | None]


# -- metrics --------------------------------------------------------------------------------------


class Curves:
    """All rows of one run's metrics.jsonl, column by column."""

    def __init__(self, run: RunFolder):
        self.run = run
        self.lines = JsonLines(run.metrics)
        self.columns: dict[str, Column] = {}
        self.rows = 0
        self.lock = threading.Lock()

    def refresh(self) -> None:
        """Add the rows that were written since the last call."""
        with self.lock:
            while True:
                rows, rewritten = self.lines.read_new()
                if rewritten:
                    self.columns, self.rows = {}, 0
                if not rows:
                    return
                self._add(rows)

    def _add(self, rows: list[dict[str, Any]]) -> None:
        """Column by column, which is faster: the first request reads up to ten thousand rows."""
        total = (self.columns.get("total_tokens") or [0.0])[-1] or 0.0
        for row in rows:
            total = row["total_tokens"] = total + (number(row.get("tokens")) or 0.0)
        for name in dict.fromkeys(chain.from_iterable(rows)):
            self.columns.setdefault(name, [None] * self.rows)
        for name, column in self.columns.items():
            values = [row.get(name) for row in rows]
            # For a finite float v - v is 0, for NaN and infinity it is not. Nearly all values are
            # finite floats, and this test is much quicker than `number`.
            column += [v if type(v) is float and v - v == 0.0 else number(v) for v in values]
        self.rows += len(rows)

    def names(self) -> list[str]:
        """The columns that have a number in some row."""
        return [name for name, column in self.columns.items() if any(v is not None for v in column)]

    def thinned(
        self, names: Iterable[str], points: int = MAX_POINTS
    ) -> dict[str, dict[str, Column]]:
        """{name: {step, total_tokens, elapsed_s, value}} with at most `points` values each.

        Names without a column are left out.
        """
        with self.lock:
            axes = [self.columns.get(axis, []) for axis in AXES]
            curves = {}
            for name in names:
                column = self.columns.get(name)
                if column is None:
                    continue
                kept = thin(column, points)
                curve = {
                    axis: [values[i] for i in kept]
                    for axis, values in zip(AXES, axes, strict=True)
                    if values
                }
                curves[name] = curve | {"value": [column[i] for i in kept]}
            return curves

    def last(self) -> dict[str, float | None]:
        """The last row."""
        with self.lock:
            return {name: column[-1] for name, column in self.columns.items() if column}


def thin(column: Column, points: int) -> list[int]:
    """The rows to keep of a column: all that have a value, or the lowest and highest of each
    stretch."""
    if len(column) <= points:
        return [row for row, value in enumerate(column) if value is not None]
    stretches = max(1, points // 2)
    kept: list[int] = []
    for part in range(stretches):
        begin, end = (len(column) * (part + more) // stretches for more in (0, 1))
        values = {row: v for row in range(begin, end) if (v := column[row]) is not None}
        if values:
            kept += sorted(
                {min(values, key=values.__getitem__), max(values, key=values.__getitem__)}
            )
    return kept


# -- behaviours -----------------------------------------------------------------------------------

PER_STEP = 48  # completions, evenly spaced over a step's file
BEHAVIOURS = (
    *("attempts", "checks", "backtracks", "backtracks_root", "backtracks_intermediate"),
    *("subgoals", "backward_chains", "line_accuracy", "verdict_truth", "repeats"),
)
Item = TypeVar("Item")


class BehaviorCurves:
    """The mean behaviours of a run's steps, counted a few steps at a time."""

    def __init__(self, run: RunFolder):
        self.run = run
        self.means: dict[int, dict[str, float]] = {}  # by step
        self._sizes: dict[int, int] = {}

    def count(self, points: int, seconds: float) -> Row:
        """Count for at most `seconds`, in at most `points` steps.

        {"step": [...], one list for each of BEHAVIOURS, "waiting": steps that are still to be
        counted, "per_step": completions of a step that were counted}.
        """
        steps = evenly_spaced(self.steps(), points)
        deadline, waiting = time.monotonic() + seconds, 0
        for step in steps:
            if time.monotonic() < deadline:
                self._count_step(step)
            else:
                waiting += step not in self.means
        counted = [step for step in steps if self.means.get(step)]
        columns = {name: [self.means[step].get(name) for step in counted] for name in BEHAVIOURS}
        return {"step": counted, **columns, "waiting": waiting, "per_step": PER_STEP}

    def steps(self) -> list[int]:
        """The steps that have a file of completions, in order."""
        names = self.run.completion_files()
        return sorted(int(name[5:]) for name in names if name.startswith("step_"))

    def _count_step(self, step: int) -> None:
        path = self.run.completion_file(f"step_{step:06d}")
        try:
            size = path.stat().st_size if path else 0
        except OSError:
            return
        if path and self._sizes.get(step) != size:
            self._sizes[step] = size
            self.means[step] = mean_behaviours(evenly_spaced(all_rows(path), PER_STEP))


def evenly_spaced(items: list[Item], count: int) -> list[Item]:
    """At most `count` items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return items
    return [items[place * (len(items) - 1) // (count - 1)] for place in range(count)]
