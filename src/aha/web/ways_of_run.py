"""The ways of searching of a run, step by step, and the step at which its strategy turns."""

from itertools import pairwise

from aha.behaviors.turn import NoTurn, Turn, find_turn, measured_rows
from aha.store.guarded_files import number, read_all_rows
from aha.web.curves import PER_STEP, evenly_spaced
from aha.web.event_spans import Row, ways_of_rows
from aha.web.runs import RunFolder

MAX_STEPS = 120


def turn_of_run(run: RunFolder) -> Turn | NoTurn | None:
    """The turn of a run, or why there is none; None where nothing was measured."""
    return find_turn(way_rows(run))


def way_rows(run: RunFolder) -> list[Row]:
    """{step, groups, way_by_chance ...} of each step, in order; [] where nothing was measured.

    From metrics.jsonl. Steps from before its rows had these columns are read from the completions,
    which takes seconds: at most MAX_STEPS steps, PER_STEP completions of each, evenly spaced. Steps
    whose completions are gone are left out.
    """
    rows, _ = read_all_rows(run.metrics)
    measured = [dict(row) for row in measured_rows(rows)]
    known = {row["step"] for row in measured}
    if measured and known.issuperset(filter(None, (number(row.get("step")) for row in rows))):
        return measured
    return sorted([*measured, *rows_from_completions(run, known)], key=lambda row: row["step"])


def rows_from_completions(run: RunFolder, known: set[float]) -> list[Row]:
    """The same rows, read anew from completions/step_*.jsonl; without the `known` steps."""
    rows: list[Row] = []
    names = [name for name in run.completion_files() if name.startswith("step_")]
    names = [name for name in names if int(name[5:]) not in known]
    for name in evenly_spaced(sorted(names, key=lambda name: int(name[5:])), MAX_STEPS):
        file = run.completion_file(name)
        completions = evenly_spaced(read_all_rows(file)[0] if file else [], PER_STEP)
        shares = ways_of_rows(completions)
        if shares:
            rows.append({"step": int(name[5:]), "groups": count_groups(completions), **shares})
    return rows


def count_groups(completions: list[Row]) -> int:
    """The groups of a step. Rows without a group: equal prompts in a row are one group."""
    keys = [row["group"] if "group" in row else row.get("prompt") for row in completions]
    return 1 + sum(a != b for a, b in pairwise(keys)) if keys else 0
