"""Evaluates a model for a Python call, by the function that `aha eval` calls."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from aha.api.data_files import data_files
from aha.api.recipe_names import overrides_from
from aha.api.run_task import choose_task
from aha.core.config import TaskSection
from aha.core.errors import ConfigError
from aha.core.findings import Finding, warn
from aha.eval.suite import MOST_COMPLETIONS, EvalSettings, evaluate_model
from aha.store.guarded_files import read_all_rows
from aha.tasks.catalog import provided
from aha.tasks.reward_function import WeightedRewards
from aha.tasks.reward_task import RewardTask

Row = dict[str, Any]
Given = tuple[Any, Any, object, Mapping[str, str] | None, Path]


class Problems(NamedTuple):
    """Which problems are asked, and how; as in `EvalSettings`."""

    split: str
    n: int | None
    seed: int
    group_size: int
    temperature: float
    max_new_tokens: int | None


def evaluate_on(
    model: str,
    task: str | Path | Mapping[str, Any] | None,
    given: Given,
    problems: Problems,
    out: str | Path | None,
) -> tuple[Row, list[Row], list[Finding]]:
    """(numbers, completions, findings) of a model.

    `given` are reward, weights, data, columns, and a folder for files of this call alone.
    """
    reward, weights, data, columns, folder = given
    keys = overrides_from({"task": task})
    typed = {key.removeprefix("task."): value for key, value in keys.items()}
    name = typed.pop("name", None)
    known = TaskSection.model_fields
    unknown = next((key for key in typed if key.partition(".")[0] not in known), None)
    if unknown:
        raise ConfigError(
            f"task={{{unknown!r}: ...}}",
            f"keys of the section [task]: {', '.join(TaskSection.model_fields)}",
            f"leave {unknown} out",
        )
    typed = {key.removeprefix("options."): value for key, value in typed.items()}
    files = data_files(data, None, columns, folder)
    if files.data is not None:
        typed["data"] = str(files.data)
    chosen = choose_task(model, name, typed)
    findings: list[Finding] = []
    with ExitStack() as stack:
        name, settings = chosen.name, chosen.settings
        if reward is not None:
            task_made = reward_task_for(WeightedRewards.of(reward, weights), settings)
            stack.enter_context(provided(task_made))
            name = task_made.name
        limit = problems.max_new_tokens
        eval_settings = EvalSettings(
            task=name,
            task_settings=settings,
            split=problems.split,
            n=problems.n,
            seed=problems.seed,
            group_size=problems.group_size,
            temperature=problems.temperature,
            max_new_tokens=chosen.max_new_tokens if limit is None else limit,
        )
        path = folder / "completions.jsonl" if out is None else Path(out)
        numbers = evaluate_model(model, eval_settings, path, findings.append)
        return numbers, written_completions(path, findings), findings


def written_completions(path: Path, findings: list[Finding]) -> list[Row]:
    """All completions that this call has written; what cannot be read of them goes to the
    findings."""
    rows, faults = read_all_rows(path, MOST_COMPLETIONS, path.stat().st_size)
    findings += [warn(fault, "read the file itself, which out=FILE keeps") for fault in faults]
    return rows


def reward_task_for(rewards: WeightedRewards, settings: Row) -> RewardTask:
    """The task of functions with those settings of a run or call that it reads."""
    read = ("data", "template", "test_data", "bad_rows")
    return RewardTask(rewards, **{key: settings[key] for key in read if key in settings})
