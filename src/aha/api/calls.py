"""The functions of `import aha`: train, evaluate, load, generate, open_run. See docs/python.md.

Modules that need torch are imported where a call needs them.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aha.api.python_words import errors_in_python
from aha.core.errors import ConfigError

if TYPE_CHECKING:
    from aha.api.evaluation import EvalResult
    from aha.api.run_result import RunResult
    from aha.api.text_model import PromptText, TextModel, Written

Reward = Callable[..., Any]
DEFAULT_RECIPE, PACKAGED_MODEL = "demo", "aha-tiny"
DATA_FOLDER = Path("runs") / ".data"


@errors_in_python
def train(
    recipe: str | Path | None = None,
    *,
    model: str | Path | Mapping[str, Any] | None = None,
    task: str | Path | Mapping[str, Any] | None = None,
    reward: Reward | Sequence[Reward] | None = None,
    reward_weights: Sequence[float] | None = None,
    data: object = None,
    test_data: object = None,
    columns: Mapping[str, str] | None = None,
    callbacks: object = (),
    name: str | None = None,
    resume: "str | Path | RunResult | None" = None,
    accept_changes: bool = False,
    budget: str | None = None,
    log: str | Sequence[str] | None = None,
    show: bool = True,
    **settings: Any,
) -> "RunResult":
    """Train with a recipe, or resume a run; returns the run when it is done.

    recipe: the name of a packaged recipe or a TOML file; without one "demo", which suits the
    packaged model. model: a packaged model, a folder, a run, or a name on the hub. task: a task by
    name or file; or reward: a function `def reward(completion, column, ..., **row)`, or several,
    whose sum with `reward_weights` is the reward. data, test_data: a file, a list of dicts, a table
    of pandas or of Hugging Face `datasets`; columns: {name in the data: name for the reward}.
    callbacks: functions that get the row of each step, or objects with `on_step`, `on_validation`.
    name: the run's folder below runs/. budget: "30min", "2h" or "0.5usd". log: loggers that get a
    copy, such as "wandb,tensorboard"; "none" for a resumed run that had some. show: print the
    steps, or draw them in a notebook.

    settings: any key of the recipe, sections as dicts: `steps=20, optim={"lr": 3e-4}`.

    resume goes on with a run from its newest checkpoint, with the same reward and data again; a
    change of them is refused, unless accept_changes. Ctrl-C, or the interrupt of a cell, finishes
    the step, saves it, and raises KeyboardInterrupt with the line that goes on. Raises `AhaError`
    with what was got, what was wanted and how to fix it.
    """
    from aha.api import launch
    from aha.api.callbacks import Callbacks
    from aha.api.data_files import data_files
    from aha.api.logged_run import loggers_of
    from aha.api.recipe_names import overrides_from
    from aha.tasks.reward_function import WeightedRewards

    rewards = None if reward is None else WeightedRewards.of(reward, reward_weights)
    check_arguments(locals())
    folder = None if resume is None else path_of(resume)
    watching = launch.Watching(Callbacks(callbacks), show, budget, loggers_of(log, folder))
    overrides = overrides_from({"model": model, "task": task} | settings)
    files = data_files(data, test_data, columns, DATA_FOLDER)
    if folder is not None:
        return launch.go_on(folder, overrides, accept_changes, rewards, files, watching)
    chosen = DEFAULT_RECIPE if recipe is None else str(recipe)
    return launch.begin(chosen, overrides, rewards, files, name, watching)


def path_of(named: "str | Path | RunResult | TextModel") -> Path:
    """The folder of a run, what a loaded model was loaded by, or the path itself."""
    if isinstance(named, str | Path):
        return Path(named)
    from aha.api.run_result import RunResult

    return named.path if isinstance(named, RunResult) else Path(named.name)


def check_arguments(given: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for arguments of `train` that contradict each other."""
    resume, reward, task = given["resume"], given["reward"], given["task"]
    for other in ("recipe", "name", "model") if resume is not None else ():
        if given[other] is not None:
            raise ConfigError(
                f"resume with {other}", "the run as it was configured", f"leave {other} out"
            )
    if given["columns"] and given["data"] is None and given["test_data"] is None:
        raise ConfigError("columns without data", "rows to rename columns of", "data=rows")
    if given["accept_changes"] and resume is None:
        raise ConfigError("accept_changes without resume", "a run to go on with", "leave it out")
    if reward is None and given["reward_weights"] is not None:
        raise ConfigError("reward_weights without reward", "functions to weigh", "reward=[f, g]")
    if reward is not None and (not isinstance(task, Mapping | None) or "name" in (task or {})):
        raise ConfigError(
            f"reward with the task {task!r}", "one of the two", "leave task out, or reward"
        )
    if reward is not None and resume is None and given["data"] is None:
        raise ConfigError(
            "reward without data",
            "rows with a prompt each",
            "data='rows.jsonl', or data=[{'prompt': ..., 'answer': ...}, ...]",
        )
    model = given["model"]
    path = model.get("path") if isinstance(model, Mapping) else model
    if given["recipe"] is None and resume is None and path not in (None, PACKAGED_MODEL):
        from aha.api.recipe_names import packaged_recipes

        raise ConfigError(
            f"the model {str(path)!r} without a recipe",
            "a recipe whose learning rate suits it; the default is for the packaged model",
            f"aha.train('one-gpu-24gb', model=...), or one of {', '.join(packaged_recipes())}",
        )


