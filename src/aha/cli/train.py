"""`aha train`: start a run of a recipe, or resume a run that was stopped."""

from pathlib import Path

from aha.algo.recipe import load_recipe
from aha.cli.parameters import Budget, CalibrationFile, Dash, DryRun, Probe, RecipeName, RunName
from aha.cli.recipe_keys import Overrides, find_recipe, free_name, overrides_of, packaged_recipes
from aha.core.errors import ConfigError


def train(
    recipe: RecipeName | None = None,
    *,
    name: RunName = None,
    resume: Path | None = None,
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
        Run folder to resume from its last checkpoint.
    dry_run
        Print the resolved recipe, and the plan on the error stream, and exit.
    """
    changes = overrides_of(overrides)
    if resume is not None:
        if recipe or changes or probe or calibration:
            raise ConfigError("--resume with a recipe or overrides", "the run as it was configured")
        from aha.cli.run_in_terminal import resume_run

        resume_run(resume, budget, dash)
        return
    if recipe is None:
        raise ConfigError("no recipe", f"one of {', '.join(packaged_recipes())}, or a TOML file")
    path = find_recipe(recipe)
    run = Path("runs") / (name or free_name(path.stem))
    cfg = load_recipe(path, changes)
    from aha.cli.run_in_terminal import RunOptions, start_run

    start_run(cfg, run, RunOptions(budget, dash, dry_run, probe, calibration))
