"""The history of each held-out problem: its completion and verdict at every evaluation of a run.

There are two families. A test problem must not be looked at during training, so it is measured
before and after; a validation problem is measured at every evaluation.
"""

from aha.web.behavior_curves import evenly_spaced
from aha.web.completions import CompletionIndex, IndexCache, IndexEntry
from aha.web.event_spans import Row, puzzle_of, visible
from aha.web.runs import RunFolder

FAMILIES = ("test", "validation")
MAX_FILES = 12
PAGE_SIZE = 40

Cells = list[
    IndexEntry | None
]  # one for each evaluation; None where it has not reached the problem


def files_of(run: RunFolder, family: str) -> list[str]:
    """The completion files of a family in the order of steps, at most MAX_FILES of them."""
    names = run.completion_files()
    if family == "test":
        return [name for name in ("before", "after") if name in names]
    evals = sorted((name for name in names if name.startswith("eval_")), key=lambda n: int(n[5:]))
    return evenly_spaced(evals, MAX_FILES)


def history_page(run: RunFolder, cache: IndexCache, family: str, change: str, start: int) -> Row:
    """One page of problems, with a cell for each evaluation, for the dashboard.

    `change` is one of `change_of`'s values, or "" for all problems; `start` the first line.
    """
    files, indexes = [], []
    for name in files_of(run, family):
        path = run.completion_file(name)
        if path is not None:
            files.append(name)
            indexes.append(cache.index(path))
    columns = [_first_entries(index) for index in indexes]
    # A problem that one evaluation has not reached yet gets an empty cell there.
    problems = list(dict.fromkeys(problem for column in columns for problem in column))
    lines = [[column.get(problem) for column in columns] for problem in problems]
    matching = [cells for cells in lines if change in ("", change_of(cells))]
    return {
        "family": family,
        "families": [name for name in FAMILIES if files_of(run, name)],
        "files": files,
        "problems": len(lines),
        "matching": len(matching),
        "start": start,
        "page": PAGE_SIZE,
        "lines": [_line(cells, indexes) for cells in matching[start : start + PAGE_SIZE]],
    }


def change_of(cells: Cells) -> str:
    """learnt, lost, always or never: the last verdict against the first."""
    verdicts = [cell.correct for cell in cells if cell is not None]
    if verdicts[0] != verdicts[-1]:
        return "learnt" if verdicts[-1] else "lost"
    return "always" if verdicts[0] else "never"


def _first_entries(index: CompletionIndex) -> dict[str, IndexEntry]:
    """The first completion of each problem, by the problem's id."""
    entries: dict[str, IndexEntry] = {}
    for entry in index.entries:
        entries.setdefault(entry.id, entry)
    return entries


def _line(cells: Cells, indexes: list[CompletionIndex]) -> Row:
    index, entry = next(
        (index, cell) for index, cell in zip(indexes, cells, strict=True) if cell is not None
    )
    row = index.rows([entry])[0]
    puzzle = puzzle_of(row)
    return {
        "puzzle": puzzle and {"numbers": puzzle[0], "target": puzzle[1]},
        "prompt": visible(str(row.get("prompt", ""))[:200]),
        "change": change_of(cells),
        "cells": [cell and [cell.place, cell.correct, cell.tokens] for cell in cells],
    }