@errors_in_python
def evaluate(
    model: "str | Path | RunResult | TextModel",
    *,
    task: str | Path | Mapping[str, Any] | None = None,
    reward: Reward | Sequence[Reward] | None = None,
    reward_weights: Sequence[float] | None = None,
    data: object = None,
    columns: Mapping[str, str] | None = None,
    split: str = "test",
    n: int | None = None,
    seed: int = 0,
    group_size: int = 1,
    temperature: float = 1.0,
    max_new_tokens: int | None = None,
    out: str | Path | None = None,
) -> "EvalResult":
    """The solve rate of a model or run on held-out problems, with its completions.

    Without task and reward it is the run's own task, else Countdown; task, reward and data are as
    in `train`. split: "test", "validation", "train", or "all" rows of the data. group_size:
    completions of each problem, above 1 with pass@k. out: a new file for the completions. The
    others are those of `aha eval`. Raises `AhaError` as `train` does.
    """
    from aha.api.evaluation import EvalResult
    from aha.api.evaluator import Problems, evaluate_on

    problems = Problems(split, n, seed, group_size, temperature, max_new_tokens)
    with tempfile.TemporaryDirectory(prefix="aha-") as folder:
        given = (reward, reward_weights, data, columns, Path(folder))
        path = str(path_of(model))
        numbers, completions, findings = evaluate_on(path, task, given, problems, out)
    return EvalResult(numbers, completions, findings)


@errors_in_python
def load(model: "str | Path | RunResult") -> "TextModel":
    """A model in memory, for several calls of its `generate`: a packaged model, a folder, a run, or
    a name on the hub. Raises `ModelError` where there is none."""
    from aha.api import text_model

    return text_model.load(path_of(model))


@errors_in_python
def generate(
    model: "str | Path | RunResult | TextModel",
    prompts: "PromptText | Sequence[PromptText]",
    *,
    n: int = 1,
    max_new_tokens: int = 320,
    temperature: float = 1.0,
    seed: int = 0,
) -> "list[Written]":
    """`n` completions of one prompt or of several by a model; see `TextModel.generate`."""
    from aha.api.text_model import TextModel

    opened = model if isinstance(model, TextModel) else load(model)
    return opened.generate(
        prompts, n=n, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed
    )


@errors_in_python
def open_run(path: str | Path) -> "RunResult":
    """A run by its folder, of any day and process. Raises `RunError` where there is none."""
    from aha.api.run_result import RunResult

    return RunResult(path)
