"""Tasks by name: packaged ones, those that installed packages register, and plain Python files.

    countdown, multiply, ...     packaged (PACKAGED); trusted, graded in this process
    gym:NAME                     a data set of reasoning-gym, with the extra [gym]
    my_task.py                   a file that holds the three functions of a task, or one class
    reward:NAME                  reward functions of a Python program, which alone has them
    anything else                the entry point of that name in the group `aha.tasks`

A task from outside is isolated (`isolation`). Settings reach a task by name: one that its
constructor does not name is an error, because nothing would read it.
"""

import difflib
import inspect
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

from aha.core.errors import AhaError, ConfigError
from aha.core.findings import Finding
from aha.core.records import Problem
from aha.tasks.isolation import IsolatedTask, checked_grader
from aha.tasks.protocol import Task
from aha.tasks.reward_task import PREFIX as REWARD
from aha.tasks.wording import WordedTask, Wording, part_wording
from aha.tasks.worker import Worker
from aha.tasks.worker_process import locate

PACKAGED = {
    "countdown": "aha.tasks.countdown:Countdown",
    "multiply": "aha.tasks.multiply:Multiply",
    "math": "aha.tasks.math_files:MathFiles",
    "calculate": "aha.tasks.calculate:Calculate",
    "ladder": "aha.tasks.ladder:Ladder",
    "curated": "aha.tasks.curated:CuratedCountdown",
}
# Settings that others read as well: a task that does not name them is made without.
READ_BY_OTHERS = ("bad_rows",)
METHODS = ("problems", "ask", "grade")
OPTIONAL_METHODS = ("solve",)
EXPECTED = f"{', '.join(PACKAGED)}, gym:NAME, a file such as my_task.py, or an installed task"

Loaded = TypeVar("Loaded")
Settings = dict[str, Any]

_provided: ContextVar[Mapping[str, Task]] = ContextVar("provided_tasks", default={})  # noqa: B039


@contextmanager
def provided(*tasks: Task) -> Iterator[None]:
    """Within the block, and in this thread alone, `make_task` gives these objects by their names:
    tasks that the calling program has made, and that no name could make again."""
    before = _provided.set({**_provided.get(), **{task.name: task for task in tasks}})
    try:
        yield
    finally:
        _provided.reset(before)


def make_task(
    name: str,
    settings: Settings | None = None,
    seconds: float = 5.0,
    memory_gb: float | None = 4.0,
) -> Task:
    """The task of that name, isolated unless it is packaged.

    `settings` are keywords for its constructor, and those of the wording (`aha.tasks.wording`),
    which every task takes; `seconds` is the time limit for one grade of a task
    from outside, `memory_gb` the memory limit of the process that grades it. Raises `ConfigError`
    for a name or a setting that does not exist.
    """
    made = _provided.get().get(name)
    settings, words = part_wording(
        dict(settings or {}), lambda: [] if made else setting_names(constructor(name))[0]
    )
    task = made or build_task(name, settings)
    if not made and name not in PACKAGED:
        build = "aha.tasks.catalog:build_grader"
        task = IsolatedTask(task, name, Worker(build, (name, settings), seconds, memory_gb))
    return WordedTask(task, Wording.of(words)) if words else task


def notes_of(task: Task) -> list[Finding]:
    """What a task has to say about its own problems, such as the rows of a file that it left out.

    Tasks may have a list `notes`; one from outside that has something else there says nothing."""
    notes = getattr(task, "notes", None)
    if not isinstance(notes, list):
        return []
    return [replace(n, check=n.check or "rows") for n in notes if isinstance(n, Finding)]


def build_grader(name: str, settings: Settings) -> Callable[[Problem, str], dict[str, Any]]:
    """In the worker's process: the checked `grade` of a task from outside."""
    return checked_grader(build_task(name, settings))


