"""`aha select`: a few examples out of a large pool."""

import shlex
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from aha.api.recipe_names import new_run_path
from aha.api.run_task import choose_task
from aha.cli.distill import free_name_of_both, progress_lines, say_all, told_name
from aha.cli.finding_lines import print_finding
from aha.cli.own_command import own_command
from aha.cli.parameters import (
    AT_LEAST_1,
    TASKS,
    BadRowsRule,
    Count,
    DataFile,
    Numbers,
    TaskName,
    TaskOptions,
    Temperature,
    Whole,
    task_settings,
    whole,
)
from aha.cli.terminal_text import say

Examples = Annotated[
    int, Parameter(converter=whole, validator=AT_LEAST_1, help="How many examples.")
]

SolvedTask = Annotated[
    TaskName,
    Parameter(
        help=f"What grades a solver: {TASKS} Default: the task of the first solver's run, else "
        "countdown."
    ),
]


def select(
    pool: Path,
    *,
    n: Examples = 1_000,
    by: Literal["s1", "random", "longest", "diverse", "all"] = "s1",
    solver: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    domain: str | None = None,
    name: str | None = None,
    seed: Whole = 0,
    tries: Count = 1,
    temperature: Temperature = 1.0,
    max_new_tokens: Count | None = None,
    task: SolvedTask | None = None,
    options: TaskOptions = "",
    numbers: Numbers = None,
    data: DataFile = None,
    bad_rows: BadRowsRule = None,
) -> None:
    """Select N examples of a pool by quality, difficulty and diversity, or by a control.

    data/NAME/ has a file for each stage and the selected ones in selected.jsonl, for `aha sft`.

    Parameters
    ----------
    pool
        File of examples in any form that `aha sft` reads.
    by
        s1: a domain at random, then one of its examples, longer ones likelier. Controls: random,
        longest, diverse (a domain at random, then any of it), all. All of them after the stages
        quality and, with --solver, difficulty.
    solver
        Models that try each problem; examples that one of them solves are dropped.
    domain
        Column with the domain of an example. Default: for number puzzles how many numbers and which
        operations, else none.
    name
        Name of the folder in data/; without it, selected, numbered. What was stopped goes on under
        its name.
    seed
        Seed of what is drawn, and of the solvers' tries.
    tries
        Tries of a solver at each problem; one right one is enough.
    max_new_tokens
        Token limit of a solver. Default: that of its run; else 320 for Countdown with three
        numbers and 1024 for anything else.
    """
    settings = task_settings(options, numbers, data, bad_rows)
    chosen = choose_task(solver[0] if solver else "aha-tiny", task, settings)
    folder = Path("data") / new_run_path(name or free_name_of_both("selected"), "selected").name
    limits = (max_new_tokens or chosen.max_new_tokens, tries, temperature, seed)
    solve = ([*(solver or [])], chosen, limits)
    with told_name(folder.name, name):
        select_into(folder, pool, (n, by, seed), domain, solve)


def select_into(
    folder: Path,
    pool: Path,
    how: tuple[int, str, int],
    column: str | None,
    solve: tuple[list[str], Any, tuple[int | None, int, float, int]],
) -> None:
    """Make and print every stage."""
    from aha.distill.distill_job import open_folder
    from aha.distill.selection import (
        check_column,
        domain_line,
        domain_of,
        good_ones,
        read_pool,
        select,
    )
    from aha.distill.stages import StageFolder
    from aha.sft.data_cost import cost_of_data, write_data_cost

    n, by, seed = how
    solvers, chosen, limits = solve
    rows = read_pool(pool)
    check_column(rows.rows, column)
    job = {"pool": str(pool), "n": n, "by": by, "seed": seed, "domain": column}
    job |= {"solvers": solvers, "limits": limits, "task": [chosen.name, chosen.settings]}
    open_folder(folder, job)
    stages = StageFolder(folder)
    stages.note(rows, str(pool))
    good = good_ones(rows.rows)
    stages.write(good)
    costs = [(one["cost_usd"], one["kwh"]) for one in cost_of_data(pool)]
    if solvers:
        hard, paid = difficulty_of(good.rows, folder, solvers, chosen, limits)
        stages.write(hard)
        costs += paid
    else:
        hard = good

    def domain(row: dict[str, Any]) -> str:
        return domain_of(row, column)

    selected = select(hard.rows, n, by, seed, domain)
    path = stages.write(selected)
    say_all(stages.lines())
    if by in ("s1", "diverse"):
        say(domain_line(hard.rows, domain))
    if costs:  # of a pool that nobody has priced, and without a solver, nothing is known
        usd, kwh = (None if None in side else sum(side) for side in zip(*costs, strict=True))
        write_data_cost(path, f"{len(selected.rows)} of {pool.name}", usd, kwh)
    learn = f"{own_command()} sft MODEL --data {shlex.quote(str(path))}"
    say(f"examples are in {path}; `{learn}` learns them")


def difficulty_of(
    rows: list[dict[str, Any]],
    folder: Path,
    solvers: list[str],
    chosen: Any,
    limits: tuple[int | None, int, float, int],
) -> tuple[Any, list[tuple[float | None, float | None]]]:
    """(the stage, what the solvers' tries have cost)."""
    from aha.distill.difficulty import Solver, unread
    from aha.distill.selection import hard_ones, problems_in
    from aha.eval.suite import EvalSettings
    from aha.rollout.engine import Sampling
    from aha.tasks.catalog import make_task

    limit, tries, temperature, seed = limits
    test = EvalSettings(chosen.name, chosen.settings, "train", 1, seed, tries, temperature, limit)
    sampling = Sampling(test.token_limit, tries, temperature, seed)
    task = make_task(chosen.name, chosen.settings)
    problems, progress = problems_in(rows, task), progress_lines()
    results, costs = {}, []
    for name in solvers:
        solver = Solver(name, sampling, folder / "solvers.jsonl")
        results[name] = solver.solved(problems, task, partial(progress, name))
        if finding := unread(name, results[name], test.token_limit):
            print_finding(finding)
        costs.append(solver.cost())
    return hard_ones(rows, task, results), costs
