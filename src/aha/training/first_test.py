"""The test before training, read from the run: it is made once, whatever happens to the run."""

import math
from collections.abc import Sequence
from typing import Any, cast

from aha.core.errors import RunError
from aha.core.records import Completion, Finish, Graded, Prompt
from aha.eval.suite import EvalNumbers, EvalReport
from aha.store.run_folder import Run, read_rows


def stored_test(run: Run, name: str, prompts: Sequence[Prompt]) -> EvalReport | None:
    """The test `name` that the run has made on these prompts; None where it is not there, not
    whole, or of other prompts.

    The tokens of its completions were not kept: there are as many, all -1, with NaN for log-probs.
    """
    try:
        numbers = run.read(f"{name}.json")
    except RunError:
        return None
    rows = list(read_rows(run.completions / f"{name}.jsonl"))
    try:
        same = [row["prompt"] for row in rows] == [prompt.text for prompt in prompts]
        if not same or not numbers.keys() >= EvalNumbers.__required_keys__:
            return None
        graded = [[graded_row(row, prompt)] for row, prompt in zip(rows, prompts, strict=True)]
    except (LookupError, TypeError, AttributeError):
        return None
    return EvalReport(cast(EvalNumbers, numbers), graded)


def graded_row(row: dict[str, Any], prompt: Prompt) -> Graded:
    """A row of a file of completions as the record that it was written from."""
    count, finish = int(row["tokens"]), cast(Finish, row["finish"])
    unknown = (-1,) * count, (math.nan,) * count
    completion = Completion(prompt, *unknown, str(row["completion"]), finish)
    return Graded(row["reward"], bool(row["correct"]), str(row["reason"]), {}, completion)
