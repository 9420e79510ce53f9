"""`aha study priming` and the other studies that train: cells side by side, each a process."""

import shlex
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from aha.cli.lab import seed_numbers
from aha.cli.parameters import AT_LEAST_1, Flag, UsdPerHour, Watts, whole
from aha.cli.study import StudyOut, StudyPlan, run_study, study_path

if TYPE_CHECKING:
    from aha.studies.training_study import TrainingStudy

SeedList = Annotated[
    str | None,
    Parameter(help="Separated by commas; a verdict needs three. Default: 0,1,2, with --quick 0."),
]
SmokeRun = Annotated[Flag, Parameter(help="A smoke run of minutes: everything is tiny.")]
Processes = Annotated[
    int | None,
    Parameter(
        converter=whole,
        validator=AT_LEAST_1,
        help="Cells done side by side, each in a process with its share of the cores. Default: the "
        "number of cores, on a GPU one.",
    ),
]
# By name: the module with its class, and what it is about.
STUDIES = {
    "priming": ("priming_study:PrimingStudy", "which examples before RL let a base improve"),
    "corpus": ("corpus_study:CorpusStudy", "how much of the behaviours a base must have read"),
    "size": ("size_study:SizeStudy", "whether task and model can shrink together"),
    "search": (
        "search_study:SearchStudy",
        "whether a base should read searches or solutions, and what STaR or RL adds",
    ),
    "sharpen": ("sharpen_study:SharpenStudy", "what RL changes in pass@1 to pass@64"),
    "data": (
        "data_study:DataStudy",
        "which problems RL should get, and how many wrong grades it bears",
    ),
    "task-mix": ("mix_study:MixStudy", "whether a second task helps or harms"),
}


def command_for(name: str, about: str) -> Callable[..., None]:
    """The command of a study."""

    def command(
        *,
        seeds: SeedList = None,
        quick: SmokeRun = False,
        out: StudyOut = None,
        processes: Processes = None,
        dry_run: StudyPlan = False,
        usd_per_hour: UsdPerHour = None,
        watts: Watts = None,
    ) -> None:
        study = study_of(name, seeds, quick)
        carry_out_study(study, out, processes, dry_run, (usd_per_hour, watts))

    command.__name__ = name.replace("-", "_")
    command.__doc__ = (
        f"Study {about}.\n\n"
        "Writes OUT/study.html and OUT/study.json; after a stop, the same command continues."
    )
    return command


priming, corpus, size, search, sharpen, data, task_mix = (
    command_for(name, about) for name, (_, about) in STUDIES.items()
)


def study_of(name: str, seeds: str | None, quick: bool) -> "TrainingStudy":
    """The study of this name, with the seeds as typed or the default."""
    module, _, kind = STUDIES[name][0].partition(":")
    numbers = seed_numbers(seeds if seeds is not None else "0" if quick else "0,1,2")
    study: TrainingStudy = getattr(import_module(f"aha.studies.{module}"), kind)(numbers, quick)
    return study


def carry_out_study(
    study: "TrainingStudy",
    out: Path | None,
    processes: int | None,
    dry_run: bool,
    price: tuple[float | None, float | None],
) -> None:
    """A study that trains, in its folder."""
    from aha.machine.device import has_cuda
    from aha.machine.host import usable_cores
    from aha.studies.study_frame import Machine, StudyFolder

    command = shlex.join(["aha", *sys.argv[1:]])
    folder = StudyFolder(study, out or study_path(study.name, study.quick), command)
    side_by_side = processes or (1 if has_cuda() else usable_cores())
    run_study(folder, Machine.here(*price), dry_run, side_by_side)
