"""A training whose processes come from a launcher: this command itself, torchrun, or Ray."""

import atexit
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from aha.cli.error_translation import as_user_error
from aha.cli.exit_codes import code_of
from aha.cli.terminal_text import say_line
from aha.cli.train_command import AUTO, TrainCommand
from aha.core.errors import AhaError
from aha.dist.rank_place import Launcher, RankPlace, launcher_of, place_of

Started = Annotated[
    Launcher | None,
    Parameter(
        name="--launcher",
        help="What starts the ranks: local, this command itself; torchrun, as in `torchrun ... -m "
        "aha train RECIPE`, which is noticed without this option; ray, on a Ray cluster (the extra "
        "[ray]).",
    ),
]
RESTARTS = 3  # by Ray, after a worker or a machine is lost


def run_launched(command: TrainCommand, launcher: Launcher | None, ranks: int | None) -> None:
    """Carry the command out on `ranks` ranks of a launcher. Ends the program with the run's exit
    code, if that is not 0."""
    chosen = launcher_of(launcher, ranks, os.environ)
    command.check()
    if chosen == "torchrun":
        run_as_rank(command, place_of(os.environ))
    elif chosen == "ray":
        run_on_ray(command, ranks or command.ranks_before())
    else:
        command.carry_out(ranks)


def run_as_rank(command: TrainCommand, place: RankPlace) -> None:
    """The part of this process in a run that torchrun has started. Ends the program with code 0
    where the run ended as it should: done, stopped, or its budget spent."""
    try:
        code = work_of_rank(command, place)
    except BaseException as error:
        # gloo's threads may wait for a rank that is gone, and the interpreter for them.
        atexit.register(leave_at_once, code_of(error))
        known = error if isinstance(error, AhaError) else None
        if isinstance(error, Exception) and known is None:
            known = as_user_error(error)
        if place.rank and known is not None:
            say_line(f"aha: rank {place.rank}: {known}", sys.stderr)
            sys.exit(code_of(known))
        raise
    if code:  # of a run that was stopped, or has spent its budget
        # torchrun takes every code but 0 for a fault, and would start the ranks again.
        say_line(f"aha: exit code 0 in place of {code}, so that torchrun ends too", sys.stderr)


def work_of_rank(command: TrainCommand, place: RankPlace) -> int:
    """The work of one rank of several, from its first meeting with the others to the last.

    Returns the exit code of the run, 0 in ranks other than 0.
    """
    from aha.dist.joined_ranks import joined
    from aha.training.joint_work import check_groups
    from aha.training.same_run import compare_settings, nothing_to_begin, work_for_rank_0

    if command.resume in (None, AUTO):
        # Before anybody waits for anybody.
        check_groups(place.size, command.cfg, True, command.shard)
    with joined(place) as ranks:
        compare_settings(ranks.world, command.settings())
        if place.rank:
            work_for_rank_0(ranks)
            return 0
        code = returned(lambda: command.carry_out(place.size, ranks.kept("run")))
        nothing_to_begin(ranks)
    return code


def returned(work: Callable[[], None]) -> int:
    """The exit code with which some work would end the program."""
    try:
        work()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def leave_at_once(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


# -- Ray -------------------------------------------------------------------------------------------


class RayWork:
    """What each worker of Ray does: the part of a rank, in the folder of the command.

    Called with the place of the worker, it returns the exit code of the run. An error that a user
    can mend is returned as well, as it would come again after every restart; a lost rank is raised.
    """

    def __init__(self, command: TrainCommand, folder: Path):
        self.command, self.folder = command, folder

    def __call__(self, place: RankPlace) -> int | AhaError:
        from aha.dist.joined_ranks import is_of_another

        if not self.folder.is_dir():
            return no_folder(self.folder, place)
        os.chdir(self.folder)
        try:
            return work_of_rank(self.command, place)
        except AhaError as error:
            if is_of_another(error):
                raise
            return error


def no_folder(folder: Path, place: RankPlace) -> AhaError:
    from aha.core.errors import RunError

    return RunError(
        f"rank {place.rank} has no folder {folder}, in which the command was given",
        "a folder that all machines see under the same name",
        "give the command in a folder of a shared disk (NFS, Lustre)",
    )


def repeatable(command: TrainCommand) -> TrainCommand:
    """The command in the form in which workers that start again go on with what they have begun.

    Raises `RunError` where its new run exists already.
    """
    if command.resume == AUTO or command.dry_run:
        return command
    if command.resume is not None:
        from aha.cli.fork import at_step

        # Else each attempt would go on in a new copy of RUN@STEP.
        return replace(command, resume=at_step(command.resume))
    from aha.store.run_folder import check_new

    check_new(command.path)
    recipe = command.recipe or command.recipe_file.stem  # a packaged one
    return replace(command, recipe=recipe, name=command.path.name, resume=AUTO)


def run_on_ray(command: TrainCommand, ranks: int) -> None:
    """Carry the command out on `ranks` workers of Ray. Ends the program with the run's exit code,
    if that is not 0."""
    from aha.dist.ray_launcher import run_workers
    from aha.training.joint_work import check_groups
    from aha.training.rank_choice import gpus_of_workers

    if command.resume in (None, AUTO):
        check_groups(ranks, command.cfg, shard=command.shard)
    work = RayWork(repeatable(command), Path.cwd())
    gpus = gpus_of_workers(*command.model())
    end = run_workers(work, ranks, RESTARTS, work.folder, gpus)
    if isinstance(end, AhaError):
        raise end
    if end:
        sys.exit(end)
