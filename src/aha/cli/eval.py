"""`aha eval`: the solve rate of a model on held-out problems."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from aha.api.run_task import choose_task
from aha.cli.parameters import (
    AT_LEAST_0,
    AsJson,
    BadRowsRule,
    DataFile,
    EvaluatedBy,
    ModelName,
    Numbers,
    ProblemCount,
    ProblemSeed,
    Split,
    TaskOfModel,
    TaskOptions,
    Temperature,
    Whole,
    number_of_ranks,
    task_settings,
    whole,
)
from aha.cli.terminal_text import say_json, say_line
from aha.core.errors import ConfigError, shown
from aha.core.findings import Finding, worst_level

if TYPE_CHECKING:
    from aha.eval.thoughts import ThinkingNumbers
    from aha.rollout.thinking_budget import ThinkingBudget

TestedProblems = Annotated[
    ProblemCount | None,
    Parameter(help="How many problems. Default: 1000, or with --split all every row."),
]
ThinkMax = Annotated[
    int | None,
    Parameter(
        converter=whole,
        validator=AT_LEAST_0,
        help="Most tokens of a thought: there it is closed and the answer begun. Default with "
        "--think-min or --waits: max_new_tokens less 32.",
    ),
]
ThinkMin = Annotated[
    int | None,
    Parameter(
        converter=whole,
        validator=AT_LEAST_0,
        help="Least tokens of a thought: an earlier end is suppressed, and the model goes on "
        "thinking.",
    ),
]
Waits = Annotated[
    int | None,
    Parameter(
        converter=whole,
        validator=AT_LEAST_0,
        help="How many ends of a thought are suppressed at most. Default: with --think-min all "
        "that come too early, else none.",
    ),
]
WaitText = Annotated[
    str | None,
    Parameter(
        help='Text in place of an end that is suppressed. Default: "back " for aha-tiny and its '
        'kin, else "Wait".'
    ),
]


def evaluate(
    model: ModelName,
    *,
    task: TaskOfModel | None = None,
    options: TaskOptions = "",
    numbers: Numbers = None,
    split: Split = "test",
    n: TestedProblems = None,
    seed: ProblemSeed = 0,
    group_size: Whole = 1,
    temperature: Temperature = 1.0,
    max_new_tokens: Whole | None = None,
    data: DataFile = None,
    bad_rows: BadRowsRule = None,
    think_max: ThinkMax = None,
    think_min: ThinkMin = None,
    waits: Waits = None,
    wait_text: WaitText = None,
    ranks: EvaluatedBy = "1",
    as_json: AsJson = False,
    out: Path | None = None,
) -> None:
    """Solve rate of a model or run on held-out problems, with a 95 % interval.

    Exit code 1: too many grades failed, so that the solve rate says nothing.

    Parameters
    ----------
    group_size
        Completions of each problem; above 1, pass@k is reported too.
    max_new_tokens
        Token limit of a completion. Default: that of the run; of any other model, 320 for
        Countdown with three numbers and else 1024.
    out
        New file for all completions, as JSON lines.
    """
    from aha.eval.suite import EvalSettings, evaluate_model

    number = number_of_ranks(ranks)
    chosen = choose_task(model, task, task_settings(options, numbers, data, bad_rows))
    settings = EvalSettings(
        task=chosen.name,
        task_settings=chosen.settings,
        split=split,
        n=n,
        seed=seed,
        group_size=group_size,
        temperature=temperature,
        max_new_tokens=chosen.max_new_tokens if max_new_tokens is None else max_new_tokens,
        budget=budget_of(think_max, think_min, waits, wait_text),
    )
    findings: list[Finding] = []
    row = evaluate_model(model, settings, out, findings.append, number)
    show_result(model, row, findings, as_json)


def show_result(model: str, row: dict[str, Any], findings: list[Finding], as_json: bool) -> None:
    """Print the row and what was noticed; exit code 1 where too many grades failed."""
    from aha.cli.finding_lines import print_finding

    for finding in findings:
        print_finding(finding)
    if as_json:
        say_json(row)
    else:
        say_line(solve_rate_line(model, row))
    if worst_level(findings) == "fail":
        sys.exit(1)


def budget_of(
    think_max: int | None, think_min: int | None, waits: int | None, wait_text: str | None
) -> "ThinkingBudget | None":
    """The thinking budget of these options, None without any. Raises `ConfigError` for options
    that contradict each other."""
    from aha.rollout.thinking_budget import ThinkingBudget

    if wait_text is not None and think_min is None and not waits:
        raise ConfigError(
            f"--wait-text {shown(wait_text)} without an end that is suppressed",
            "--waits or --think-min beside it",
            "--waits 1",
        )
    if think_max is None and think_min is None and waits is None:
        return None
    return ThinkingBudget(think_max, think_min, waits, wait_text)


def solve_rate_line(model: str, row: dict[str, Any]) -> str:
    """The row for people."""
    tail = (
        f"on {tested(row)}, {row['mean_tokens']:.0f} tokens each, {row['truncated']:.1%} truncated"
    )
    if row["solve_rate"] is None:
        return f"{model}: no solve rate, because every grade failed, {tail}"
    low, high = row["interval"]
    text = f"{model}: solve rate {row['solve_rate']:.3f} [{low:.3f}, {high:.3f}] {tail}"
    # pass@1 is the solve rate.
    passed = {k: rate for k, rate in row.get("pass_at_k", {}).items() if k != "1"}
    text += "".join(f", pass@{k} {rate:.3f}" for k, rate in passed.items())
    return text + thinking_words(row["thinking"]) if "thinking" in row else text


def thinking_words(thinking: "ThinkingNumbers") -> str:
    """What a budget has done, as the end of the line."""
    least, most = thinking["min_tokens"], thinking["max_tokens"]
    text = (
        f"; {thinking['mean_tokens']:.0f} tokens of thinking each, {thinking['control']:.1%} of "
        f"the thoughts within {least} to {most} tokens, {thinking['closed_by_budget']:.1%} closed "
        "by the budget"
    )
    if thinking["mean_waits"]:
        text += f", {thinking['mean_waits']:.2f} waits each"
    if thinking["not_closed"]:
        text += f", {thinking['not_closed']:.1%} not closed"
    return text


def tested(row: dict[str, Any]) -> str:
    """How many problems were tested, of how many in the split, and in the file where it is one."""
    text = f"{row['problems']:,} problems"
    if row["available"] is None:
        return text
    if row["available"] > row["problems"]:
        text = f"{row['problems']:,} of {row['available']:,} problems"
    if row["split"] == "all":
        return f"{text} of the file"
    return f"{text} of the split {row['split']} (--split all takes all {row['rows']:,} of the file)"
