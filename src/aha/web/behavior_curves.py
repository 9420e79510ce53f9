"""Behaviours over the steps of a run, counted in a few dozen completions of each step.

The training does not write these numbers. Counting them here keeps its steps short and works on
old runs. One step takes about 10 ms, so a long run is counted over several calls, each step once.
"""

import time
from typing import TypeVar

from aha.web.event_spans import Row, mean_behaviours
from aha.web.file_reader import all_rows
from aha.web.runs import RunFolder

PER_STEP = 48  # completions, evenly spaced over a step's file
BEHAVIOURS = (
    *("attempts", "checks", "backtracks", "backtracks_root", "backtracks_intermediate"),
    *("subgoals", "backward_chains", "line_accuracy", "verdict_truth", "repeats"),
)
Item = TypeVar("Item")


class BehaviorCurves:
    """The mean behaviours of a run's steps, as far as they have been counted."""

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
