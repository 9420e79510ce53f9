"""A model by its name, evaluated on a task by its name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aha.core.errors import ConfigError
from aha.eval.suite import evaluate, held_out, write_completions
from aha.model.folders import resolve_model
from aha.model.weights import load_model
from aha.rollout.engine import Sampling
from aha.rollout.factory import open_engine
from aha.tasks.catalog import make_task

SHORT_LIMIT, LONG_LIMIT = 320, 1024  # tokens; aha-tiny writes at most 320 about three numbers


@dataclass(frozen=True)
class EvalSettings:
    """Which problems, and how completions are drawn. `task_settings` are the keyword arguments of
    the task's constructor; `max_new_tokens` None: by the size of the puzzles."""

    task: str
    task_settings: dict[str, Any]
    split: str
    n: int
    seed: int
    group_size: int
    temperature: float
    max_new_tokens: int | None

    @property
    def token_limit(self) -> int:
        if self.max_new_tokens is not None:
            return self.max_new_tokens
        short = self.task == "countdown" and max(self.task_settings.get("numbers", (3,))) <= 3
        return SHORT_LIMIT if short else LONG_LIMIT


def evaluate_model(name: str, settings: EvalSettings, out: Path | None) -> dict[str, Any]:
    """The settings and the report's numbers as one row; every completion is written to `out`.

    Raises ConfigError where `out` exists or lies in no folder.
    """
    if out is not None and out.exists():
        raise ConfigError(f"{out} exists already", "a new file", "choose another --out")
    if out is not None and not out.parent.is_dir():
        raise ConfigError(f"no folder {out.parent}", "a file in a folder", f"mkdir -p {out.parent}")
    task = make_task(settings.task, settings.task_settings)
    model = load_model(resolve_model(name))
    prompts = held_out(task, model.tokenizer, settings.split, settings.n, settings.seed)
    sampling = Sampling(
        settings.token_limit, settings.group_size, settings.temperature, settings.seed
    )
    report = evaluate(open_engine(model.policy, model.tokenizer), task, prompts, sampling)
    if out is not None:
        write_completions(out, report)
    row: dict[str, Any] = {"model": name, "task": settings.task}
    if settings.task == "countdown":
        row |= {"numbers": task.numbers, "data": None}
    row |= settings.task_settings
    row |= {
        "split": settings.split,
        "n": settings.n,
        "seed": settings.seed,
        "group_size": settings.group_size,
        "temperature": settings.temperature,
        "max_new_tokens": settings.token_limit,
    }
    return row | report.numbers
