"""The same puzzles through time: what one problem got at every evaluation of a run.

Two families, because a test problem must not be looked at during training: the validation problems
at every evaluation, and the test problems before and after.
"""

from aha.web.behavior_curves import spread
from aha.web.completions import Entry, Index, IndexCache
from aha.web.event_spans import puzzle_of, visible
from aha.web.runs import RunFolder

FAMILIES = ("test", "validation")
MAX_FILES = 12
PAGE = 40


def files_of(run: RunFolder, family: str) -> list[str]:
    """The completion files of a family in the order of time, thinned to what a screen holds."""
    names = run.completion_files()
    if family == "test":
        return [name for name in ("before", "after") if name in names]
    evals = sorted((name for name in names if name.startswith("eval_")), key=lambda n: int(n[5:]))
    return spread(evals, MAX_FILES)


def through_time(run: RunFolder, shelf: IndexCache, family: str, change: str, start: int) -> dict:
    """Lines of (puzzle, one cell for each file), filtered by how the verdict has changed."""
    files, indexes = [], []
    for name in files_of(run, family):
        path = run.completion_file(name)
        if path is not None:
            files.append(name)
            indexes.append(shelf.index(path))
    columns = [_first_of_each(index) for index in indexes]
    # A problem that one evaluation has not reached yet is a gap, not a reason to hide it.
    problems = list(dict.fromkeys(problem for column in columns for problem in column))
    lines = [(problem, [column.get(problem) for column in columns]) for problem in problems]
    kept = [line for line in lines if change in ("", change_of(line[1]))]
    return {
        "family": family,
        "families": [name for name in FAMILIES if files_of(run, name)],
        "files": files,
        "problems": len(lines),
        "matching": len(kept),
        "start": start,
        "page": PAGE,
        "lines": [_line(cells, indexes) for _, cells in kept[start : start + PAGE]],
    }


def change_of(cells: list[Entry | None]) -> str:
    """learnt, lost, always or never: from the first verdict to the last."""
    known = [cell.correct for cell in cells if cell is not None]
    if known[0] != known[-1]:
        return "learnt" if known[-1] else "lost"
    return "always" if known[0] else "never"


def _first_of_each(index: Index) -> dict[str, Entry]:
    found: dict[str, Entry] = {}
    for entry in index.entries:
        found.setdefault(entry.id, entry)
    return found


def _line(cells: list[Entry | None], indexes: list[Index]) -> dict:
    at = next(place for place, cell in enumerate(cells) if cell is not None)
    row = indexes[at].rows([cells[at]])[0]
    puzzle = puzzle_of(row)
    return {
        "puzzle": puzzle and {"numbers": puzzle[0], "target": puzzle[1]},
        "prompt": visible(str(row.get("prompt", ""))[:200]),
        "change": change_of(cells),
        "cells": [cell and [cell.place, cell.correct, cell.tokens] for cell in cells],
    }
