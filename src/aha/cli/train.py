"""`aha train`: start a run of a recipe, or resume a run that was stopped."""

from pathlib import Path

from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe, new_run_path, packaged_recipes
from aha.cli.parameters import (
    Budget,
    CalibrationFile,
    Dash,
    DryRun,
    Flag,
    Log,
    Probe,
    RecipeName,
    RunName,
    SharedBy,
    number_of_ranks,
)
from aha.cli.recipe_keys import Overrides, overrides_of
from aha.core.errors import ConfigError


def train(
    recipe: RecipeName | None = None,
    *,
    name: RunName = None,
    resume: Path | None = None,
    accept_changes: Flag = False,
    budget: Budget = None,
    dash: Dash = None,
    ranks: SharedBy = None,
    log: Log = None,
    dry_run: DryRun = False,
    probe: Probe = False,
    calibration: CalibrationFile = None,
    overrides: Overrides = None,
) -> None:
    """Train with a recipe (a packaged name or a TOML file); `--section.key value` overrides it.

    Parameters
    ----------
    resume
        Run folder to resume from its newest whole checkpoint. With more --steps or --tokens it goes
        on for longer, a finished run too. The learning rate falls until the new last step, so at
        that place it rises; with --optim.final_lr 1 from the beginning it does not.
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
        if given := [word for word, value in unused.items() if value]:
            raise ConfigError(
                f"--resume with {given[0]}",
                "the run as it was configured",
                f"aha train --resume {resume}",
            )
        from aha.api.logged_run import loggers_of
        from aha.cli.run_in_terminal import RunOptions, resume_run

        options = RunOptions(budget, dash, ranks=number, loggers=loggers_of(log, resume))
        resume_run(resume, options, changes, accept_changes)
        return
    if accept_changes:
        raise ConfigError(
            "--accept-changes without --resume", "a run to go on with", "leave it out"
        )
    if recipe is None:
        raise ConfigError("no recipe", f"one of {', '.join(packaged_recipes())}, or a TOML file")
    path = find_recipe(recipe)
    run = new_run_path(name, path.stem)
    cfg = load_recipe(path, changes)
    from aha.api.logged_run import loggers_of
    from aha.cli.run_in_terminal import RunOptions, start_run

    shared = (dry_run, probe, calibration, number, loggers_of(log))
    start_run(cfg, run, RunOptions(budget, dash, *shared))
