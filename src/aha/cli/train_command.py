"""What `aha train` and `aha demo` have been told to do, for whoever carries it out.

The command itself does, or each of the processes that a launcher has started.
"""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe, new_run_path
from aha.cli.default_recipe import recipe_for_this_machine
from aha.cli.own_command import own_command
from aha.cli.terminal_text import say_line
from aha.core.config import RunConfig
from aha.core.errors import ConfigError
from aha.core.recipe_layers import flattened

if TYPE_CHECKING:
    from aha.cli.run_in_terminal import RunOptions

AUTO = Path("auto")  # --resume auto: begin the run, or go on with it where it has begun


@dataclass(frozen=True)
class TrainCommand:
    """The words of a command as values; `changes` are keys of the recipe with their values."""

    recipe: str | None = None
    name: str | None = None
    resume: Path | None = None
    accept_changes: bool = False
    budget: str | None = None
    dash: bool | None = None
    log: str | None = None
    dry_run: bool = False
    probe: bool = False
    calibration: Path | None = None
    as_json: bool = False
    anyway: bool = False
    shard: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raise `ConfigError` for words that do not go together, and for a wrong recipe."""
        if self.resume == AUTO:
            if self.name is None or self.recipe is None:
                raise ConfigError(
                    "--resume auto without a recipe and a --name",
                    "the run to begin, or to go on with",
                    f"aha train {self.recipe or 'demo'} --name first --resume auto",
                )
        elif self.resume is not None:
            unused: dict[str, object] = {"a recipe": self.recipe}
            unused |= {"--name": self.name, "--dry-run": self.dry_run}
            unused |= {"--probe": self.probe, "--calibration": self.calibration}
            unused |= {"--anyway": self.anyway}
            refuse_with_resume(self.resume, unused)
            return
        elif self.accept_changes:
            raise ConfigError(
                "--accept-changes without --resume", "a run to go on with", "leave it out"
            )
        _ = self.cfg, self.path  # raise for a recipe or a name that cannot be used

    @cached_property
    def recipe_file(self) -> Path:
        return find_recipe(self.recipe or recipe_for_this_machine())

    @cached_property
    def cfg(self) -> RunConfig:
        """The recipe of a new run."""
        return load_recipe(self.recipe_file, dict(self.changes))

    @cached_property
    def path(self) -> Path:
        """The folder of a new run."""
        return new_run_path(self.name, self.recipe_file.stem)

    def settings(self) -> dict[str, Any]:
        """What all ranks of a run must have been told alike."""
        words: dict[str, Any] = {"accept_changes": self.accept_changes, "dry_run": self.dry_run}
        words |= {"anyway": self.anyway, "shard": self.shard}
        if self.resume is not None and self.resume != AUTO:
            return words | {"resume": str(self.resume), "changes": dict(self.changes)}
        return words | {"resume": str(self.resume or ""), **self.cfg.model_dump(mode="json")}

    def model(self) -> tuple[str, str]:
        """(path, device) of the model, as the recipe has them or the run to go on with."""
        if self.resume is None or self.resume == AUTO:
            return self.cfg.model.path, self.cfg.model.device
        from aha.store.run_folder import Run
        from aha.training.run_fork import run_and_step

        run, _ = run_and_step(self.resume)
        keys = flattened(Run.open(run).read("config.json")) | dict(self.changes)
        return str(keys.get("model.path", "")), str(keys.get("model.device", "auto"))

    def ranks_before(self) -> int:
        """The number of ranks that the run to go on with had last; 1 where none has begun."""
        from aha.store.run_folder import Run
        from aha.training.fingerprints import NAME
        from aha.training.resume import stored_ranks
        from aha.training.run_fork import run_and_step

        if self.resume is None:
            return 1
        run = self.path if self.resume == AUTO else run_and_step(self.resume)[0]
        return stored_ranks(Run(run).read_or_none(NAME) or {})

    def carry_out(self, ranks: int | None, kept: str = "") -> None:
        """The whole run. `kept`: the run that an earlier attempt of the same job has begun.

        Ends the program with the run's exit code, if that is not 0.
        """
        if kept:
            say_line(f"aha: this job has begun {kept} before, and goes on with it", sys.stderr)
            self.go_on(Path(kept), ranks, self.changes_of(Path(kept)))
        elif self.resume == AUTO and (self.path / "config.json").is_file():
            self.go_on(self.path, ranks, self.changes_of(self.path))
        elif self.resume is not None and self.resume != AUTO:
            self.go_on(self.resume, ranks, dict(self.changes))
        else:
            from aha.cli.run_in_terminal import start_run

            start_run(self.cfg, self.path, self.options(ranks))

    def options(self, ranks: int | None, source: Path | None = None) -> "RunOptions":
        from aha.api.logged_run import loggers_of
        from aha.cli.run_in_terminal import RunOptions

        loggers = loggers_of(self.log, source) if source else loggers_of(self.log)
        new: tuple[bool, bool, Path | None] = (False, False, None)
        if source is None:
            new = (self.dry_run, self.probe, self.calibration)
        return RunOptions(
            self.budget, self.dash, *new, ranks, loggers, self.as_json, self.anyway, self.shard
        )

    def changes_of(self, run: Path) -> dict[str, Any]:
        """The keys in which this command's recipe is not that of a run that has begun.

        Prices are filled in where a run begins, and paths of files are made absolute there.
        """
        if self.resume is not None and self.resume != AUTO:
            return dict(self.changes)
        from aha.store.run_folder import Run

        before = flattened(Run.open(run).read("config.json"))
        task = self.cfg.task.anywhere()
        now = flattened(self.cfg.model_copy(update={"task": task}).model_dump(mode="json"))
        for price in ("usd_per_hour", "watts"):
            if now[price] is None:
                del now[price]
        # A run of an older version may lack keys, which are at their defaults then.
        return {k: value for k, value in now.items() if k in before and value != before[k]}

    def go_on(self, resume: Path, ranks: int | None, changes: dict[str, Any]) -> None:
        """Resume a run of RL or of fine-tuning, from a step of its own where RUN@STEP names one."""
        from aha.cli.fork import at_step
        from aha.cli.run_in_terminal import resume_run
        from aha.cli.sft import resume_tuning
        from aha.store.run_folder import Run, is_tuning
        from aha.training.run_fork import run_and_step

        source, _ = run_and_step(resume)
        if self.is_automatic(resume) and not changes and Run(source).read_or_none("summary.json"):
            report = f"{own_command()} report {shlex.quote(str(source))}"
            say_line(f"aha: {source} is done: `{report}`", sys.stderr)
            return
        if is_tuning(Run(source).read_or_none("config.json")):
            given = {"--dash": self.dash, "--ranks": ranks, "--json": self.as_json}
            refuse_of_tuning(given | {"--log": self.log, "--shard": self.shard})
            resume_tuning(at_step(resume), self.budget, self.accept_changes, changes)
            return
        # Of the run itself: a fork of it begins runs of its own there.
        options = self.options(ranks, source)
        resume_run(at_step(resume), options, changes, self.accept_changes)

    def is_automatic(self, resume: Path) -> bool:
        """Whether nobody has named this run to be resumed: a launcher repeats its command."""
        return resume != self.resume


def refuse_with_resume(resume: Path, unused: dict[str, object]) -> None:
    """Raise `ConfigError` for an option, by name, that a new run alone can take."""
    from aha.store.run_folder import resume_command

    if given := [word for word, value in unused.items() if value]:
        raise ConfigError(
            f"--resume with {given[0]}",
            "the run as it was configured",
            resume_command(resume),
        )


def refuse_of_tuning(given: dict[str, object]) -> None:
    """Raise `ConfigError` for an option, by name, that a run of fine-tuning does not have."""
    if unread := [word for word, value in given.items() if value]:
        raise ConfigError(
            f"{unread[0]} with a run of `aha sft`",
            "an option that it has",
            f"leave {unread[0]} out",
        )
