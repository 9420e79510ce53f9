"""`aha study priming` and the other studies that train: cells side by side, each a process."""

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from aha.cli.lab import seed_numbers
from aha.cli.parameters import AT_LEAST_1, Flag, UsdPerHour, Watts, whole
from aha.cli.study import StudyPlan, run_study

if TYPE_CHECKING:
    from aha.studies.training_study import TrainingStudy

SeedList = Annotated[
    str | None,
    Parameter(help="Separated by commas; a verdict needs three. Default: 0,1,2, with --quick 0."),
]
SmokeRun = Annotated[Flag, Parameter(help="A smoke run of minutes: everything is tiny.")]
StudyOut = Annotated[
    Path | None,
    Parameter(help="Folder of the study. Default: runs/studies/NAME, with --quick NAME-quick."),
]
Processes = Annotated[
    int | None,
    Parameter(
        converter=whole,
        validator=AT_LEAST_1,
        help="Cells done side by side, each in a process with its share of the cores. Default: the "
        "number of cores, on a GPU one.",
    ),
]


def priming(
    *,
    seeds: SeedList = None,
    quick: SmokeRun = False,
    out: StudyOut = None,
    processes: Processes = None,
    dry_run: StudyPlan = False,
    usd_per_hour: UsdPerHour = None,
    watts: Watts = None,
) -> None:
    """Study which examples before RL let a base without behaviours improve.

    Writes OUT/study.html and OUT/study.json; after a stop, the same command continues.
    """
    from aha.studies.priming_study import PrimingStudy

    study = PrimingStudy(chosen_seeds(seeds, quick), quick)
    carry_out_study(study, out, processes, dry_run, (usd_per_hour, watts))


def chosen_seeds(seeds: str | None, quick: bool) -> list[int]:
    """The seeds as typed, or the default."""
    return seed_numbers(seeds if seeds is not None else "0" if quick else "0,1,2")


def carry_out_study(
    study: "TrainingStudy",
    out: Path | None,
    processes: int | None,
    dry_run: bool,
    price: tuple[float | None, float | None],
) -> None:
    """A study that trains, in its folder."""
    from aha.machine.device import has_cuda
    from aha.machine.host import num_cores
    from aha.studies.study_frame import Machine, StudyFolder

    name = f"{study.name}-quick" if study.quick else study.name
    command = shlex.join(["aha", *sys.argv[1:]])
    folder = StudyFolder(study, out or Path("runs/studies") / name, command)
    side_by_side = processes or (1 if has_cuda() else num_cores() or 1)
    run_study(folder, Machine.here(*price), dry_run, side_by_side)
