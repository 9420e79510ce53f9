"""The settings of a distillation, and the folder that keeps them."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aha.core.errors import ConfigError, shown
from aha.distill.stages import read_object
from aha.eval.suite import EvalSettings
from aha.store.durable import disk_errors, to_json, write_text
from aha.store.run_folder import other_name

JOB = "job.json"
# Settings that may change from one call to the next.
FREE = ("workers", "timeout_s", "tries", "prices", "reuse", "usd_per_hour", "watts")
TEST_SEED = 0  # the same tests whatever the seed of a run


@dataclass(frozen=True)
class TeacherSettings:
    """Who is asked, and how. `name` is the address of an endpoint, or a model of ours.

    `api`: "chat" or "text" of an endpoint. `template`: the frame of the prompts; None: that of the
    teacher's own run, for a chat "instruct" where the task has frames, else the student's.
    """

    name: str
    model: str | None = None
    api: str = "chat"
    template: str | None = None
    per_problem: int = 1
    temperature: float = 1.0
    max_new_tokens: int | None = None
    prices: tuple[float, float] | None = None
    workers: int = 4
    timeout_s: float = 120.0
    tries: int = 6

    @property
    def is_endpoint(self) -> bool:
        return self.name.startswith(("http://", "https://"))


@dataclass(frozen=True)
class RewriteSettings:
    """How answers are put into the tags: "none", "rule", or the address of an endpoint."""

    by: str = "none"
    model: str | None = None
    prices: tuple[float, float] | None = None


@dataclass(frozen=True)
class DistillJob:
    """Everything that decides which examples there are.

    `n` problems of the training split. `keep`: "right" or "all". `prefer`: "first" or "shortest" of
    the answers to a problem, at most `at_most` of them (0: all). `mix`: files of other examples.
    `reuse`: the folder of another distillation, whose answers are taken where they fit.
    """

    teacher: TeacherSettings
    student: str
    task: str
    task_settings: Mapping[str, Any]
    n: int = 1_000
    seed: int = 0
    keep: str = "right"
    prefer: str = "first"
    at_most: int = 0
    rewrite: RewriteSettings = RewriteSettings()
    mix: tuple[str, ...] = ()
    mix_share: float | None = None
    reuse: str | None = None
    tests: int = 1_000
    usd_per_hour: float | None = None
    watts: float | None = None

    def eval_settings(self, max_new_tokens: int | None) -> EvalSettings:
        """The held-out test: one completion of each problem at temperature 1."""
        task = (self.task, dict(self.task_settings))
        return EvalSettings(*task, "test", self.tests, TEST_SEED, 1, 1.0, max_new_tokens)

    def as_row(self) -> dict[str, Any]:
        """The settings as JSON, but for those on which no example depends."""
        return what_examples_depend_on(asdict(self))


def what_examples_depend_on(row: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a job without prices, patience, and where answers are taken from."""
    kept = {key: value for key, value in row.items() if key not in FREE}
    for section in ("teacher", "rewrite"):
        if isinstance(kept.get(section), Mapping):
            kept[section] = {key: kept[section][key] for key in kept[section] if key not in FREE}
    return kept


def open_folder(path: Path, job: Mapping[str, Any], reuses: bool = False) -> bool:
    """Make the folder of a job, or go on in the one that is there; returns whether it was.

    Raises `ConfigError` where the folder belongs to a job with other settings. `reuses`: the
    command can take the answers of this folder into another one.
    """
    import json

    now = json.loads(to_json(job))
    before = read_object(path / JOB)
    if before is not None:  # of an earlier version it has more
        before = what_examples_depend_on(before)
    if before is not None and before != now:
        other = next(key for key in {**before, **now} if before.get(key) != now.get(key))
        raise ConfigError(
            f"{path} was made with {other} {shown(before.get(other))}, not {shown(now.get(other))}",
            "the same settings, to go on, or a new name",
            other_name(path) + (f" --reuse {shlex.quote(str(path))}" if reuses else ""),
        )
    if before is None and path.exists() and any(path.iterdir()):
        raise ConfigError(f"{path} exists and is no such folder", "a new name", "another --name")
    with disk_errors(f"make {path}"):
        path.mkdir(parents=True, exist_ok=True)
    write_text(path / JOB, to_json(job, indent=2) + "\n")
    return before is not None
