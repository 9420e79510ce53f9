"""Fingerprints of a run: all that it depends on (recipe, base, data, task's code, versions).

`fingerprints.json` keeps them, with a digest for every file. A resumed run is bit-equal to one that
was never stopped only if nothing of it has changed, so a difference is told and refused, unless
the user accepts it. More steps, tokens or money are no difference: the run goes on for longer.
"""

import inspect
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import aha
from aha.core.config import RunConfig
from aha.core.errors import RunError
from aha.core.recipe_layers import flattened
from aha.model.folders import base_cost
from aha.model.parents import Parent, chain_of
from aha.store.checksums import digests
from aha.store.run_folder import resume_command, version_of
from aha.tasks.catalog import PACKAGED
from aha.tasks.protocol import Task
from aha.tasks.reward_task import RewardTask
from aha.tasks.wording import unworded

NAME = "fingerprints.json"
# Keys that change what a run writes or costs, or when a broken grader ends it, and nothing that it
# computes.
FREE_KEYS = {"show_every", "token_groups", "checkpoint_every", "keep_last"}
FREE_KEYS |= {"usd_per_hour", "watts", "task.max_grade_errors"}
FREE_KEYS |= {"task.grade_seconds", "task.grade_memory_gb"}
BASE_FILES = ("*.safetensors", "*.json", "*.jinja", "*.py")


class Fingerprints(TypedDict):
    """`base`, `data` and `task` hold digests by file name; `recipe` is the whole config;
    `parents` are the models that the run descends from, its base last; `ranks` is the number of
    processes that share the work: the last bits depend on it. `shard` is what `--shard` said."""

    recipe: dict[str, Any]
    base: dict[str, str]
    base_cost: dict[str, float]
    parents: list[Parent]
    data: dict[str, str]
    task: dict[str, str]
    versions: dict[str, str]
    ranks: int
    shard: NotRequired[str]


def fingerprints_of(
    cfg: RunConfig,
    base: Path | None,
    task: Task,
    before: Mapping[str, Any] | None = None,
    ranks: int = 1,
    shard: str = "auto",
) -> Fingerprints:
    """The fingerprints of a run as everything is now. Reads every file of the base.

    `base` None: it has gone, and what `before`, the run's own record, says of it stays.
    """
    then = before or {}
    files = [path for form in BASE_FILES for path in base.glob(form)] if base else []
    return {
        "recipe": cfg.model_dump(mode="json"),
        "base": digests_by_name(sorted(files)) if base else then.get("base", {}),
        "base_cost": base_cost(base) if base else then.get("base_cost", {}),
        "parents": chain_of(base) if base else then.get("parents", []),
        "data": digests_by_name(data_files(cfg)),
        "task": task_digests(cfg, task),
        "versions": {"aha": aha.__version__, "torch": version_of("torch") or "unknown"},
        "ranks": ranks,
        "shard": shard,
    }


def digests_by_name(paths: list[Path]) -> dict[str, str]:
    """The digest of each file by its name; with its folder where several have that name."""
    names = Counter(path.name for path in paths)
    return {
        path.name if names[path.name] == 1 else f"{path.parent.name}/{path.name}": digest
        for path, digest in digests(paths).items()
    }


def data_files(cfg: RunConfig) -> list[Path]:
    """The files that the recipe names for its task."""
    settings = cfg.task.settings()
    named = (Path(value) for value in settings.values() if isinstance(value, str) and value)
    return sorted({path for path in named if path.is_file()})


def task_digests(cfg: RunConfig, task: Task) -> dict[str, str]:
    """The digests of a task's code: of its files, or those that it gives itself, as a task of
    reward functions does for the source of each."""
    task = unworded(task)
    if isinstance(task, RewardTask):
        return task.digests()
    return digests_by_name(code_files(cfg, task))


def code_files(cfg: RunConfig, task: Task) -> list[Path]:
    """The code of a task from outside: its file, or all files of its package.

    Packaged tasks go with the program's version. Modules that lie beside a task's file and are
    imported by it are not looked at.
    """
    if cfg.task.name in PACKAGED:
        return []
    inner = getattr(task, "inner", task)
    try:
        path = Path(inspect.getfile(type(inner)))
    except (TypeError, OSError):
        path = Path(cfg.task.name)
    if cfg.task.name.endswith(".py"):
        path = Path(cfg.task.name)
    is_package = (path.parent / "__init__.py").is_file()
    return sorted(path.parent.glob("*.py")) if is_package else [p for p in [path] if p.is_file()]


@dataclass(frozen=True)
class Difference:
    """One thing that has changed. `free`: a resumed run goes on with it without being asked to."""

    name: str
    before: Any
    now: Any
    free: bool = False

    def __str__(self) -> str:
        return f"{self.name} {in_words(self.before)} -> {in_words(self.now)}"


def in_words(value: Any) -> str:
    """A value in a message; a digest by its first digits."""
    if value is None:
        return "none"
    is_digest = isinstance(value, str) and len(value) == 64 and " " not in value
    return f"sha256 {value[:12]}" if is_digest else str(value)


def differences(before: Mapping[str, Any], now: Fingerprints) -> list[Difference]:
    """What has changed since the run began, recipe first."""
    changes = [
        Difference(name, old, new, is_free(name, old, new))
        for name, old, new in unequal(read_again(before.get("recipe", {})), now["recipe"])
    ]
    for part in ("base", "data", "task"):
        changes += [
            Difference(f"{part} {name}", old, new)
            for name, old, new in unequal(before.get(part, {}), now[part])
        ]
    for name, old, new in unequal(before.get("versions", {}), now["versions"]):
        changes.append(Difference(f"version of {name}", old, new, free=name != "aha"))
    if before.get("ranks", 1) != now["ranks"]:
        changes.append(Difference("ranks", before.get("ranks", 1), now["ranks"], free=True))
    shards = before.get("shard", "auto"), now.get("shard", "auto")
    if shards[0] != shards[1]:
        changes.append(Difference("shard", *shards, free=True))
    return changes


def read_again(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe of an older version with the keys that it did not know, at their defaults."""
    try:
        return RunConfig.model_validate(recipe).model_dump(mode="json")
    except ValueError:
        return recipe


def unequal(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(name, before, now) of all values that differ; None where one side has none."""
    then, later = flattened(before), flattened(now)
    names = dict.fromkeys([*then, *later])
    pairs = ((name, then.get(name), later.get(name)) for name in names)
    return [(name, old, new) for name, old, new in pairs if old != new]


def is_free(key: str, before: Any, now: Any) -> bool:
    """Whether a changed key of the recipe needs no consent: it computes nothing, or the run only
    goes on for longer (0 tokens are no limit)."""
    if key in FREE_KEYS:
        return True
    numbers = isinstance(before, int) and isinstance(now, int)
    longer = numbers and (now > before or (key == "tokens" and now == 0))
    return longer and (key == "steps" or (key == "tokens" and before > 0))


def check_differences(changes: list[Difference], path: Path, accept: bool) -> None:
    """Raise `RunError` for a change that needs consent and has none."""
    refused = [change for change in changes if not change.free]
    if not refused or accept:
        return
    raise RunError(
        f"{path} began with something else: {'; '.join(map(str, refused))}",
        "what it began with, so that it stays one run",
        f"put it back, or go on all the same: {resume_command(path)} --accept-changes",
    )
