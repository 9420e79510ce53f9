"""A run's held-out problems for the pages: points of the curve, and a puzzle to try."""

import random

from aha.core.errors import DataError
from aha.store.guarded_files import Row
from aha.web.completions import IndexCache
from aha.web.curves import Curves
from aha.web.event_spans import puzzle_of
from aha.web.runs import RunFolder
from aha.web.server_events import evaluation_view

MOST_TRIES = 64  # rows without a puzzle, before it is said that there is none


def held_out_points(run: RunFolder, curves: Curves, evals: list[Row]) -> list[Row]:
    """Every held-out measurement with its place on each axis; `test`: one before or after."""
    last = curves.last().get("step") or 0
    tests = ((0, run.read("before")), (last, run.read("after")))
    before, after = (evaluation_view({**row, "step": step}) for step, row in tests)
    rows = [*evals, *([after | {"test": True}] if after else [])]
    axes = curves.axes_at([row["step"] for row in rows])
    points = [
        row | {axis: column[place] for axis, column in axes.items()}
        for place, row in enumerate(rows)
    ]
    first = dict.fromkeys(("total_tokens", "elapsed_s"), 0) | {"test": True}
    return [*([before | first] if before else []), *points]


def held_out_puzzle(run: RunFolder, indexes: IndexCache) -> Row:
    """{numbers, target} of a puzzle of the run's first held-out test, by chance.

    Raises DataError where there is none.
    """
    files = run.completion_files()
    tests: list[str] = [name for name in ("before", "after") if name in files]
    tests += [name for name in files if name.startswith("eval_")][:1]
    path = run.completion_file(tests[0]) if tests else None
    if path is None:
        raise DataError("this run has no held-out test yet")
    index = indexes.index(path)
    for entry in random.sample(index.entries, min(len(index.entries), MOST_TRIES)):
        puzzle = puzzle_of(index.rows([entry])[0])
        if puzzle:
            return {"numbers": puzzle[0], "target": puzzle[1]}
    raise DataError(f"no puzzle in {tests[0]}")
