"""`aha lab`: trains with several recipes, compares them, and prints the verdicts."""

import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.markup import escape
from rich.table import Table

from aha.api.recipe_names import find_recipe
from aha.cli.own_command import own_command
from aha.cli.parameters import DryRun, Natural, number_of_ranks
from aha.cli.recipe_keys import LabOverrides, overrides_of
from aha.cli.terminal_text import console, say_line
from aha.core.errors import AhaError, ConfigError

if TYPE_CHECKING:
    from aha.studies.method_lab import PlannedRun


LabRanks = Annotated[
    str,
    Parameter(
        name="--ranks",
        help="Number of processes that share the completions and the rows of each run, or auto: "
        "one for each core where the model is small.",
    ),
]


def lab(
    *,
    recipes: str = "reinforce,rloo,grpo,dr_grpo,dapo,gspo,cispo,max_rl,ppo",
    seeds: str = "0,1,2",
    tokens: Natural = 3_000_000,
    steps: Natural = 0,
    out: Path = Path("runs/lab"),
    ranks: LabRanks = "1",
    dry_run: DryRun = False,
    overrides: LabOverrides = None,
) -> None:
    """Compare recipes with equal base, problems, token budget and seeds; verdicts by intervals.

    Runs one after the other; after a stop, the same command continues, and it tries failed runs
    again. Writes OUT/lab.html and OUT/lab.json. `--section.key value` goes to every recipe.

    Parameters
    ----------
    recipes
        Packaged names or TOML files, separated by commas.
    seeds
        Separated by commas; a verdict needs three.
    tokens
        Completion tokens of each run, with those of discarded rollouts; 0: no limit but `steps`.
    steps
        Most steps of each run; 0: until the tokens are spent.
    out
        Folder of the lab.
    dry_run
        Print what would be run, and exit.
    """
    from aha.studies.lab_page import write_results
    from aha.studies.method_lab import measure_base, plan_runs
    from aha.training.joint_work import check_setting

    number = number_of_ranks(ranks)
    paths = [find_recipe(name) for name in recipes.split(",") if name]
    runs = plan_runs(paths, seed_numbers(seeds), tokens, steps, overrides_of(overrides), out)
    for planned in runs:
        check_setting(number or 1, planned.cfg)
    if dry_run:
        for planned in runs:
            console.print(f"{escape(planned.run.name)}: {'done' if planned.done else 'to do'}")
        return
    console.print(
        f"[bold]aha lab[/bold]  {len(runs)} runs, {sum(run.done for run in runs)} of them "
        f"done; all files are in {escape(str(out))}\nwatch it in a browser: run "
        f"`{escape(f'{own_command()} dash {quote(str(out))}')}/runs` in another terminal",
        soft_wrap=True,
    )
    measure_base(runs[0].cfg, out, number)
    stopped_by, failed = carry_out_all(runs, out, number)
    write_results(runs, out, failed)
    print_results(runs, out)
    if stopped_by is not None:
        console.print("[yellow]stopped; the same command continues[/yellow]")
        sys.exit(128 + stopped_by)
    if failed:
        say_line(f"failed: {', '.join(failed)}; the same command tries them again")
        sys.exit(1)


def seed_numbers(seeds: str) -> list[int]:
    try:
        return [int(seed) for seed in seeds.split(",") if seed.strip()]
    except ValueError:
        raise ConfigError(f"--seeds {seeds!r}", "whole numbers", "--seeds 0,1,2") from None


def carry_out_all(
    runs: "list[PlannedRun]", out: Path, ranks: int | None
) -> tuple[int | None, dict[str, str]]:
    """Do all runs that are not done, one after the other, each on so many ranks. Returns the number
    of the signal that has stopped one, else None; and by name the errors of runs that have failed,
    which take no other down."""
    from aha.cli.run_view import RunView, steps_bar
    from aha.studies.lab_page import write_results
    from aha.studies.method_lab import run_planned
    from aha.training.outcome import Listener

    failed: dict[str, str] = {}
    for number, planned in enumerate(runs, 1):
        if planned.done:
            continue
        console.print(f"\n[bold]{number}/{len(runs)}  {escape(planned.run.name)}[/bold]")
        with steps_bar(planned.cfg) as bar:
            listener = Listener(step=bar, validation=RunView(planned.cfg).validation)
            try:
                stopped_by = run_planned(planned, listener, ranks)
            except AhaError as error:
                failed[planned.run.name], stopped_by = " ".join(str(error).split()), None
        if stopped_by is not None:
            return stopped_by, failed
        if planned.run.name in failed:
            say_line(f"failed: {failed[planned.run.name]}")
        write_results(runs, out, failed)  # so that the page can be read during the lab
    return None, failed


# The columns of a lab in two tables, because one would need 140 characters.
RESULT = ("recipe", "seeds", "solved before", "solved after, 95 %", "verdict")
MORE = ("recipe", "pass@4", "pass@16", "tokens", "truncated", "entropy", "spent", "training")


def print_columns(rows: list[dict[str, str]], columns: tuple[str, ...]) -> None:
    """Some columns of the results; the headings may take two lines, a number never does."""
    shown = Table(box=None, padding=(0, 1, 0, 0))
    for name in columns:
        longest = max(len(row[name]) for row in rows)
        shown.add_column(name, min_width=None if name == "verdict" else longest)
    for row in rows:
        shown.add_row(*(escape(row[name]) for name in columns))
    console.print(shown)
    console.print()


def print_results(runs: "list[PlannedRun]", out: Path) -> None:
    from aha.studies.lab_page import HEADER, finished_results, table
    from aha.studies.verdicts import verdicts

    findings = finished_results(runs)
    if not findings:
        return
    decided, notes = verdicts(findings, runs[0].cfg.tokens)
    rows = [dict(zip(HEADER, row, strict=True)) for row in table(findings, decided)]
    for columns in (RESULT, MORE):
        print_columns(rows, columns)
    for note in notes:
        console.print(f"no verdict: {escape(note)}", soft_wrap=True)
    console.print(f"the results are in {escape(str(out / 'lab.html'))}", soft_wrap=True)
