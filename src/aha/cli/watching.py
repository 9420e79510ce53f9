"""`aha dash`, `aha report`, `aha compare`, `aha behaviors`: look at runs, without torch."""

import json
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aha.behaviors.trends import summarise
from aha.core.errors import DataError
from aha.web.behavior_curves import BEHAVIOURS, BehaviorCurves
from aha.web.event_spans import behaviours_of, puzzle_of, visible
from aha.web.file_reader import all_rows
from aha.web.report_page import VERDICTS, write_report
from aha.web.run_comparison import PairedComparison, compare_runs, config_differences
from aha.web.runs import RunFolder, is_run, open_run, rate_of, rate_text

console = Console(highlight=False)
SHOWN = 6  # winners and losers
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


def make_report(run: Path, out: Path | None, pins: list[str]) -> None:
    found = open_run(run)
    out = out or run / "report.html"
    size = write_report(found, out, pins)
    console.print(f"{escape(str(out))}: {size / 1000:.0f} kB, opens offline", soft_wrap=True)


# -- two runs -------------------------------------------------------------------------------


def print_comparison(first: Path, second: Path) -> None:
    runs = open_run(first), open_run(second)
    names = [escape(visible(run.name)) for run in runs]
    if names[0] == names[1]:
        names = [escape(str(first)), escape(str(second))]
    console.print(rates_table(runs, names))
    differences = config_differences(*(run.read("config") for run in runs))
    console.print(differences_table(differences, names))
    paired = compare_runs(*runs)
    if paired is None:
        console.print(
            "\nThe two share no held-out problem: both need a test after training "
            "(eval.final) with the same eval.seed and task."
        )
        return
    print_paired(paired, names)


def rates_table(runs: tuple[RunFolder, RunFolder], names: list[str]) -> Table:
    table = Table(box=None, padding=(0, 2))
    for title in ("", "before", "after, 95 % interval", "steps", "seconds", "cost"):
        table.add_column(title, justify="left" if not title else "right")
    for run, name in zip(runs, names, strict=True):
        card = run.card()
        cost = card["cost_usd"]
        table.add_row(
            name,
            escape(rate_text(rate_of(run.read("before")), "-")),
            escape(rate_text(rate_of(run.read("after")), "-")),
            "-" if card["step"] is None else f"{card['step']:.0f}",
            "-" if card["elapsed_s"] is None else f"{card['elapsed_s']:.0f}",
            "-" if cost is None else f"{100 * cost:.2f} cents",
        )
    return table


def differences_table(differences: list[tuple], names: list[str]) -> Table | str:
    if not differences:
        return "\ntheir configs are the same"
    table = Table(box=None, padding=(0, 2), title="\nwhat differs", title_justify="left")
    for title in ("key", *names):
        table.add_column(title)
    for key, *values in differences:
        shown = [escape(visible(json.dumps(value, ensure_ascii=False))) for value in values]
        table.add_row(escape(visible(key)), *shown)
    return table


def print_paired(paired: PairedComparison, names: list[str]) -> None:
    low, high = paired.interval
    console.print(
        f"\n{names[1]} minus {names[0]}: [bold]{100 * paired.gain:+.1f} points[/bold] "
        f"\\[{100 * low:+.1f}, {100 * high:+.1f}] on the same {paired.problems} held-out problems\n"
        f"{VERDICTS[paired.verdict]} Two runs are two seeds: no claim rests on them alone."
    )
    for title, pairs, side in (
        (f"right in {names[1]} alone", paired.won, 1),
        (f"right in {names[0]} alone", paired.lost, 0),
    ):
        console.print(f"\n[bold]{title}: {len(pairs)}[/bold]")
        for pair in pairs[:SHOWN]:
            console.print(
                f"  {puzzle_line(pair[side])}   {_reason(pair[1 - side])}", soft_wrap=True
            )
        if len(pairs) > SHOWN:
            console.print(f"  and {len(pairs) - SHOWN} more")


def puzzle_line(row: dict) -> str:
    puzzle = puzzle_of(row)
    if puzzle is None:
        return escape(visible(str(row.get("id", "?"))))
    return f"{' '.join(map(str, puzzle[0]))} -> {puzzle[1]}"


def _reason(other: dict) -> str:
    return f"[dim]the other: {escape(visible(str(other.get('reason', '')))[:80])}[/dim]"


# -- behaviours -----------------------------------------------------------------------------


def print_behaviours(path: Path, as_json: bool) -> None:
    """Of a run: its tests and steps. Of a file: every completion, and their means."""
    if is_run(path):
        rows = run_lines(open_run(path))
    elif path.is_file():
        rows = [{"part": path.name, **file_means(path)}]
    else:
        raise DataError(f"no file or run {path}", "JSON lines of completions, or a run folder")
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    table = Table(box=None, padding=(0, 0, 0, 1))
    table.add_column("", no_wrap=True)
    for title in COLUMNS.values():
        table.add_column(title, justify="right", min_width=max(map(len, title.split())))
    for row in rows:
        cells = [row.get(name) for name in COLUMNS]
        shown = ["-" if cell is None else f"{cell:.2f}" for cell in cells]
        table.add_row(escape(visible(str(row["part"]))), *shown)
    console.print(table)
    console.print("means of a completion; `sums right` and `checks true` are shares", style="dim")


def run_lines(run: RunFolder) -> list[dict]:
    """The tests, counted whole, around the steps, counted in some completions each."""
    files = {name: run.completion_file(name) for name in ("before", "after")}
    tests = {name: [{"part": name, **file_means(path)}] for name, path in files.items() if path}
    found = BehaviorCurves(run).count(24, 60.0)
    steps = [
        {"part": f"step {step}", **{name: found[name][i] for name in BEHAVIOURS}}
        for i, step in enumerate(found["step"])
    ]
    return [*tests.get("before", []), *steps, *tests.get("after", [])]


def file_means(path: Path) -> dict[str, float]:
    found = [one for one in map(behaviours_of, all_rows(path)) if one is not None]
    if not found:
        raise DataError(
            f"no completion of a puzzle in {path}",
            '{"numbers": [3, 7, 25], "target": 82, "completion": "..."} on each line',
        )
    return summarise(found)
