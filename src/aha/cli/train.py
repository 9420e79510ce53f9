"""`aha train`: start a run of a recipe, or resume a run that was stopped."""

from pathlib import Path

from aha.cli.launched import Started, run_launched
from aha.cli.parameters import (
    Anyway,
    Budget,
    CalibrationFile,
    Dash,
    DryRun,
    Flag,
    JsonLines,
    Log,
    Probe,
    RecipeOfRun,
    RunName,
    ShardBy,
    SharedBy,
    number_of_ranks,
)
from aha.cli.recipe_keys import Overrides, overrides_of
from aha.cli.train_command import TrainCommand


def train(
    recipe: RecipeOfRun | None = None,
    *,
    name: RunName = None,
    resume: Path | None = None,
    accept_changes: Flag = False,
    budget: Budget = None,
    dash: Dash = None,
    ranks: SharedBy = None,
    launcher: Started = None,
    shard: ShardBy = None,
    log: Log = None,
    dry_run: DryRun = False,
    probe: Probe = False,
    calibration: CalibrationFile = None,
    as_json: JsonLines = False,
    anyway: Anyway = False,
    overrides: Overrides = None,
) -> None:
    """Train with a recipe (a packaged name or a TOML file); `--section.key value` overrides it.

    Exit code 0: the run is done. 1: a fault has ended it. 2: wrong command. 3: the budget is spent.
    130 after Ctrl-C, 143 after SIGTERM: it has stopped after a step, with a checkpoint.

    Parameters
    ----------
    resume
        Run folder to resume from its newest whole checkpoint; of RUN@STEP a copy goes on from that
        step. With more --steps or --tokens it goes on for longer, a finished run too. The learning
        rate falls until the new last step, so at that place it rises; with --optim.final_lr 1 from
        the beginning it does not. auto, with a recipe and --name: begin that run, or go on with it
        where it has begun, for programs that repeat a command.
    accept_changes
        Resume although base, data, recipe or task code are not what the run began with.
    dry_run
        Print the resolved recipe, and the plan on the error stream, and exit.
    """
    changes = overrides_of(overrides)
    number = None if ranks is None else number_of_ranks(ranks)
    words = (recipe, name, resume, accept_changes, budget, dash, log)
    given = (*words, dry_run, probe, calibration, as_json, anyway, shard)
    run_launched(TrainCommand(*given, changes), launcher, number)
