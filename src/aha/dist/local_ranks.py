"""The launcher `local`: a command starts its ranks itself, as processes of this machine.

The process of the command is rank 0: it alone prints, writes files and hears Ctrl-C. The others
are started fresh, because the fork of a process with threads may hang. They meet through a file in
a private folder and then through the loopback, so no port is chosen, and no network is needed.
Each has its share of the cores as threads. However rank 0 ends, the others end with it.
"""

import multiprocessing
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, MutableSequence, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, resource_tracker
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from aha.core.errors import ConfigError, RunStopped
from aha.core.sizes import ONE_THREAD_MODEL
from aha.dist.patience import Patience, is_gone, work_of
from aha.dist.rank_device import SeenGpus, check_gpus
from aha.dist.rank_place import refuse_copies
from aha.dist.world import RankLost, World
from aha.machine.device import num_threads
from aha.machine.host import usable_cores

if TYPE_CHECKING:
    from aha.dist.process_group_world import ProcessGroupWorld

Work = Callable[[World], object]

LATE_S = 90.0  # how long the ranks wait for one that does nothing
START_S = 120.0  # the same for one that loads torch; and how long they may take to connect
REPORT_S = 10.0  # how long rank 0 waits for the reason when another rank is gone
MOST_PER_CORE, ALWAYS_ALLOWED = 4, 16
LOOPBACK = {"linux": "lo", "darwin": "lo0"}
LOST_RANK = "ranks"  # the check of a RunStopped that says that a rank is gone
AGAIN = "start it again: it goes on from its last checkpoint; --ranks 1 works alone"


def choose_ranks(ranks: int | None, device: torch.device, parameters: int, most: int) -> int:
    """The number of ranks for a model with so many parameters.

    `ranks` None chooses: on a CPU with a small model one for each thread that torch would use, up
    to `most`, for which there is work enough; else 1, on GPUs too: several of them were not tried
    yet. Raises ConfigError as `check_ranks` does.
    """
    if ranks is None:
        small = device.type == "cpu" and parameters < ONE_THREAD_MODEL
        usable = min(num_threads(), usable_cores(), most)
        return max(1, usable) if small and can_meet() else 1
    return check_ranks(ranks, device, "--device cpu")


def check_ranks(ranks: int, device: torch.device, on_cpu: str) -> int:
    """The number, if so many ranks that this command starts can work here; else raises ConfigError.
    `on_cpu`: the option that computes on the CPU."""
    cores = usable_cores()
    most = max(ALWAYS_ALLOWED, MOST_PER_CORE * cores)
    if ranks > most:
        raise ConfigError(f"--ranks {ranks} on {cores} cores", f"at most {most}", "--ranks auto")
    if ranks > 1 and device.type != "cpu":
        check_gpus(ranks, SeenGpus.here(device), on_cpu)
    if ranks > 1 and not can_meet():
        raise ConfigError(f"--ranks {ranks}, and this torch has no gloo", "1", "--ranks 1")
    return ranks


def rank_error(got: str, expected: str, again: str) -> RunStopped:
    """The error for a rank that is gone, or for ranks that cannot meet."""
    return RunStopped(got, expected, again, check=LOST_RANK)


def can_meet() -> bool:
    """Whether torch has what several ranks need."""
    return torch.distributed.is_available() and torch.distributed.is_gloo_available()


@dataclass
class Rank:
    """A process that rank 0 has started, with the end of the pipe that its reports come out of.

    A report is `READY`, then None at the end or the error that ended it. `again`: the fix of an
    error for a process that is gone.
    """

    number: int
    process: SpawnProcess
    pipe: "connection.Connection[Any, Any]"
    again: str
    error: BaseException | None = None
    ended: bool = False

    def read(self) -> None:
        """Take the next report, or the end of the process. Blocks until there is one."""
        try:
            report = self.pipe.recv()
        except (EOFError, OSError):
            self.process.join()
            self.ended = True
            self.error = None if self.process.exitcode == 0 else self.killed()
            return
        self.ended, self.error = report != READY, report if report != READY else None

    @property
    def pid(self) -> int:
        assert self.process.pid is not None, "it has been started"
        return self.process.pid

    def __str__(self) -> str:
        return f"rank {self.number} (process {self.pid})"

    def killed(self) -> RunStopped:
        """The error for a process that ended without a report."""
        code = self.process.exitcode or 0
        how = f"with exit code {code}"
        if code < 0:
            with suppress(ValueError):
                how = f"by {signal.Signals(-code).name}"
        memory = "; the system does this when memory runs out" if code == -signal.SIGKILL else ""
        got = f"{self} was ended {how}{memory}"
        return rank_error(got, "ranks that work to the end", self.again)


