"""`aha demo`: a run of the packaged recipe `demo`, complete in minutes."""

from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe, new_run_path
from aha.cli.parameters import (
    CalibrationFile,
    Dash,
    DryRun,
    JsonLines,
    Log,
    Probe,
    RunName,
    SharedBy,
    number_of_ranks,
)
from aha.cli.recipe_keys import Overrides, overrides_of


def demo(
    *,
    name: RunName = None,
    dash: Dash = None,
    ranks: SharedBy = None,
    log: Log = None,
    dry_run: DryRun = False,
    probe: Probe = False,
    calibration: CalibrationFile = None,
    as_json: JsonLines = False,
    overrides: Overrides = None,
) -> None:
    """Watch aha-tiny learn Countdown: evaluate, train, evaluate again, report card.

    Takes minutes on two CPU cores and no network. `--section.key value` overrides the recipe.

    Parameters
    ----------
    dry_run
        Print the resolved recipe, and the plan on the error stream, and exit.
    """
    cfg = load_recipe(find_recipe("demo"), overrides_of(overrides))
    run = new_run_path(name, "demo")
    from aha.api.logged_run import loggers_of
    from aha.cli.run_in_terminal import RunOptions, start_run

    number = None if ranks is None else number_of_ranks(ranks)
    shared = (dry_run, probe, calibration, number, loggers_of(log), as_json)
    start_run(cfg, run, RunOptions(None, dash, *shared))
