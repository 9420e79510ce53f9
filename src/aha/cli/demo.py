"""`aha demo`: a run of the packaged recipe `demo`, complete in minutes."""

from aha.cli.launched import Started, run_launched
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
from aha.cli.train_command import TrainCommand


def demo(
    *,
    name: RunName = None,
    dash: Dash = None,
    ranks: SharedBy = None,
    launcher: Started = None,
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
    number = None if ranks is None else number_of_ranks(ranks)
    command = TrainCommand(
        *("demo", name, None, False, None, dash, log, dry_run, probe, calibration, as_json),
        overrides_of(overrides),
    )
    run_launched(command, launcher, number)