READY = "ready"


def signs_of(ranks: Sequence[Rank], pulses: Sequence[int] = ()) -> tuple[float, bool]:
    """(a number that changes where one of these ranks works, whether one wants a processor)."""
    used, running = work_of(rank.pid for rank in ranks)
    return used + sum(pulses), running


class LocalRanks:
    """A context manager that starts `size` - 1 ranks, each of which calls `work(world)`.

    `with LocalRanks(...) as world:` the body is the work of rank 0, and must make the same calls of
    `world`, which is there before as `ranks.world`. `work` must be picklable. `again` is the fix of
    an error: how to go on. At the end the other ranks are waited for. Where a rank ends
    too early, the body's next call fails, all are ended, and the rank's own error is raised: that
    which ended it, or RunStopped with its number where it was killed, or keeps the others waiting
    and does nothing for `late_s` seconds. With `size` 1 nothing is started.
    """

    def __init__(self, size: int, work: Work, late_s: float = LATE_S, again: str = AGAIN):
        refuse_copies("this work", os.environ)
        self.size, self.work, self.late_s, self.again = size, work, late_s, again
        self.ranks: list[Rank] = []
        self.late: list[Rank] = []
        self.over = Event()
        self.world = World()
        if size > 1:
            from aha.dist.process_group_world import ProcessGroupWorld

            context = multiprocessing.get_context("spawn")
            self.seats, self.pulses = context.RawArray("q", size), context.RawArray("q", size)
            self.world = self.meetings = ProcessGroupWorld(0, self.seats, self.pulses)

    def __enter__(self) -> World:
        if self.size == 1:
            return self.world
        self.threads = num_threads()
        self.folder = Path(tempfile.mkdtemp(prefix="aha-ranks-"))
        try:
            own = max(1, min(self.threads, usable_cores()) // self.size)
            self.start(own)
            torch.set_num_threads(own)
            self.meetings.connect(store_of(self.folder, self.size), START_S)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        Thread(target=self.watch, args=(self.meetings,), daemon=True).start()
        return self.world

    def start(self, threads: int) -> None:
        """Start the processes and wait until each has loaded its libraries."""
        context = multiprocessing.get_context("spawn")
        # A process inherits the mask of blocked signals. Ctrl-C goes to all processes of a
        # terminal; rank 0 alone hears it, and tells the others.
        resource_tracker.ensure_running()  # else the first start does this, and unblocks Ctrl-C
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            for number in range(1, self.size):
                ours, theirs = context.Pipe(duplex=False)
                world = (number, self.seats, self.pulses)
                setting = (str(self.folder), threads, self.work)
                process = context.Process(target=work_as_rank, args=(theirs, world, *setting))
                process.start()
                theirs.close()  # so that the pipe ends when the process does
                self.ranks.append(Rank(number, process, ours, self.again))
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for rank in self.ranks:
            patience = Patience(START_S)
            while not rank.pipe.poll(patience.tick):
                if patience.over(*signs_of([rank])):
                    got = f"{rank} does not start, and has done nothing for {START_S:.0f} s"
                    raise rank_error(got, "a machine that starts a process", self.again)
            rank.read()
            if rank.ended:
                raise RankLost("the start", "it ended")

    def watch(self, world: "ProcessGroupWorld") -> None:
        """End the ranks if one that does nothing keeps rank 0 waiting for `late_s` seconds. Then
        their sockets close, and rank 0 gets an error. A GPU gets none: its meeting is ended."""
        patience, meeting = Patience(self.late_s), 0
        while not self.over.wait(patience.tick):
            if world.place and any(is_gone(rank.pid) for rank in self.ranks):
                world.abort_device()
            if not world.place or self.seats[0] != meeting:
                patience, meeting = Patience(self.late_s), self.seats[0]
                continue
            missing = [rank for rank in self.ranks if self.seats[rank.number] < meeting]
            if patience.over(*signs_of(missing or self.ranks, self.pulses)):
                self.late = missing or self.ranks
                self.kill()
                world.abort_device()
                return

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.size == 1:
            return
        try:
            if error is None:
                self.wait_for_end()
            elif isinstance(error, RankLost):
                raise self.reason(error) from None
        finally:
            self.over.set()
            self.kill()
            if error is not None:
                self.meetings.abort_device()  # else to leave its group may wait for who has gone
            for rank in self.ranks:
                rank.process.join()
                rank.pipe.close()
            self.meetings.close()
            torch.set_num_threads(self.threads)
            shutil.rmtree(self.folder, ignore_errors=True)

    def kill(self) -> None:
        for rank in self.ranks:
            rank.process.kill()

    def wait_for_end(self) -> None:
        """Wait for the end of all ranks; raises the error of the first that has one."""
        self.listen(self.late_s, lambda: False)
        for rank in self.ranks:
            if rank.error:
                raise rank.error
            if not rank.ended:
                got = f"{rank} does not end {self.late_s:.0f} s after rank 0"
                raise rank_error(got, "ranks that end together", self.again)

    def reason(self, lost: RankLost) -> BaseException:
        """Why the ranks could not meet: the error of the rank that did not come.

        A rank that merely missed another one has no reason to offer.
        """
        if self.late:
            names = ", ".join(map(str, self.late))
            got = f"{names} did not come to {lost.place}, and did nothing for {self.late_s:.0f} s"
            return rank_error(got, "ranks that work to the end", self.again)
        self.listen(REPORT_S, lambda: bool(self.own_errors()))
        for error in self.own_errors():
            return error
        got = f"the ranks could not meet at {lost.place}: {lost.reason}"
        return rank_error(got, "ranks that reach each other", self.again)

    def own_errors(self) -> list[BaseException]:
        """Errors that no other rank's end has caused."""
        errors = [rank.error for rank in self.ranks if rank.error]
        return [error for error in errors if not isinstance(error, RankLost)]

    def listen(self, seconds: float, enough: Callable[[], bool]) -> None:
        """Read reports until all ranks have ended, it is enough, or the time is over."""
        deadline = time.monotonic() + seconds
        while not enough():
            open_ranks = {rank.pipe: rank for rank in self.ranks if not rank.ended}
            left = deadline - time.monotonic()
            if not open_ranks or left <= 0:
                return
            for pipe in connection.wait(list(open_ranks), left):
                open_ranks[pipe].read()  # type: ignore[index]


# -- inside a rank ---------------------------------------------------------------------------------


def prefer_loopback() -> None:
    """The ranks are on one machine, so the loopback is the way: a machine whose name means nothing
    to its network would not find itself."""
    if sys.platform in LOOPBACK:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK[sys.platform])


