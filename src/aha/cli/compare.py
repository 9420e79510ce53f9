"""`aha compare`: two runs on the same held-out problems."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from aha.cli.terminal_text import console
from aha.core.control_characters import visible

if TYPE_CHECKING:
    from aha.web.run_comparison import PairedComparison
    from aha.web.runs import RunFolder

PROBLEMS_SHOWN = 6  # of those that only one run solves


def compare(first: Path, second: Path) -> None:
    """Compare two runs on the same held-out problems: interval, settings, problems won and lost.

    Parameters
    ----------
    first
        Run folder.
    second
        Run folder whose gain over the first is shown.
    """
    from aha.web.run_comparison import compare_runs, config_differences
    from aha.web.runs import open_run

    runs = open_run(first), open_run(second)
    names = [escape(visible(run.name)) for run in runs]
    if names[0] == names[1]:
        names = [escape(visible(str(path))) for path in (first, second)]
    console.print(rates_table(runs, names))
    differences = config_differences(*(run.read("config") for run in runs))
    console.print(differences_table(differences, names))
    faults = [f"{run.name}: {fault}" for run in runs for fault in run.faults()]
    paired = compare_runs(*runs, faults)
    for fault in faults:
        console.print(f"[yellow]not read: {escape(visible(fault))}[/yellow]", soft_wrap=True)
    if paired is None:
        console.print(
            "\nThe two share no held-out problem: both need a test after training "
            "(eval.final) with the same eval.seed and task."
        )
        return
    print_paired(paired, names)


def rates_table(runs: "tuple[RunFolder, RunFolder]", names: list[str]) -> Table:
    """One column for each run: side by side they would need more than 80 characters."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    columns = [rates_of(run) for run in runs]
    for title in columns[0]:
        table.add_row(title, *(escape(column[title]) for column in columns))
    return table


def rates_of(run: "RunFolder") -> dict[str, str]:
    """What a run has reached and cost, by title; "-" for what is not known."""
    from aha.web.runs import rate_of, rate_text

    card = run.card()
    cost = card["cost_usd"]
    return {
        "before": rate_text(rate_of(run.read("before")), "-"),
        "after, 95 % interval": rate_text(rate_of(run.read("after")), "-"),
        "steps": "-" if card["step"] is None else f"{card['step']:.0f}",
        "seconds": "-" if card["elapsed_s"] is None else f"{card['elapsed_s']:.0f}",
        "cost": "-" if cost is None else f"{100 * cost:.2f} cents",
    }


def differences_table(differences: list[tuple[Any, ...]], names: list[str]) -> Table | str:
    if not differences:
        return "\ntheir configs are the same"
    table = Table(box=None, padding=(0, 2), title="\nwhat differs", title_justify="left")
    for title in ("key", *names):
        table.add_column(title, overflow="fold")
    for key, *values in differences:
        shown = [escape(visible(json.dumps(value, ensure_ascii=False))) for value in values]
        table.add_row(escape(visible(key)), *shown)
    return table


def print_paired(paired: "PairedComparison", names: list[str]) -> None:
    from aha.web.run_comparison import VERDICTS

    low, high = paired.interval
    console.print(
        f"\n{names[1]} minus {names[0]}: [bold]{100 * paired.gain:+.1f} points[/bold] "
        f"\\[{100 * low:+.1f}, {100 * high:+.1f}] on the same {paired.problems} held-out problems\n"
        f"{VERDICTS[paired.verdict]} Two runs are two seeds:\nthey prove nothing alone."
    )
    for title, pairs, side in (
        (f"right in {names[1]} alone", paired.won, 1),
        (f"right in {names[0]} alone", paired.lost, 0),
    ):
        console.print(f"\n[bold]{title}: {len(pairs)}[/bold]")
        for pair in pairs[:PROBLEMS_SHOWN]:
            line = Text(f"  {puzzle_line(pair[side])}   ")
            line.append(f"the other: {visible(str(pair[1 - side].get('reason', '')))}", style="dim")
            line.truncate(console.width, overflow="ellipsis")
            console.print(line)
        if len(pairs) > PROBLEMS_SHOWN:
            console.print(f"  and {len(pairs) - PROBLEMS_SHOWN} more")


def puzzle_line(row: dict[str, Any]) -> str:
    from aha.web.event_spans import puzzle_of

    puzzle = puzzle_of(row)
    if puzzle is None:
        return visible(str(row.get("id", "?")))
    return f"{' '.join(map(str, puzzle[0]))} -> {puzzle[1]}"
