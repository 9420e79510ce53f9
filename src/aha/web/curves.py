"""Metrics and behaviours of a run by step, as columns with few enough points for a plot.

`Curves` reads metrics.jsonl and thins it: the lowest and the highest value of every stretch stay,
so that no spike is lost. `BehaviorCurves` counts behaviours in the files of completions.
"""

import math
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, TypeVar

from aha.behaviors.way_shares import COLUMNS
from aha.core.control_characters import visible
from aha.store.guarded_files import MAX_NUMBER, JsonLines, number, read_all_rows
from aha.web.event_spans import Row, mean_behaviours
from aha.web.runs import RunFolder

MAX_POINTS = 600  # of one curve
MAX_ROWS, MAX_COLUMNS, MAX_REASONS = 1_000_000, 200, 20
AXES = ("step", "total_tokens", "elapsed_s")
Column = list[float | None]


# -- metrics --------------------------------------------------------------------------------------


class Curves:
    """All rows of one run's metrics.jsonl, column by column; None where a row has no number."""

    def __init__(self, run: RunFolder):
        self.run = run
        self.lines = JsonLines(run.metrics)
        self.columns: dict[str, Column] = {}
        self.rows = 0
        self.damage: Counter[str] = Counter()
        self.lock = threading.Lock()

    def refresh(self) -> None:
        """Add the rows that were written since the last call."""
        with self.lock:
            while self.rows < MAX_ROWS:
                before = self.lines.offset
                rows, rewritten = self.lines.read_new()
                if rewritten:
                    self.columns, self.rows = {}, 0
                    self.damage.clear()
                self._add(rows)
                if self.lines.offset == before:
                    return
            self.lines.refused = f"metrics.jsonl: only the first {self.rows} rows are shown"

    def _add(self, rows: list[Row]) -> None:
        """Column by column, which is faster: the first request reads up to ten thousand rows."""
        total = (self.columns.get("total_tokens") or [0.0])[-1] or 0.0
        kept = [row for row in rows if number(row.get("step")) is not None]
        self._count("rows without a step", len(rows) - len(kept))
        for row in kept:
            total = row["total_tokens"] = total + (number(row.get("tokens")) or 0.0)
            add_derived(row)
        shapes = dict.fromkeys(map(tuple, kept))  # in a run's own file nearly always one
        for name in dict.fromkeys(chain.from_iterable(shapes)):
            if name in self.columns or len(self.columns) < MAX_COLUMNS:
                self.columns.setdefault(name, [None] * self.rows)
            else:
                self._count(f"columns beyond the first {MAX_COLUMNS}", 1)
        turned: dict[str, Sequence[Any]] = {}
        if len(shapes) == 1:
            turned = dict(zip(*shapes, zip(*map(dict.values, kept), strict=True), strict=True))
        for name, column in self.columns.items():
            values = turned.get(name) or [row.get(name) for row in kept]
            column += values if are_finite_floats(values) else self._numbers(name, values)
        self.rows += len(kept)

    def _numbers(self, name: str, values: Sequence[Any]) -> Column:
        """A column's new values, None for those that are no number; these are counted."""
        numbers = [
            v if type(v) is float and -MAX_NUMBER < v < MAX_NUMBER else number(v) for v in values
        ]
        gaps = numbers.count(None) - values.count(None)
        self._count(f"values of {name[:40]} that are no finite number", gaps)
        return numbers

    def _count(self, reason: str, count: int) -> None:
        if count and (reason in self.damage or len(self.damage) < MAX_REASONS):
            self.damage[reason] += count

    def faults(self) -> list[str]:
        """What could not be read or is no number, as sentences."""
        with self.lock:
            odd = [f"metrics.jsonl: {n} {visible(reason)}" for reason, n in self.damage.items()]
            return [*self.lines.faults, *odd]

    def grading_note(self) -> str:
        """How many completions of the run could not be graded; empty where all were."""
        with self.lock:
            failed = sum(value or 0.0 for value in self.columns.get("grade_errors", []))
            shares = [v for v in self.columns.get("grade_error_share", []) if v is not None]
        if failed <= 0:
            return ""
        of_all = f" ({sum(shares) / len(shares):.1%} of all)" if shares else ""
        return (
            f"the task's grader failed on {failed:.10g} completions{of_all}; "
            "their reward of 0 says nothing about the model"
        )

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
                column = self.columns.get(name, [])
                if all(value is None for value in column):
                    continue
                kept = thin(column, points)
                curve = {
                    axis: [values[i] for i in kept]
                    for axis, values in zip(AXES, axes, strict=True)
                    if values
                }
                curves[name] = curve | {"value": [column[i] for i in kept]}
            return curves

    def thinned_together(
        self, names: Iterable[str], points: int = MAX_POINTS
    ) -> dict[str, dict[str, Column]]:
        """As `thinned`, with the same rows of all columns, so that they can be added up; those of
        the lowest and the highest sum stay."""
        columns = self.columns_of((*AXES, *names))
        axes = {axis: column for axis in AXES if (column := columns.pop(axis, None))}
        if not columns:
            return {}
        rows = zip(*columns.values(), strict=True)
        known = [[value for value in row if value is not None] for row in rows]
        kept = thin([sum(values) if values else None for values in known], points)
        return {
            name: {
                key: [values[i] for i in kept] for key, values in (axes | {"value": column}).items()
            }
            for name, column in columns.items()
        }

    def columns_of(self, names: Iterable[str]) -> dict[str, Column]:
        """Copies of the whole columns of these names that have a number in some row."""
        with self.lock:
            there = {name: self.columns[name] for name in names if name in self.columns}
            return {k: list(c) for k, c in there.items() if any(v is not None for v in c)}

    def axes_at(self, steps: list[int]) -> dict[str, Column]:
        """Tokens and seconds of training at each of the steps; None where the step has no row."""
        with self.lock:
            rows = {step: row for row, step in enumerate(self.columns.get("step", []))}
            return {
                axis: [column[rows[step]] if step in rows and column else None for step in steps]
                for axis in ("total_tokens", "elapsed_s")
                for column in [self.columns.get(axis, [])]
            }

    def rows_of(self, names: Iterable[str]) -> list[Row]:
        """The rows again, with the columns of these names that there are."""
        with self.lock:
            columns = {name: self.columns[name] for name in names if name in self.columns}
            rows = zip(*columns.values(), strict=True)
            return [dict(zip(columns, row, strict=True)) for row in rows]

    def last(self) -> dict[str, float | None]:
        """The last row."""
        with self.lock:
            return {name: column[-1] for name, column in self.columns.items() if column}


