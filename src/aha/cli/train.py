"""`aha train`: start a run of a recipe, or resume a run that was stopped."""

import os
from pathlib import Path

from aha.algo.recipe import load_recipe
from aha.cli.parameters import (
    Budget,
    CalibrationFile,
    Dash,
    DryRun,
    Flag,
    Probe,
    RecipeName,
    RunName,
)
from aha.cli.recipe_keys import Overrides, find_recipe, free_name, overrides_of, packaged_recipes
from aha.core.errors import ConfigError

MAX_NAME_BYTES = 200  # file systems take 255, and a new run has a longer name while it is made


def train(
    recipe: RecipeName | None = None,
    *,
    name: RunName = None,
    resume: Path | None = None,
    accept_changes: Flag = False,
    budget: Budget = None,
    dash: Dash = None,
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
    if resume is not None:
        unused = {"a recipe": recipe, "--name": name, "--dry-run": dry_run}
        unused |= {"--probe": probe, "--calibration": calibration}
        if given := [word for word, value in unused.items() if value]:
            raise ConfigError(
                f"--resume with {given[0]}",
                "the run as it was configured",
                f"aha train --resume {resume}",
            )
        from aha.cli.sft import is_tuning, resume_tuning

        if is_tuning(resume):
            resume_tuning(resume, budget, accept_changes, changes)
            return
        from aha.cli.run_in_terminal import resume_run

        resume_run(resume, budget, dash, changes, accept_changes)
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
    from aha.cli.run_in_terminal import RunOptions, start_run

    start_run(cfg, run, RunOptions(budget, dash, dry_run, probe, calibration))


def new_run_path(name: str | None, stem: str) -> Path:
    """runs/NAME; without a name that of the recipe, numbered. Raises `ConfigError` for a name that
    is none of a single folder."""
    if name is None:
        name = free_name(stem)
    separators = {"/", os.sep, os.altsep or os.sep, "\0"}
    if not name.strip() or name.startswith((".", "-")) or separators & {*name}:
        raise ConfigError(
            f"--name {name!r}", "the name of one folder in runs/", f"--name {plain_name(name)}"
        )
    if len(name.encode(errors="surrogateescape")) > MAX_NAME_BYTES or not name.isprintable():
        raise ConfigError(
            f"--name {name[:40]!r} ..." if len(name) > 40 else f"--name {name!r}",
            f"at most {MAX_NAME_BYTES} bytes of printable text",
            f"--name {plain_name(name)}",
        )
    return Path("runs") / name


def plain_name(name: str) -> str:
    """A name that is allowed and looks like this one."""
    kept = "".join(c if c.isalnum() and c.isascii() or c in "-_." else "-" for c in name)
    return kept.strip("-.")[:40] or "mine"
