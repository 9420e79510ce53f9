"""`aha compare`: two runs on the same held-out problems."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from aha.cli.terminal_text import console
from aha.core.control_characters import visible

if TYPE_CHECKING:
    from aha.web.run_comparison import PairedComparison
    from aha.web.runs import RunFolder

PROBLEMS_SHOWN = 6  # of those that only one run solves


def compare(first: Path, second: Path) -> None:
    """Compare two runs on the same held-out problems: paired interval, config, problems won and
    lost.

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
    from aha.web.runs import rate_of, rate_text

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


def differences_table(differences: list[tuple[Any, ...]], names: list[str]) -> Table | str:
    from aha.core.control_characters import visible

    if not differences:
        return "\ntheir configs are the same"
    table = Table(box=None, padding=(0, 2), title="\nwhat differs", title_justify="left")
    for title in ("key", *names):
        table.add_column(title)
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
        f"{VERDICTS[paired.verdict]} Two runs are two seeds: they prove nothing alone."
    )
    for title, pairs, side in (
        (f"right in {names[1]} alone", paired.won, 1),
        (f"right in {names[0]} alone", paired.lost, 0),
    ):
        console.print(f"\n[bold]{title}: {len(pairs)}[/bold]")
        for pair in pairs[:PROBLEMS_SHOWN]:
            console.print(
                f"  {puzzle_line(pair[side])}   {reason_line(pair[1 - side])}", soft_wrap=True
            )
        if len(pairs) > PROBLEMS_SHOWN:
            console.print(f"  and {len(pairs) - PROBLEMS_SHOWN} more")


def puzzle_line(row: dict[str, Any]) -> str:
    from aha.web.event_spans import puzzle_of

    puzzle = puzzle_of(row)
    if puzzle is None:
        return escape(visible(str(row.get("id", "?"))))
    return f"{' '.join(map(str, puzzle[0]))} -> {puzzle[1]}"


def reason_line(other: dict[str, Any]) -> str:
    from aha.core.control_characters import visible

    return f"[dim]the other: {escape(visible(str(other.get('reason', '')))[:80])}[/dim]"