def store_of(folder: Path, size: int) -> Any:
    """The file through which the ranks find each other."""
    prefer_loopback()
    return torch.distributed.FileStore(str(folder / "meeting"), size)


def work_as_rank(
    pipe: "connection.Connection[Any, Any]",
    place: tuple[int, MutableSequence[int], MutableSequence[int]],
    folder: str,
    threads: int,
    work: Work,
) -> None:
    """The life of a rank other than 0: its work, then a report. `place` makes its world."""
    Thread(target=end_with_rank_0, daemon=True).start()
    from aha.dist.process_group_world import ProcessGroupWorld

    world: ProcessGroupWorld | None = None
    report: BaseException | None = None
    try:
        torch.set_num_threads(threads)
        pipe.send(READY)
        world = ProcessGroupWorld(*place)
        world.connect(store_of(Path(folder), world.size), START_S)
        work(world)
    except BaseException as error:
        report = as_report(error, place[0])
    # First the report, then the end of the connections that rank 0 notices.
    with suppress(OSError):  # rank 0 is gone
        pipe.send(report)
    if world is not None:
        if report is not None:
            world.abort_device()
        world.close()


def as_report(error: BaseException, number: int) -> BaseException:
    """The error in a form that crosses the pipe, with the lines where it was raised as a note."""
    with suppress(Exception):
        copy = pickle.loads(pickle.dumps(error))
        if isinstance(copy, BaseException) and str(copy) == str(error):
            error.add_note(f"In rank {number}:\n{traceback.format_exc()}")
            return error
    return RuntimeError(f"in rank {number}: {traceback.format_exc()}")


def end_with_rank_0() -> None:
    """End this process when rank 0 does, which may be killed and say nothing."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "rank 0 has started this process"
    parent.join()
    os._exit(1)