def build_task(name: str, settings: Settings) -> Task:
    """The task itself, not isolated. Raises `ConfigError` as `make_task` does."""
    build = constructor(name)
    known, takes_all = setting_names(build)
    settings = {k: v for k, v in settings.items() if k in known or k not in READ_BY_OTHERS}
    for key in settings:
        if key not in known and not takes_all:
            raise ConfigError(
                f"the task {name!r} with {key} {settings[key]!r}, which it does not read",
                f"one of its settings: {', '.join(known) or 'it has none'}",
                f"leave {key} out of the task's settings",
            )
    try:
        return build(**settings)
    except AhaError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the task {name!r} with {settings}: {one_line(error)}", "settings it takes"
        ) from error


def setting_names(build: Callable[..., Task]) -> tuple[list[str], bool]:
    """(names of a constructor's settings, whether it takes any other name too)."""
    try:
        parameters = list(inspect.signature(build).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return names, any(p.kind is p.VAR_KEYWORD for p in parameters)


def constructor(name: str) -> Callable[..., Task]:
    """The function or class that makes the task of that name when it is called with settings."""
    if name in PACKAGED:
        return locate(PACKAGED[name])
    if name.startswith("gym:"):
        from aha.tasks.gym import gym_task

        return gym_task(name.removeprefix("gym:"))
    if name.startswith(REWARD):
        raise ConfigError(
            f"the task {name!r}: functions of the Python program that made the run",
            "that program, or another task",
            f"in Python pass reward={name.removeprefix(REWARD).replace('+', ', ')} again, to "
            "aha.train(resume=...) or aha.evaluate(...)",
        )
    if name.endswith(".py"):
        return task_in(load_file(Path(name)), name)
    entries = installed()
    if name in entries:
        loaded = imported(name, entries[name].load)
        return task_in(loaded, name) if isinstance(loaded, ModuleType) else loaded
    expected = ", ".join([EXPECTED, *entries])
    raise ConfigError(f"no task {name!r}", expected, instead_of(name, entries))


def instead_of(name: str, entries: Mapping[str, EntryPoint]) -> str:
    """What a word that is no task was meant to be: the file in a folder of `aha new-task`, which is
    not installed; a task of a similar name; a new one."""
    folder = Path(name)
    own = folder / f"{folder.name.replace('-', '_')}.py"
    if os.path.isfile(own):  # `Path.is_file` raises for a name that is too long
        file, place = shlex.quote(str(own)), shlex.quote(str(folder))
        return f"--task {file}, or `pip install -e {place}`, which makes {folder.name!r} its name"
    near = difflib.get_close_matches(name, [*PACKAGED, *entries], 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else "`aha new-task NAME` begins a task of your own"


def installed() -> dict[str, EntryPoint]:
    """The tasks that installed packages register, by name."""
    return {entry.name: entry for entry in entry_points(group="aha.tasks")}


def load_file(path: Path) -> ModuleType:
    """A module from a file by its path; it can import modules that lie in the same folder."""
    if not path.is_file():
        raise ConfigError(
            f"no file {path}", "a Python file with a task", "check the path after --task"
        )
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    spec = spec_from_file_location(f"aha_task_{path.stem}", path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    loader, module = spec.loader, module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    imported(str(path), lambda: loader.exec_module(module))
    return module


def imported(name: str, load: Callable[[], Loaded]) -> Loaded:
    """`load()`. Any exception becomes a `ConfigError` of one line, because the code is not ours."""
    try:
        return load()
    except AhaError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the task {name!r} cannot be imported: {one_line(error)}", "a task"
        ) from error


def task_in(module: ModuleType, name: str) -> Callable[..., Any]:
    """The task of a module: its three functions, or the one class of its own that has them."""
    if all(callable(getattr(module, method, None)) for method in METHODS):
        names = [*METHODS, *(name for name in OPTIONAL_METHODS if hasattr(module, name))]
        functions = {method: getattr(module, method) for method in names}
        return lambda: SimpleNamespace(name=name, **functions)
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and value.__module__ == module.__name__
        and all(callable(getattr(value, method, None)) for method in METHODS)
    ]
    if len(classes) != 1:
        raise ConfigError(
            f"{name} with {len(classes)} tasks",
            f"the functions {', '.join(METHODS)}, or one class with them",
            "`aha new-task NAME` writes an example",
        )
    return classes[0]


def one_line(error: Exception) -> str:
    """The type and the text of an exception, without line breaks."""
    return " ".join(f"{type(error).__name__}: {error}".split())
