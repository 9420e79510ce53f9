"""The curves of a run: metrics as columns, read on as the file grows, thinned for a screen.

Thinning keeps the lowest and the highest value of every stretch, so that no spike is lost.
"""

import threading

from aha.web.reading import Lines, number
from aha.web.runs import RunFolder

POINTS = 600  # of one curve
AXES = ("step", "total_tokens", "elapsed_s")


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
                for row in rows:
                    self._add(row)
                if not rows:
                    return

    def _add(self, row: dict) -> None:
        found = {name: number(value) for name, value in row.items()}
        tokens = self.columns.get("total_tokens", [0.0])[-1] or 0.0
        found["total_tokens"] = tokens + (found.get("tokens") or 0.0)
        for name in found:
            if name not in self.columns:
                self.columns[name] = [None] * self.rows
        for name, column in self.columns.items():
            column.append(found.get(name))
        self.rows += 1

    def names(self) -> list[str]:
        """The columns that hold a number somewhere."""
        return [name for name, column in self.columns.items() if any(v is not None for v in column)]

    def thinned(self, names: list[str], points: int = POINTS) -> dict[str, dict[str, list]]:
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
