"""Tasks by name: packaged ones, those that installed packages register, and plain Python files.

    countdown, multiply, math    packaged; trusted, graded in this process
    gym:NAME                     a data set of reasoning-gym, with the extra [gym]
    my_task.py                   a file that holds the three functions of a task, or one class
    anything else                the entry point of that name in the group `aha.tasks`

A task from outside is fenced in by `guard`. Settings reach a task by name: those that its
constructor does not name are refused when they were changed, because nothing would read them.
"""

import difflib
import inspect
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, SimpleNamespace

from aha.core.errors import AhaError, ConfigError
from aha.tasks.isolation import IsolatedTask
from aha.tasks.protocol import Task
from aha.tasks.subprocess_calls import locate

PACKAGED = {
    "countdown": "aha.tasks.countdown:Countdown",
    "multiply": "aha.tasks.multiply:Multiply",
    "math": "aha.tasks.math_files:MathFiles",
}
METHODS = ("problems", "ask", "grade")
WANTED = f"{', '.join(PACKAGED)}, gym:NAME, a file such as my_task.py, or an installed task"


def make_task(name: str, settings: dict | None = None, seconds: float = 5.0) -> Task:
    """The task of that name, fenced in unless it is packaged.

    `settings` are keywords for its constructor; `seconds` is the time for one verdict of a task
    from outside. Raises `ConfigError` for a name or a setting that does not exist.
    """
    settings = dict(settings or {})
    task = find_task(name, settings)
    return task if name in PACKAGED else IsolatedTask(task, name, settings, seconds)


def find_task(name: str, settings: dict) -> Task:
    """The task itself, without the fence."""
    build = constructor(name)
    try:
        parameters = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):
        parameters = ()
    known = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for key in settings:
        if key not in known and not takes_all:
            raise ConfigError(
                f"the task {name!r} with {key} {settings[key]!r}, which it does not read",
                f"one of its settings: {', '.join(known) or 'it has none'}",
                f"leave task.{key} out, or task.options.{key}",
            )
    try:
        return build(**settings)
    except AhaError:
        raise
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(
            f"the task {name!r} with {settings}: {text}", "settings it takes"
        ) from error


def constructor(name: str) -> Callable:
    """What makes a task of that name when it is called with settings."""
    if name in PACKAGED:
        return locate(PACKAGED[name])
    if name.startswith("gym:"):
        from aha.tasks.gym import gym_task

        return gym_task(name.removeprefix("gym:"))
    if name.endswith(".py"):
        return task_in(load_file(Path(name)), name)
    found = installed()
    if name in found:
        loaded = imported(name, found[name].load)
        return task_in(loaded, name) if isinstance(loaded, ModuleType) else loaded
    near = difflib.get_close_matches(name, [*PACKAGED, *found], 1, 0.5)
    hint = f"did you mean {near[0]!r}?" if near else "`aha new-task NAME` begins a task of your own"
    raise ConfigError(f"no task {name!r}", ", ".join([WANTED, *found]), hint)


def installed() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="aha.tasks")}


def load_file(path: Path) -> ModuleType:
    """A module from a file by its path; what lies beside the file can be imported by it."""
    if not path.is_file():
        raise ConfigError(f"no file {path}", "a Python file with a task", "check task.name")
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.append(folder)
    spec = spec_from_file_location(f"aha_task_{path.stem}", path)
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    imported(str(path), lambda: spec.loader.exec_module(module))
    return module


def imported(name: str, load: Callable):
    """`load()`, whatever goes wrong in it as one line: the code is not ours."""
    try:
        return load()
    except AhaError:
        raise
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"the task {name!r} cannot be imported: {text}", "a task") from error


def task_in(module: ModuleType, name: str) -> Callable:
    """A module's own task: its three functions, or the one class of its own that has them."""
    if all(callable(getattr(module, method, None)) for method in METHODS):
        functions = {method: getattr(module, method) for method in METHODS}
        return lambda: SimpleNamespace(name=name, **functions)
    classes = [
        found
        for found in vars(module).values()
        if inspect.isclass(found)
        and found.__module__ == module.__name__
        and all(callable(getattr(found, method, None)) for method in METHODS)
    ]
    if len(classes) != 1:
        raise ConfigError(
            f"{name} with {len(classes)} tasks",
            f"the functions {', '.join(METHODS)}, or one class with them",
            "`aha new-task NAME` writes an example",
        )
    return classes[0]
