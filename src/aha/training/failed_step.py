"""The rows of a step that a fault has ended, kept for looking.

runs/NAME/failed_step/
  step_000007.json   the fault, and the numbers of the step until then
  step_000007.jsonl  its completions token by token, with rewards and advantages

JSON has no NaN and no infinity: here they are the texts "nan", "inf" and "-inf".
"""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from aha.core.errors import RunStopped
from aha.core.findings import failure_of, finding_row
from aha.model.tokenizer import Tokenizer
from aha.store.durable import write_text
from aha.store.run_folder import Run
from aha.training.step_attempt import StepAttempt
from aha.training.watchers import completion_rows

FOLDER = "failed_step"


def keep_failed_step(run: Run, attempt: StepAttempt, fault: RunStopped, tok: Tokenizer) -> None:
    """Write the fault and the rows of its step into the run. No other file is touched."""
    folder = run.path / FOLDER
    folder.mkdir(exist_ok=True)
    numbers = attempt.collected.numbers if attempt.collected else {}
    summary = {"step": attempt.version, **finding_row(failure_of(fault)), "numbers": numbers}
    name = f"step_{attempt.version:06d}"
    for path, rows in (
        (folder / f"{name}.json", [summary]),
        (folder / f"{name}.jsonl", attempt_rows(attempt, tok)),
    ):
        text = "".join(json.dumps(as_json(row), allow_nan=False) + "\n" for row in rows)
        write_text(path, text)


def attempt_rows(attempt: StepAttempt, tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    """Every completion of the step, as in completions/, all token by token. Without "advantage"
    where the step failed before it had any."""
    report = attempt.report({})
    estimated = bool(report.advantages)
    if not estimated:
        report = replace(report, advantages=tuple((0.0,) * len(g) for g in report.groups))
    for row in completion_rows(report, tokenizer, len(report.groups)):
        if not estimated:
            del row["advantage"]
        yield row


def as_json(value: Any) -> Any:
    """The same value, with a text in place of each number that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: as_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(inner) for inner in value]
    return value
