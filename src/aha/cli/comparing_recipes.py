"""`aha lab` in the terminal: what is run, what came out, and where it is."""

from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from aha.cli.live import Screen
from aha.cli.recipes import find_recipe, parse_overrides
from aha.core.errors import ConfigError
from aha.studies.lab_page import HEADER, finished_results, table, write_results
from aha.studies.method_lab import PlannedRun, measure_base, plan_runs, run_planned
from aha.studies.verdicts import verdicts
from aha.train.experiment import Listener

console = Console(highlight=False)


def run_lab(
    recipes: str,
    seeds: str,
    budget: tuple[int, int],
    overrides: tuple[str, ...],
    out: Path,
    dry_run: bool,
) -> None:
    found = [find_recipe(name) for name in recipes.split(",") if name]
    planned = plan_runs(found, numbers(seeds), *budget, parse_overrides(overrides), out)
    if dry_run:
        for one in planned:
            console.print(f"{escape(one.run.name)}: {'done' if one.done else 'to do'}")
        return
    console.print(
        f"[bold]aha lab[/bold]  {len(planned)} runs, {sum(one.done for one in planned)} of them "
        f"done; everything goes to {escape(str(out))}\n"
        f"watch it in a browser: run `aha dash {escape(str(out / 'runs'))}` in another terminal",
        soft_wrap=True,
    )
    measure_base(planned[0].cfg, out)
    complete = True
    for place, one in enumerate(planned, 1):
        if one.done:
            continue
        console.print(f"\n[bold]{place}/{len(planned)}  {escape(one.run.name)}[/bold]")
        if not (complete := run_planned(one, Listener(validation=Screen(one.cfg).validation))):
            break
        write_results(planned, out)  # so that the page can be looked at on the way
    write_results(planned, out)
    print_results(planned, out)
    if not complete:
        console.print("[yellow]stopped; the same command goes on[/yellow]")


def numbers(seeds: str) -> list[int]:
    try:
        return [int(seed) for seed in seeds.split(",") if seed.strip()]
    except ValueError:
        raise ConfigError(f"--seeds {seeds!r}", "whole numbers", "--seeds 0,1,2") from None


def print_results(planned: list[PlannedRun], out: Path) -> None:
    findings = finished_results(planned)
    if not findings:
        return
    found, notes = verdicts(findings, planned[0].cfg.tokens)
    shown = Table(box=None, padding=(0, 1))
    for name in HEADER:
        shown.add_column(name)
    for row in table(findings, found):
        shown.add_row(*map(escape, row))
    console.print(shown)
    for note in notes:
        console.print(f"no verdict: {escape(note)}", soft_wrap=True)
    console.print(f"everything is in {escape(str(out / 'lab.html'))}", soft_wrap=True)
