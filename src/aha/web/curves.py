"""The curves of a run: metrics as columns, read on as the file grows, thinned for a screen.

Thinning keeps the lowest and the highest value of every stretch, so that no spike is lost.
"""

import threading
from collections.abc import Iterable
from itertools import chain

from aha.web.file_reader import Lines, number
from aha.web.runs import RunFolder

POINTS = 600  # of one curve
AXES = ("step", "total_tokens", "elapsed_s")
DRAWN = (  # on the overview
    *("solve_rate", "reward", "groups_none_solved", "groups_all_solved", "mean_tokens"),
    *("truncated", "entropy", "grad_norm", "tokens_per_s", "elapsed_s"),
)


class Curves:
    """All rows of one run's metrics.jsonl, column by column."""

    def __init__(self, run: RunFolder):
        self.run = run
        self.lines = Lines(run.metrics)
        self.columns: dict[str, list[float | None]] = {}
        self.rows = 0
        self.lock = threading.Lock()

    def refresh(self) -> None:
        """Take in what was written since the last look."""
        with self.lock:
            while True:
                rows, anew = self.lines.more()
                if anew:
                    self.columns, self.rows = {}, 0
                if not rows:
                    return
                self._add(rows)

    def _add(self, rows: list[dict]) -> None:
        """Column by column: ten thousand rows at once are what a first look has to wait for."""
        total = (self.columns.get("total_tokens") or [0.0])[-1] or 0.0
        for row in rows:
            total = row["total_tokens"] = total + (number(row.get("tokens")) or 0.0)
        for name in dict.fromkeys(chain.from_iterable(rows)):
            self.columns.setdefault(name, [None] * self.rows)
        for name, column in self.columns.items():
            values = [row.get(name) for row in rows]
            # A finite float, which nearly all are, less itself is 0: NaN and infinity are not.
            column += [v if type(v) is float and v - v == 0.0 else number(v) for v in values]
        self.rows += len(rows)

    def names(self) -> list[str]:
        """The columns that hold a number somewhere."""
        return [name for name, column in self.columns.items() if any(v is not None for v in column)]

    def thinned(self, names: Iterable[str], points: int = POINTS) -> dict[str, dict[str, list]]:
        """{name: {step, total_tokens, elapsed_s, value}} with at most `points` values each."""
        with self.lock:
            axes = [self.columns.get(axis, []) for axis in AXES]
            found = {}
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
                found[name] = curve | {"value": [column[i] for i in kept]}
            return found

    def last(self) -> dict[str, float | None]:
        with self.lock:
            return {name: column[-1] for name, column in self.columns.items() if column}


def thin(column: list[float | None], points: int) -> list[int]:
    """The places to keep of a column: all, or the lowest and the highest of each stretch."""
    if len(column) <= points:
        return [place for place, value in enumerate(column) if value is not None]
    stretches, kept = max(1, points // 2), []
    for part in range(stretches):
        begin, end = (len(column) * (part + more) // stretches for more in (0, 1))
        places = [place for place in range(begin, end) if column[place] is not None]
        if places:
            kept += sorted(
                {min(places, key=column.__getitem__), max(places, key=column.__getitem__)}
            )
    return kept
