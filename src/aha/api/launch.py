"""Carries out what a Python call has asked for: begins or resumes a run, and runs it to its end.

It is the `Experiment` of the command line, with another listener.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aha.algo.recipe import begun, load_recipe
from aha.api.callbacks import Callbacks
from aha.api.data_files import DataFiles
from aha.api.logged_run import attach_loggers
from aha.api.progress import Progress
from aha.api.recipe_names import find_recipe, new_run_path
from aha.api.run_result import RunResult
from aha.core.config import RunConfig, TaskSection
from aha.core.errors import ConfigError
from aha.store.checksums import digests
from aha.store.run_folder import Run, check_new, is_tuning
from aha.tasks.catalog import provided
from aha.tasks.reward_function import WeightedRewards
from aha.tasks.reward_task import PREFIX, RewardTask
from aha.training.experiment import Experiment

# Another rank would begin with the user's script again, and has no function of this process.
ONE_RANK = 1
WEIGHTS = "task.options.weights"  # the key under which a recipe has those of several functions


@dataclass(frozen=True)
class Watching:
    """What a call wants to hear of its run."""

    callbacks: Callbacks
    show: bool
    budget: str | None
    loggers: Sequence[str]


def begin(
    recipe: str,
    overrides: dict[str, Any],
    rewards: WeightedRewards | None,
    files: DataFiles,
    name: str | None,
    watching: Watching,
) -> RunResult:
    """A new run of a recipe, or of reward functions with the recipe's settings for the rest."""
    path = find_recipe(recipe)
    new = {"task.data": files.data, "task.test_data": files.test_data}
    overrides = overrides | {key: str(file) for key, file in new.items() if file is not None}
    if rewards is not None:
        overrides["task.name"] = named_task(rewards)
        if rewards.weigh:
            overrides[WEIGHTS] = list(rewards.weights)
    cfg = load_recipe(path, overrides)
    folder = new_run_path(name, rewards.functions[0].name if rewards else path.stem)
    check_new(folder)
    if rewards is None:
        return carry_out(cfg, folder, None, watching)
    task = reward_task(cfg, rewards)
    with provided(task):
        return carry_out(cfg, folder, task, watching)


def go_on(
    path: Path,
    changes: Mapping[str, Any],
    accept: bool,
    rewards: WeightedRewards | None,
    files: DataFiles,
    watching: Watching,
) -> RunResult:
    """A stopped run, with its reward functions where it has some.

    `changes` are new values of recipe keys, `accept` takes changes of what the run depends on.
    """
    raw = Run.open(path).read("config.json")
    if is_tuning(raw):
        raise ConfigError(
            f"{path}, a run of `aha sft`", "a run of aha.train", "resume it with `aha train`"
        )
    cfg = begun(raw, f"{path}/config.json: ")
    changes = {**changes, **changed_files(cfg, files)}
    if rewards is not None and (rewards.weigh or "weights" in cfg.task.options):
        changes[WEIGHTS] = list(rewards.weights)
    progress = Progress(cfg, Run(path), watching.callbacks, watching.show, names_of(rewards))
    arguments = (path, progress.listener(), changes, accept, watching.budget, ONE_RANK)
    if rewards is None:
        return finish(Experiment.resume(*arguments), progress, watching.loggers)
    if cfg.task.name != named_task(rewards):
        raise ConfigError(
            f"{path} was trained on {cfg.task.name!r}, and the reward is {named_task(rewards)!r}",
            "the functions that it began with, in their order",
            f"aha.train(resume={str(path)!r}, reward=...) with those",
        )
    typed = {k.removeprefix("task."): v for k, v in changes.items() if k.startswith("task.")}
    known = {key: value for key, value in typed.items() if key in TaskSection.model_fields}
    section = cfg.task.model_copy(update=known)
    task = reward_task(cfg.model_copy(update={"task": section}), rewards)
    with provided(task):
        return finish(Experiment.resume(*arguments), progress, watching.loggers)


def changed_files(cfg: RunConfig, files: DataFiles) -> dict[str, str]:
    """The files of a resumed run that are other ones than it began with, by their keys: the same
    rows in another place are no change."""
    changes = {}
    for key, file in files._asdict().items():
        before = Path(getattr(cfg.task, key) or "")
        if file is None or file.absolute() == before:
            continue
        both = digests([before, file]) if before.is_file() else {}
        if len(set(both.values())) != 1:
            changes[f"task.{key}"] = str(file.absolute())
    return changes


def named_task(rewards: WeightedRewards) -> str:
    """The name of the task that reward functions are, in a recipe."""
    return PREFIX + rewards.name


def names_of(rewards: WeightedRewards | None) -> str:
    """The functions as a call has them; empty without any."""
    names = [function.name for function in rewards.functions] if rewards else []
    return names[0] if len(names) == 1 else f"[{', '.join(names)}]" if names else ""


def reward_task(cfg: RunConfig, rewards: WeightedRewards) -> RewardTask:
    """The task of a config whose task are these functions."""
    settings = cfg.task.settings()
    settings.pop("weights", None)  # of the functions, here only for the record
    unread = [key for key in settings if key not in ("data", "template", "test_data", "bad_rows")]
    if unread:
        raise ConfigError(
            f"reward functions with task.{unread[0]} {settings[unread[0]]!r}: they do not read it",
            "a template, files of data, bad_rows",
            f"leave {unread[0]} out",
        )
    return RewardTask(rewards, **settings)


def carry_out(cfg: RunConfig, path: Path, task: RewardTask | None, watching: Watching) -> RunResult:
    """A new run in `path`; the source of its reward functions is kept there."""
    rewards = task.rewards if task else None
    progress = Progress(cfg, Run(path), watching.callbacks, watching.show, names_of(rewards))
    experiment = Experiment.start(cfg, path, progress.listener(), budget=watching.budget)
    if task is not None:
        sources = {f.name: f.source() for f in task.rewards.functions}
        experiment.run.write("rewards.json", sources)
    return finish(experiment, progress, watching.loggers)


def finish(experiment: Experiment, progress: Progress, loggers: Sequence[str]) -> RunResult:
    """Run to the end. An interrupt comes out as `KeyboardInterrupt`, after the checkpoint, with the
    line that goes on."""
    progress.cfg = experiment.cfg  # a resumed run may have other steps
    try:
        attach_loggers(experiment, loggers)
        outcome = experiment.run_all()
    except KeyboardInterrupt:
        progress.stopped()
        raise
    finally:
        progress.done()
    if outcome.stopped_by is not None:
        progress.stopped()
        raise KeyboardInterrupt(f"stopped; go on with: {progress.resume_line}")
    return RunResult(experiment.run.path)
