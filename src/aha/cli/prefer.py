"""`aha prefer`: a model learns which of two completions is better, such as the shorter right one."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter, validators

from aha.api.recipe_names import new_run_path
from aha.api.run_task import choose_task
from aha.cli.distill import free_name_of_both, say_all
from aha.cli.finding_lines import print_finding
from aha.cli.parameters import (
    AT_LEAST_0,
    BadRowsRule,
    Budget,
    Count,
    ModelName,
    Natural,
    Numbers,
    TaskName,
    TaskOptions,
    UsdPerHour,
    Watts,
    Whole,
    task_settings,
)
from aha.cli.sft import (
    Dtype,
    Epochs,
    Lr,
    MicroBatch,
    OfUpdate,
    Rank,
    TunedOn,
    Warmup,
    model_keys,
    say_tuning,
)
from aha.cli.terminal_text import say

Strength = Annotated[float | None, Parameter(validator=AT_LEAST_0)]


def prefer(
    base: ModelName,
    *,
    data: Path | None = None,
    last: Count = 20,
    pairs: Literal["both", "shorter", "right"] = "both",
    most: Annotated[float, Parameter(validator=validators.Number(gt=0, lte=1))] = 0.8,
    method: Literal["simpo", "dpo"] = "simpo",
    beta: Strength = None,
    gamma: Strength = None,
    nll: Annotated[float, Parameter(validator=AT_LEAST_0)] = 0.0,
    name: str | None = None,
    seed: Whole = 0,
    task: TaskName | None = None,
    options: TaskOptions = "",
    numbers: Numbers = None,
    task_data: str | None = None,
    bad_rows: BadRowsRule = None,
    tests: Natural = 1_000,
    max_new_tokens: Count | None = None,
    epochs: Epochs = 1,
    examples: OfUpdate = 32,
    lr: Lr = None,
    warmup: Warmup = None,
    lora_rank: Rank = None,
    device: TunedOn = None,
    dtype: Dtype = None,
    micro_batch_tokens: MicroBatch = None,
    checkpoint_every: Natural = 100,
    budget: Budget = None,
    usd_per_hour: UsdPerHour = None,
    watts: Watts = None,
) -> None:
    """Teach a model which of two completions is better: its own shortest right one over the longest
    right one, and over a wrong one.

    The pairs are in data/NAME/, the run is runs/NAME/. The same command again goes on where it was
    stopped.

    Parameters
    ----------
    data
        A run, whose completions are made into pairs; a file of graded completions, as `aha eval
        --split train --group-size 8 --out FILE` writes it; or a file of pairs: prompt, chosen,
        rejected. Default: BASE, where it is a run.
    last
        Steps of a run whose completions are taken, the last ones.
    pairs
        shorter: shortest right over longest right; right: shortest right over shortest wrong; both.
    most
        A pair of two right completions is made where the shorter has at most this share of the
        tokens of the longer.
    method
        simpo: the mean log-prob is the score; dpo: the ratio to the model before training.
    beta
        Strength of the scores. Default: 2 for simpo, 0.1 for dpo.
    gamma
        Margin that the chosen one has to win by. Default: 0.5 for simpo, 0 for dpo.
    nll
        Weight of the chosen completions' own loss beside that of the pairs.
    name
        Name of both folders; without it, shorter, numbered.
    seed
        Seed of the pairs' order and of the tests.
    task
        What the tests ask. Default: the task of BASE's run; of any other model, countdown.
    task_data
        File of problems, for a task that reads one.
    tests
        Held-out problems before and after; 0: no test.
    max_new_tokens
        Token limit of the tests. Default: that of BASE's run.
    checkpoint_every
        Steps between checkpoints; 0: at the end alone.
    """
    from aha.eval.suite import EvalSettings
    from aha.sft.pair_rows import PairRules

    settings = task_settings(options, numbers, task_data, bad_rows)
    chosen = choose_task(base, task, settings)
    limit = max_new_tokens or chosen.max_new_tokens
    test = EvalSettings(chosen.name, chosen.settings, "test", tests, seed, 1, 1.0, limit)
    rules = PairRules(pairs != "right", pairs != "shorter", most)
    model = {"path": base, "device": device, "lora_rank": lora_rank}
    optim = {"lr": lr, "warmup": warmup, "dtype": dtype, "micro_batch_tokens": micro_batch_tokens}
    strengths = {"method": method, "beta": beta, "gamma": gamma, "nll": nll}
    raw: dict[str, Any] = {"kind": "prefer", "preference": strengths, "epochs": epochs}
    raw |= {"examples": examples, "seed": seed, "checkpoint_every": checkpoint_every, "data": ""}
    raw |= {"usd_per_hour": usd_per_hour, "watts": watts}
    raw |= {"model": model_keys(model), "optim": model_keys(optim)}
    run = new_run_path(name or free_name_of_both("shorter"), "shorter")
    learn_pairs(data or Path(base), (rules, last), run, test, raw, budget)


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
    from aha.distill.tested_training import TrainingTests, open_training
    from aha.sft.tuning_config import tuning_config

    base = raw["model"]["path"]
    tuning_config(raw)  # settings that cannot be are an error before a test is made
    folder = Path("data") / run.name
    path, stages = collect_pairs(source, *making, folder)
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