def are_finite_floats(values: Sequence[Any]) -> bool:
    """Whether all values are floats that `number` returns as they are, which this finds sooner."""
    # The root of the sum of squares is no number where one value is none, and bounds them all.
    return set(map(type, values)) == {float} and math.hypot(*values) <= MAX_NUMBER


def thin(column: Column, points: int) -> list[int]:
    """The rows to keep of a column: all, or the lowest and highest of each stretch.

    After the first value, a row without one stays as a gap in the curve; of several in a row, one.
    """
    if len(column) <= points:
        return [
            row
            for row, value in enumerate(column)
            if value is not None or (row and column[row - 1] is not None)
        ]
    stretches = max(1, points // 2)
    kept: list[int] = []
    for part in range(stretches):
        begin, end = (len(column) * (part + more) // stretches for more in (0, 1))
        values = column[begin:end]
        known = [value for value in values if value is not None]
        if known:
            kept += sorted({begin + values.index(one) for one in (min(known), max(known))})
        elif kept and column[kept[-1]] is not None:
            kept.append(begin)
    return kept


def add_derived(row: Row) -> None:
    """Add what follows from other numbers of a row of metrics, in place.

    `grade_error_share`: of the completions, those that could not be graded.
    """
    failed = number(row.get("grade_errors"))
    if failed is None:
        return
    tokens, mean = number(row.get("tokens")), number(row.get("mean_tokens"))
    if tokens and mean:
        row["grade_error_share"] = min(1.0, failed * mean / tokens)


# -- behaviours -----------------------------------------------------------------------------------

PER_STEP = 48  # completions, evenly spaced over a step's file
BEHAVIOURS = (
    *("attempts", "checks", "backtracks", "backtracks_root", "backtracks_intermediate"),
    *("subgoals", "backward_chains", "line_accuracy", "verdict_truth", "repeats"),
    *COLUMNS,
)
Item = TypeVar("Item")


class BehaviorCurves:
    """The mean behaviours of a run's steps, counted a few steps at a time."""

    def __init__(self, run: RunFolder):
        self.run = run
        self.means: dict[int, dict[str, float]] = {}  # by step
        self.damaged: dict[int, list[str]] = {}  # by step, what could not be read
        self._sizes: dict[int, int] = {}

    def count(self, points: int, seconds: float) -> Row:
        """Count for at most `seconds`, in at most `points` steps; first in steps far apart.

        {"step": [...], one list for each of BEHAVIOURS, "waiting": steps that are still to be
        counted, "per_step": completions of a step that were counted, "damaged": steps whose file
        could not be read whole}.
        """
        steps = evenly_spaced(self.steps(), points)
        deadline, waiting = time.monotonic() + seconds, 0
        # One that waits is counted always: on a busy machine the time may be over at once.
        order = spread_first(steps)
        first = next((step for step in order if step not in self.means), None)
        for step in order:
            if step == first or time.monotonic() < deadline:
                self._count_step(step)
            else:
                waiting += step not in self.means
        counted = [step for step in steps if self.means.get(step)]
        columns = {name: [self.means[step].get(name) for step in counted] for name in BEHAVIOURS}
        damaged = sum(bool(self.damaged.get(step)) for step in steps)
        more = {"waiting": waiting, "per_step": PER_STEP, "damaged": damaged}
        return {"step": counted, **columns, **more}

    def steps(self) -> list[int]:
        """The steps that have a file of completions, in order."""
        names = self.run.completion_files()
        return sorted(int(name[5:]) for name in names if name.startswith("step_"))

    def _count_step(self, step: int) -> None:
        file = self.run.completion_file(f"step_{step:06d}")
        status = file.stat() if file else None
        if file and status and self._sizes.get(step) != status.st_size:
            self._sizes[step] = status.st_size
            rows, self.damaged[step] = read_all_rows(file)
            self.means[step] = mean_behaviours(evenly_spaced(rows, PER_STEP))


def spread_first(steps: list[int]) -> list[int]:
    """The steps in an order whose every beginning is spread over them: the last and the first, then
    those between, each time in half as wide gaps."""
    gaps = [1 << power for power in reversed(range(len(steps).bit_length()))]
    return list(dict.fromkeys([*steps[-1:], *(step for gap in gaps for step in steps[::gap])]))


def evenly_spaced(items: list[Item], count: int) -> list[Item]:
    """At most `count` items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return items
    return [items[place * (len(items) - 1) // (count - 1)] for place in range(count)]
