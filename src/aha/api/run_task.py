"""The task that a call works on: the one that was named, or that of the run that was named."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aha.core.errors import ConfigError, RunError

DEFAULT_TASK = "countdown"


@dataclass(frozen=True)
class ChosenTask:
    """A task by name, and the keyword arguments of its constructor.

    `max_new_tokens` is the token limit of the run that the task is of, None where it is of none.
    """

    name: str
    settings: dict[str, Any]
    max_new_tokens: int | None = None


def choose_task(model: str, name: str | None, settings: dict[str, Any]) -> ChosenTask:
    """The task `name` with the settings that were typed. Without a name that of the run `model`,
    with the run's settings under those that were typed; without a run, Countdown.

    Raises `RunError` for a run whose config.json cannot be read.
    """
    if name is not None:
        return ChosenTask(name, settings)
    own = task_of_run(Path(model))
    if own is None:
        return ChosenTask(DEFAULT_TASK, settings)
    return ChosenTask(own.name, own.settings | settings, own.max_new_tokens)


def task_of_run(folder: Path) -> ChosenTask | None:
    """The task that a run was trained on; None for a fine-tuning, and where there is no run."""
    from aha.algo.recipe import begun
    from aha.sft.tuning_config import is_tuning
    from aha.store.run_folder import Run

    if not (folder / "config.json").is_file() or not (folder / "checkpoints").is_dir():
        return None  # a model's folder has a config.json too, and its own
    raw = Run.open(folder).read("config.json")
    if is_tuning(raw):
        return None
    try:
        cfg = begun(raw, f"{folder}/config.json: ")
    except ConfigError as error:
        raise RunError(
            error.got, error.wanted, "choose a task: --task countdown, or the run's own"
        ) from None
    return ChosenTask(cfg.task.name, cfg.task.settings(), cfg.rollout.max_new_tokens)
