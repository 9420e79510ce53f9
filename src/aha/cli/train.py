"""`aha train`: start a run of a recipe, or resume a run that was stopped."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe, new_run_path
from aha.cli.default_recipe import recipe_for_this_machine
from aha.cli.parameters import (
    Budget,
    CalibrationFile,
    Dash,
    DryRun,
    Flag,
    JsonLines,
    Log,
    Probe,
    RecipeName,
    RunName,
    ShardBy,
    SharedBy,
    number_of_ranks,
)
from aha.cli.recipe_keys import Overrides, overrides_of
from aha.core.errors import ConfigError

if TYPE_CHECKING:
    from aha.cli.run_in_terminal import RunOptions


def train(
    recipe: RecipeName | None = None,
    *,
    name: RunName = None,
    resume: Path | None = None,
    accept_changes: Flag = False,
    budget: Budget = None,
    dash: Dash = None,
    ranks: SharedBy = None,
    shard: ShardBy = None,
    log: Log = None,
    dry_run: DryRun = False,
    probe: Probe = False,
    calibration: CalibrationFile = None,
    as_json: JsonLines = False,
    overrides: Overrides = None,
) -> None:
    """Train with a recipe (a packaged name or a TOML file); `--section.key value` overrides it.

    Exit code 0: the run is done. 1: a fault has ended it. 2: wrong command. 3: the budget is spent.
    130 after Ctrl-C, 143 after SIGTERM: it has stopped after a step, with a checkpoint.

    Parameters
    ----------
    recipe
        Packaged recipe or a TOML file; without it, the recipe that fits this machine.
    resume
        Run folder to resume from its newest whole checkpoint; of RUN@STEP a copy goes on from that
        step. With more --steps or --tokens it goes on for longer, a finished run too. The learning
        rate falls until the new last step, so at that place it rises; with --optim.final_lr 1 from
        the beginning it does not.
    accept_changes
        Resume although base, data, recipe or task code are not what the run began with.
    dry_run
        Print the resolved recipe, and the plan on the error stream, and exit.
    """
    changes = overrides_of(overrides)
    number = None if ranks is None else number_of_ranks(ranks) or 1
    if resume is not None:
        unused = {"a recipe": recipe, "--name": name, "--dry-run": dry_run}
        unused |= {"--probe": probe, "--calibration": calibration}
        refuse_with_resume(resume, unused)
        from aha.cli.run_in_terminal import RunOptions

        options = RunOptions(budget, dash, ranks=number, shard=shard, as_json=as_json)
        go_on(resume, options, log, changes, accept_changes)
        return
    refuse_without_resume(accept_changes)
    path = find_recipe(recipe or recipe_for_this_machine())
    run = new_run_path(name, path.stem)
    cfg = load_recipe(path, changes)
    from aha.api.logged_run import loggers_of
    from aha.cli.run_in_terminal import RunOptions, start_run

    shared = (dry_run, probe, calibration, number, loggers_of(log), as_json, shard)
    start_run(cfg, run, RunOptions(budget, dash, *shared))


def go_on(
    resume: Path, options: "RunOptions", log: str | None, changes: dict[str, Any], accept: bool
) -> None:
    """Resume a run of RL or of fine-tuning, from a step of its own where RUN@STEP names one."""
    from aha.api.logged_run import loggers_of
    from aha.cli.fork import at_step
    from aha.cli.run_in_terminal import resume_run
    from aha.cli.sft import resume_tuning
    from aha.sft.tuning_config import is_tuning
    from aha.store.run_folder import Run
    from aha.training.run_fork import run_and_step

    source, _ = run_and_step(resume)
    if is_tuning(Run(source).read_or_none("config.json")):
        given = {"--dash": options.dash, "--ranks": options.ranks, "--json": options.as_json}
        refuse_of_tuning(given | {"--log": log, "--shard": options.shard})
        resume_tuning(at_step(resume), options.budget, accept, changes)
        return
    # Of the run itself: a fork of it begins runs of its own there.
    options = replace(options, loggers=loggers_of(log, source))
    resume_run(at_step(resume), options, changes, accept)


def refuse_with_resume(resume: Path, unused: dict[str, object]) -> None:
    """Raise `ConfigError` for an option, by name, that a new run alone can take."""
    if given := [word for word, value in unused.items() if value]:
        raise ConfigError(
            f"--resume with {given[0]}",
            "the run as it was configured",
            f"aha train --resume {resume}",
        )


def refuse_of_tuning(given: dict[str, object]) -> None:
    """Raise `ConfigError` for an option, by name, that a run of fine-tuning does not have."""
    if unread := [word for word, value in given.items() if value]:
        raise ConfigError(
            f"{unread[0]} with a run of `aha sft`",
            "an option that it has",
            f"leave {unread[0]} out",
        )


def refuse_without_resume(accept_changes: bool) -> None:
    """Raise `ConfigError` for an option that only a resumed run can take."""
    if accept_changes:
        raise ConfigError(
            "--accept-changes without --resume", "a run to go on with", "leave it out"
        )
