"""`aha study NAME`: an experiment over a grid of cells, with intervals and verdicts."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.markup import escape

from aha.api.run_task import ChosenTask, choose_task
from aha.cli.lab import seed_numbers
from aha.cli.parameters import (
    AT_LEAST_1,
    TASKS,
    DryRun,
    Flag,
    Numbers,
    Split,
    TaskName,
    TaskOptions,
    UsdPerHour,
    Watts,
    run_words,
    task_settings,
    whole,
)
from aha.cli.terminal_text import console, say_line
from aha.core.errors import ConfigError, shown

if TYPE_CHECKING:
    from aha.studies.study_frame import Machine, StudyFolder

StudiedModel = Annotated[
    str,
    Parameter(
        help="Model or run; any number of them. Several with commas are the seeds of one method: "
        "runs/a,runs/b,runs/c.",
        completer=lambda context: ["aha-tiny", *run_words(context)],
    ),
]
StudiedTask = Annotated[
    TaskName, Parameter(help=f"{TASKS} Default: that of the runs; without any run, countdown.")
]
ProblemNumber = Annotated[
    int | None,
    Parameter(
        converter=whole,
        validator=AT_LEAST_1,
        help="How many problems. Default: 1000, with --quick 100.",
    ),
]
Seeds = Annotated[str, Parameter(help="Separated by commas; a verdict needs three.")]
Budgets = Annotated[
    str | None,
    Parameter(
        help="Most tokens of a thought, separated by commas. Default: eight up to max_new_tokens "
        "less 32, with --quick four."
    ),
]
WaitNumbers = Annotated[
    str | None,
    Parameter(
        help="How many ends of a thought are suppressed, separated by commas. Default: 1,2,4,6, "
        "with --quick 1,2."
    ),
]
CompletionNumber = Annotated[
    int | None,
    Parameter(
        converter=whole,
        validator=AT_LEAST_1,
        help="Completions of each problem without a budget. Default: 16, with --quick 4.",
    ),
]
TokenLimit = Annotated[
    int | None,
    Parameter(
        converter=whole,
        validator=AT_LEAST_1,
        help="Token limit of a completion. Default: as of `aha eval`, and the same for all models.",
    ),
]
StudyOut = Annotated[
    Path | None,
    Parameter(help="Folder of the study. Default: runs/studies/NAME, with --quick NAME-quick."),
]
StudyPlan = Annotated[DryRun, Parameter(help="Print the cells with time and money, and exit.")]
Quick = Annotated[
    Flag,
    Parameter(help="A smoke run of minutes: fewer problems, budgets, waits and completions."),
]
QUICK_PROBLEMS, PROBLEMS = 100, 1_000
QUICK_COMPLETIONS, COMPLETIONS = 4, 16
QUICK_WAITS, WAITS = "1,2", "1,2,4,6"  # those of s1


def thinking(
    *models: StudiedModel,
    task: StudiedTask | None = None,
    options: TaskOptions = "",
    numbers: Numbers = None,
    split: Split = "test",
    n: ProblemNumber = None,
    seeds: Seeds = "0,1,2",
    budgets: Budgets = None,
    waits: WaitNumbers = None,
    completions: CompletionNumber = None,
    max_new_tokens: TokenLimit = None,
    out: StudyOut = None,
    dry_run: StudyPlan = False,
    quick: Quick = False,
    usd_per_hour: UsdPerHour = None,
    watts: Watts = None,
) -> None:
    """Study what tokens of thinking buy: budgets, waits, several thoughts, and searches beside.

    Writes OUT/study.html and OUT/study.json; after a stop, the same command continues.
    """
    from aha.rollout.thinking_budget import ThinkingBudget
    from aha.studies.study_frame import Machine, StudyFolder
    from aha.studies.thinking_cells import ThinkingGrid, default_budgets, subjects_of
    from aha.studies.thinking_study import ThinkingStudy

    subjects = subjects_of(models)
    typed = task_settings(options, numbers, None)
    names = [model for subject in subjects for model in subject.models]
    chosen = shared_task(names, task, typed, max_new_tokens)
    limit = chosen.max_new_tokens or default_limit(chosen)
    counts = number_list(waits if waits is not None else QUICK_WAITS if quick else WAITS, "waits")
    grid = ThinkingGrid(
        subjects=subjects,
        seeds=tuple(seed_numbers(seeds)),
        problems=n or (QUICK_PROBLEMS if quick else PROBLEMS),
        budgets=default_budgets(ThinkingBudget().most(limit), quick)
        if budgets is None
        else number_list(budgets, "budgets"),
        waits=counts,
        completions=completions or (QUICK_COMPLETIONS if quick else COMPLETIONS),
        max_new_tokens=limit,
        task=chosen.name,
        task_settings=chosen.settings,
        split=split,
    )
    path = out or study_path(ThinkingStudy.name, quick)
    folder = StudyFolder(ThinkingStudy(grid), path, shlex.join(["aha", *sys.argv[1:]]))
    run_study(folder, Machine.here(usd_per_hour, watts), dry_run)


def study_path(name: str, quick: bool) -> Path:
    """Where a study is without `--out`. A smoke run has a folder of its own: the whole study would
    be refused in it."""
    return Path("runs/studies") / (f"{name}-quick" if quick else name)


def number_list(text: str, name: str) -> tuple[int, ...]:
    """Whole numbers with commas between them. Raises `ConfigError` for anything else."""
    try:
        return tuple(int(word) for word in text.split(",") if word.strip())
    except ValueError:
        example = QUICK_WAITS if name == "waits" else "16,64"
        fix = f"--{name} {example}"
        raise ConfigError(f"--{name} {shown(text)}", "whole numbers", fix) from None


def shared_task(
    names: list[str], task: str | None, typed: dict[str, object], limit: int | None
) -> ChosenTask:
    """The one task of all models, with their token limit. Raises `ConfigError` where their runs
    were on different ones and none was named; a model that is no run takes that of the others."""
    chosen = [choose_task(name, task, typed) for name in names]
    runs = [one for one in chosen if one.max_new_tokens is not None] or chosen
    for name, other in zip(names, chosen, strict=True):
        of_run = other.max_new_tokens is not None
        if of_run and (other.name, other.settings) != (runs[0].name, runs[0].settings):
            raise ConfigError(
                f"{name} was trained on another task than the models before it",
                "models that are compared on the same problems",
                "--task countdown --numbers 3",
            )
    limits = {one.max_new_tokens for one in runs}
    if limit is None and len(limits) > 1:
        raise ConfigError(
            f"token limits {' and '.join(map(str, sorted(filter(None, limits))))} of these runs",
            "one limit for all models",
            f"--max-new-tokens {max(filter(None, limits))}",
        )
    return ChosenTask(runs[0].name, runs[0].settings, limit or runs[0].max_new_tokens)


def default_limit(chosen: ChosenTask) -> int:
    """The token limit of `aha eval` for this task."""
    from aha.eval.suite import EvalSettings

    settings = (chosen.name, chosen.settings, "test", None, 0, 1, 1.0, None)
    return EvalSettings(*settings).token_limit


def run_study(
    folder: "StudyFolder", machine: "Machine", dry_run: bool, processes: int | None = None
) -> None:
    """Carry out any study: print its plan, or do what is not done. Exit code 1: a cell failed; 128
    and the number of a signal: it has stopped the study."""
    from aha.plan.machines import money

    cells = folder.to_do
    seconds = folder.planned_seconds(cells, machine)
    cost = machine.cost(seconds)
    plan = (
        f"{len(cells)} of {len(folder.study.cells)} cells to do, about {seconds / 60:.1f} minutes, "
        f"{money(cost.usd)}, {cost.kwh:.4f} kWh"
    )
    if dry_run:
        for line in folder.plan_lines(machine):
            say_line(line)
        say_line(plan)
        return
    console.print(f"[bold]aha study {folder.study.name}[/bold]  {escape(plan)}", soft_wrap=True)
    stopped_by = folder.run_cells(machine, say_line, processes)
    if stopped_by is not None:
        say_line("stopped; the same command continues")
        sys.exit(128 + stopped_by)
    page = folder.study.page(folder.done)
    for line in [*page.verdicts, *page.notes]:
        say_line(line)
    say_line(f"the results are in {folder.out / 'study.html'}")
    if folder.failed:
        say_line(f"{len(folder.failed)} cells failed; the same command tries them again")
        sys.exit(1)
