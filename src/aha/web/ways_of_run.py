"""The ways of searching of a run, step by step, and the step at which its strategy turns."""

from itertools import pairwise

from aha.behaviors.turn import NoTurn, Turn, find_turn, measured_rows
from aha.store.guarded_files import read_all_rows
from aha.web.event_spans import Row, ways_of_rows
from aha.web.runs import RunFolder


def turn_of_run(run: RunFolder) -> Turn | NoTurn | None:
    """The turn of a run, or why there is none; None where nothing was measured."""
    return find_turn(way_rows(run))


def way_rows(run: RunFolder) -> list[Row]:
    """{step, groups, way_by_chance ...} of each step, in order; [] where nothing was measured.

    From metrics.jsonl. A run made before its rows had these columns is read from its completions,
    which takes seconds; steps whose completions are gone are left out.
    """
    rows, _ = read_all_rows(run.metrics)
    measured = [dict(row) for row in measured_rows(rows)]
    return measured or rows_from_completions(run)


def rows_from_completions(run: RunFolder) -> list[Row]:
    """The same rows, read anew from completions/step_*.jsonl."""
    rows = []
    for name in run.completion_files():
        file = run.completion_file(name) if name.startswith("step_") else None
        completions = read_all_rows(file)[0] if file else []
        shares = ways_of_rows(completions)
        if shares:
            rows.append({"step": int(name[5:]), "groups": count_groups(completions), **shares})
    return sorted(rows, key=lambda row: row["step"])


def count_groups(completions: list[Row]) -> int:
    """The groups of a step. Rows without a group: equal prompts in a row are one group."""
    keys = [row["group"] if "group" in row else row.get("prompt") for row in completions]
    return 1 + sum(a != b for a, b in pairwise(keys)) if keys else 0
