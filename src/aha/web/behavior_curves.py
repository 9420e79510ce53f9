"""Behaviours over the steps of a run: counted from the completions, a few dozen of each step.

The training writes no such numbers; counting them here keeps its steps short and works on any old
run. A step costs about 10 ms, so a long run is counted in parts and each step once.
"""

import time

from aha.web.event_spans import means_of
from aha.web.file_reader import all_rows
from aha.web.runs import RunFolder

PER_STEP = 48  # completions, evenly spaced over a step's file
BEHAVIOURS = (
    *("attempts", "checks", "backtracks", "backtracks_root", "backtracks_intermediate"),
    *("subgoals", "backward_chains", "line_accuracy", "verdict_truth", "repeats"),
)


class BehaviorCurves:
    """The behaviours of one run's steps, as far as they have been counted."""

    def __init__(self, run: RunFolder):
        self.run = run
        self.found: dict[int, dict[str, float | None]] = {}
        self._sizes: dict[int, int] = {}

    def count(self, points: int, seconds: float) -> dict:
        """Count for at most `seconds`; {"step": [...], behaviour: [...], "waiting": how many}."""
        steps = spread(self.steps(), points)
        deadline, waiting = time.monotonic() + seconds, 0
        for step in steps:
            if time.monotonic() < deadline:
                self._count(step)
            else:
                waiting += step not in self.found
        done = [step for step in steps if self.found.get(step)]
        columns = {name: [self.found[step].get(name) for step in done] for name in BEHAVIOURS}
        return {"step": done, **columns, "waiting": waiting, "per_step": PER_STEP}

    def steps(self) -> list[int]:
        names = self.run.completion_files()
        return sorted(int(name[5:]) for name in names if name.startswith("step_"))

    def _count(self, step: int) -> None:
        path = self.run.completion_file(f"step_{step:06d}")
        try:
            size = path.stat().st_size if path else 0
        except OSError:
            return
        if path and self._sizes.get(step) != size:
            self._sizes[step] = size
            self.found[step] = means_of(spread(all_rows(path), PER_STEP))


def spread(items: list, count: int) -> list:
    """At most `count` items, evenly spaced, the first and the last among them."""
    if len(items) <= count:
        return items
    return [items[place * (len(items) - 1) // (count - 1)] for place in range(count)]
