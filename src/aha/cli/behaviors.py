"""`aha behaviors`: counts behaviours in completions, exactly and, if wanted, with an LLM judge
too."""

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from aha.cli.parameters import AsJson, Count, Seconds, Whole
from aha.cli.terminal_text import console, say_json, say_line
from aha.core.errors import DataError
from aha.store.guarded_files import GuardedFile, number, read_all_rows

if TYPE_CHECKING:
    from aha.web.runs import RunFolder

API_KEY_VARIABLE = "AHA_JUDGE_KEY"
COLUMNS = {
    "attempts": "attempts",
    "checks": "checks",
    "backtracks_root": "to start",
    "backtracks_intermediate": "to middle",
    "subgoals": "goals",
    "backward_chains": "chains",
    "repeats": "repeats",
    "line_accuracy": "sums right",
    "verdict_truth": "checks true",
}
RESULT_COLUMNS = {
    "first_attempt_rate": "first right",
    "attempts_per_solve": "attempts a solve",
    "tokens_per_solve": "tokens a solve",
}


def behaviors(
    path: Path,
    *,
    as_json: AsJson = False,
    judge: str | None = None,
    judge_model: str | None = None,
    judge_n: Count = 100,
    judge_seed: Whole = 0,
    judge_workers: Count = 4,
    judge_tokens: Count = 1_024,
    judge_timeout: Seconds = 120.0,
) -> None:
    """Count behaviours (attempts, checks, backtracks ...) in completions of a file or a run.

    Parameters
    ----------
    path
        JSON lines of {numbers, target, completion}, or a run folder.
    judge
        Address of an OpenAI-compatible endpoint (vLLM, llama.cpp, Ollama ...) whose model counts
        too. Prints its agreement with the detector. A key is read from AHA_JUDGE_KEY.
    judge_model
        Name of the model at that endpoint.
    judge_n
        Number of completions; the judge gets four questions about each.
    judge_seed
        Seed that chooses the completions; also sent to the judge.
    judge_workers
        Questions at the same time.
    judge_tokens
        Token limit of an answer.
    judge_timeout
        Seconds to wait for an answer before the question is sent again.
    """
    if judge or judge_model:
        from aha.behaviors.judge import Judge
        from aha.cli.judge_agreement import endpoint_and_model, print_judge_agreement

        reader = Judge(
            *endpoint_and_model(judge, judge_model),
            key=os.environ.get(API_KEY_VARIABLE),
            seed=judge_seed,
            workers=judge_workers,
            timeout_s=judge_timeout,
            max_tokens=judge_tokens,
        )
        print_judge_agreement(path, reader, judge_n, as_json)
        return
    print_behaviors(path, as_json)


def print_behaviors(path: Path, as_json: bool) -> None:
    """Print the tests and steps of a run, or every completion of a file and their means."""
    from aha.core.control_characters import visible
    from aha.web.runs import is_run, open_run
    from aha.web.ways_of_run import way_rows

    turn: dict[str, Any] = {}
    if is_run(path):
        run = open_run(path)
        ways = way_rows(run)
        rows, turn = run_rows(run, ways), turn_row(ways)
    elif path.is_file():
        rows = [{"part": path.name, **file_means(GuardedFile.named_by_user(path))}]
    else:
        raise DataError(
            f"no file or run {path}", "JSON lines of completions, or a run folder", "check the path"
        )
    if as_json:
        for row in [*rows, *([turn] if turn else [])]:
            say_json(row)
        return
    print_table(rows, COLUMNS, visible)
    console.print("means of a completion; `sums right` and `checks true` are shares", style="dim")
    print_ways(rows, turn, visible)


def print_table(
    rows: list[dict[str, Any]], columns: dict[str, str], visible: Callable[[str], str]
) -> None:
    table = Table(box=None, padding=(0, 0, 0, 1))
    table.add_column("", no_wrap=True)
    for title in columns.values():
        table.add_column(title, justify="right", min_width=max(map(len, title.split())))
    for row in rows:
        cells = [row.get(name) for name in columns]
        shown = ["-" if cell is None else f"{cell:.2f}" for cell in cells]
        table.add_row(escape(visible(str(row["part"]))), *shown)
    console.print(table)


def print_ways(
    rows: list[dict[str, Any]], turn: dict[str, Any], visible: Callable[[str], str]
) -> None:
    """The shares of the ways of search, and the turn's sentence; nothing where none was
    measured."""
    from aha.web.turn_view import WAY_WORDS

    notes = (
        (WAY_WORDS, "shares of the completions by way of search"),
        (RESULT_COLUMNS, "`first right` is a share; attempts and tokens are over right answers"),
    )
    # Two tables: one of all would be wider than a terminal, which cuts digits off without a sign.
    for columns, note in notes:
        if any(row.get(name) is not None for row in rows for name in columns):
            console.print()
            print_table(rows, columns, visible)
            console.print(note, style="dim")
    if turn:
        console.print(f"\n{escape(turn['sentence'])}", soft_wrap=True)


def print_faults(faults: list[str]) -> None:
    """What could not be read, on stderr: `--json` prints rows alone."""

    for fault in faults:
        say_line(f"not read: {fault}", sys.stderr)


def run_rows(run: "RunFolder", ways: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The test before, the steps, the test after.

    Steps are counted in a part of their completions; `ways` (see `way_rows`) has their ways of
    search over all of them.
    """
    from aha.web.curves import BEHAVIOURS, BehaviorCurves
    from aha.web.turn_view import SEARCH_COLUMNS

    files = {name: run.completion_file(name) for name in ("before", "after")}
    tests = {name: [{"part": name, **file_means(path)}] for name, path in files.items() if path}
    curves = BehaviorCurves(run)
    counts = curves.count(24, math.inf)
    print_faults(
        [*run.faults(), *(fault for faults in curves.damaged.values() for fault in faults)]
    )
    measured = {row["step"]: row for row in ways}
    steps = []
    for i, step in enumerate(counts["step"]):
        over_all = {name: number(measured.get(step, {}).get(name)) for name in SEARCH_COLUMNS}
        counted = {name: counts[name][i] for name in BEHAVIOURS}
        known = {name: value for name, value in over_all.items() if value is not None}
        steps.append({"part": f"step {step}", **counted, **known})
    rows = [*tests.get("before", []), *steps, *tests.get("after", [])]
    if not rows:
        raise DataError(
            f"no completion of a puzzle in {run.path}",
            "a run on Countdown with its completions",
            f"copy {run.path / 'completions'} anew from where the run was made",
        )
    return rows


def turn_row(ways: list[dict[str, Any]]) -> dict[str, Any]:
    """The turn of the way of search as the last row; {} where no way was measured."""
    from aha.behaviors.turn import Turn, find_turn
    from aha.web.turn_view import turn_words

    turn = find_turn(ways)
    step = turn.step if isinstance(turn, Turn) else None
    return {} if turn is None else {"part": "turn", "step": step, "sentence": turn_words(turn)}


def file_means(file: GuardedFile) -> dict[str, float]:
    from aha.web.event_spans import mean_behaviours

    rows, faults = read_all_rows(file)
    print_faults(faults)
    means = mean_behaviours(rows)
    if not means:
        raise DataError(
            f"no completion of a puzzle in {file.path}",
            '{"numbers": [3, 7, 25], "target": 82, "completion": "..."} on each line',
        )
    return means
