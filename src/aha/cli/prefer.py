"""`aha prefer`: a model learns which of two completions is better, as the shorter right one."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from aha.api.recipe_names import new_run_path
from aha.api.run_task import choose_task
from aha.cli.distill import free_name_of_both, say_all, told_name
from aha.cli.finding_lines import print_finding
from aha.cli.parameters import (
    TASKS,
    BadRowsRule,
    ModelName,
    Numbers,
    TaskName,
    TaskOptions,
    Whole,
    task_settings,
)
from aha.cli.sft import Epochs, OfUpdate, say_tuning
from aha.cli.teaching_options import (
    BothNames,
    Pairing,
    PairOptions,
    Tests,
    TokenLimit,
    Training,
    TrainingOptions,
)
from aha.cli.terminal_text import say

TestedTask = Annotated[
    TaskName,
    Parameter(
        help=f"What the tests ask: {TASKS} Default: the task of BASE's run; of any other model, "
        "countdown."
    ),
]


def prefer(
    base: ModelName,
    *,
    data: Path | None = None,
    pairing: Pairing = None,
    name: BothNames = None,
    seed: Whole = 0,
    task: TestedTask | None = None,
    options: TaskOptions = "",
    numbers: Numbers = None,
    task_data: str | None = None,
    bad_rows: BadRowsRule = None,
    tests: Tests = 1_000,
    max_new_tokens: TokenLimit = None,
    epochs: Epochs = 1,
    examples: OfUpdate = 32,
    training: Training = None,
) -> None:
    """Teach a model which of two completions is better, such as the shorter right one.

    The pairs are in data/NAME/, the run is runs/NAME/. The same command with --name NAME goes on
    where it was stopped.

    Parameters
    ----------
    data
        A run, whose completions are made into pairs; a file of graded completions, as `aha eval
        MODEL --split train --group-size 8 --out FILE` writes it; or a file of pairs: prompt,
        chosen, rejected. Default: BASE, where it is a run.
    seed
        Seed of the pairs' order.
    task_data
        File of problems, for a task that reads one.
    """
    from aha.distill.distill_job import TEST_SEED
    from aha.eval.suite import EvalSettings
    from aha.sft.pair_rows import PairRules

    pairing, training = pairing or PairOptions(), training or TrainingOptions()
    chosen = choose_task(base, task, task_settings(options, numbers, task_data, bad_rows))
    limit = max_new_tokens or chosen.max_new_tokens
    test = EvalSettings(chosen.name, chosen.settings, "test", tests, TEST_SEED, 1, 1.0, limit)
    rules = PairRules(pairing.pairs != "right", pairing.pairs != "shorter", pairing.most)
    strengths = {key: getattr(pairing, key) for key in ("method", "beta", "gamma", "nll")}
    raw = {"kind": "prefer", "preference": strengths}
    raw |= training.raw(base, epochs, examples, seed)
    run = new_run_path(name or free_name_of_both("shorter"), "shorter")
    source = data or Path(base)
    with told_name(run.name, name):
        learn_pairs(source, (rules, pairing.last), run, test, raw, training.budget)


def learn_pairs(
    source: Path,
    making: tuple[Any, int],
    run: Path,
    test: Any,
    raw: dict[str, Any],
    budget: str | None,
) -> None:
    """Make the pairs, train, test, and print what came of it."""
    from aha.distill.shortening import collect_pairs, lengths_line
    from aha.distill.tested_training import TrainingTests, check_goes_on, open_training
    from aha.sft.tuning_config import tuning_config

    base = raw["model"]["path"]
    check_goes_on(run, tuning_config(raw))  # what cannot be is an error before a test is made
    folder = Path("data") / run.name
    job = {"base": base, "test": asdict(test)}
    path, stages = collect_pairs(source, *making, folder, job)
    say_all(stages.lines())
    for stage in stages.stages:
        say(lengths_line(stage.rows))
    tests = TrainingTests(folder, run, test, print_finding)
    tests.before(base)
    tuning = open_training(tuning_config({**raw, "data": str(path)}), run, say, budget)
    if tuning is not None:
        say_tuning(tuning)
    change = tests.after()
    say_all(change.lines() if change else [])
