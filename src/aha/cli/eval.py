"""`aha eval`: the solve rate of a model on held-out problems."""

import json
import sys
from pathlib import Path
from typing import Any

from aha.cli.parameters import (
    AsJson,
    DataFile,
    ModelName,
    Numbers,
    ProblemCount,
    ProblemSeed,
    Split,
    TaskName,
    TaskOptions,
    Temperature,
    task_settings,
)
from aha.core.findings import Finding, worst_level


def print_finding(finding: Finding) -> None:
    """On the error stream: the output may be JSON."""
    print(f"aha: {finding.message}; fix: {finding.fix}", file=sys.stderr)


def evaluate(
    model: ModelName,
    *,
    task: TaskName = "countdown",
    options: TaskOptions = "",
    numbers: Numbers = None,
    split: Split = "test",
    n: ProblemCount = 1000,
    seed: ProblemSeed = 0,
    group_size: int = 1,
    temperature: Temperature = 1.0,
    max_new_tokens: int | None = None,
    data: DataFile = None,
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
        Token limit of a completion; without it, 320 for Countdown with three numbers, else 1024.
    out
        New file for all completions, as JSON lines.
    """
    from aha.eval.suite import EvalSettings, evaluate_model

    settings = EvalSettings(
        task=task,
        task_settings=task_settings(options, numbers, data),
        split=split,
        n=n,
        seed=seed,
        group_size=group_size,
        temperature=temperature,
        max_new_tokens=max_new_tokens,
    )
    findings: list[Finding] = []
    row = evaluate_model(model, settings, out, findings.append)
    for finding in findings:
        print_finding(finding)
    print(json.dumps(row) if as_json else solve_rate_line(model, row))
    if worst_level(findings) == "fail":
        sys.exit(1)


def solve_rate_line(model: str, row: dict[str, Any]) -> str:
    """The row for people."""
    tail = (
        f"on {row['problems']} problems, {row['mean_tokens']:.0f} tokens each, "
        f"{row['truncated']:.1%} truncated"
    )
    if row["solve_rate"] is None:
        return f"{model}: no solve rate, because every grade failed, {tail}"
    low, high = row["interval"]
    return f"{model}: solve rate {row['solve_rate']:.3f} [{low:.3f}, {high:.3f}] {tail}"
