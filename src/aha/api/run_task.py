"""The task that a call works on: the one that was named, or that of the run that was named."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aha.core.errors import AhaError, ConfigError, RunError
from aha.tasks.wording import KEYS

DEFAULT_TASK = "countdown"
FORM = ("template", *KEYS)  # the settings that say how a problem is asked, not which one


@dataclass(frozen=True)
class ChosenTask:
    """A task by name, and the keyword arguments of its constructor.

    `max_new_tokens` is the token limit of the run that the task is of, None where it is of none.
    """

    name: str
    settings: dict[str, Any]
    max_new_tokens: int | None = None


def choose_task(model: str, name: str | None, settings: dict[str, Any]) -> ChosenTask:
    """The task that a model is asked, and how: by the settings that were typed, then by those of
    the run `model`, then by the form that suits the model.

    Where a task is named, only the form of the run's prompts counts, and only where that task has
    one. Without a run the task is Countdown, in the form of `suited_form`, and so it is for a named
    task of a run whose config.json cannot be read. Without a name that raises `RunError`.
    """
    try:
        own = task_of_run(Path(model))
    except RunError:
        if name is None:
            raise
        own = None
    if own is None:
        chosen = name or DEFAULT_TASK
        return ChosenTask(chosen, suited_form(model, chosen) | settings)
    if name is None:
        return ChosenTask(own.name, own.settings | settings, own.max_new_tokens)
    form = {key: own.settings[key] for key in FORM if key in own.settings}
    if "template" not in settings_of(name):
        form.pop("template", None)
    return ChosenTask(name, form | settings)


def suited_form(model: str, task: str) -> dict[str, Any]:
    """The template for a model that no run says anything of: `instruct` for one with a chat
    template, `r1` for any other base of somebody else; nothing for our own bases, which read
    `plain`, for a task that has no template, and for a model that cannot be opened: that is told
    where it is."""
    if "template" not in settings_of(task):
        return {}
    from aha.model.folders import resolve_model
    from aha.model.weights import tokenizer_of

    try:
        tokenizer = tokenizer_of(resolve_model(model))
    except AhaError:
        return {}
    if tokenizer.reads_plain:
        return {}
    return {"template": "instruct" if tokenizer.template is not None else "r1"}


def settings_of(task: str) -> list[str]:
    """The names of a packaged task's own settings; none for any other, whose code is not ours to
    run only to ask."""
    from aha.tasks.catalog import PACKAGED, constructor, setting_names

    return setting_names(constructor(task))[0] if task in PACKAGED else []


def task_of_run(folder: Path) -> ChosenTask | None:
    """The task that a run was trained on, by the folder of the run, of its model or of one of its
    checkpoints; None for a fine-tuning, and where there is no run."""
    from aha.algo.recipe import begun
    from aha.model.folders import run_of
    from aha.store.run_folder import Run, is_tuning

    run = run_of(folder)
    if run is None or not (run / "config.json").is_file():
        return None
    raw = Run.open(run).read("config.json")
    if is_tuning(raw) or "model_type" in raw:  # a model's folder has a config.json of its own
        return None
    try:
        cfg = begun(raw, f"{run}/config.json: ")
    except ConfigError as error:
        raise RunError(error.got, error.wanted, "--task countdown, or the run's own task") from None
    return ChosenTask(cfg.task.name, cfg.task.settings(), cfg.rollout.max_new_tokens)
