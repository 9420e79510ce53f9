"""Cells side by side, each in a process of its own with its share of the cores.

A process that crashes, is killed or runs out of memory is a failed cell, and takes no other down. A
stop reaches every process as a SIGTERM: trainings finish their step and save. Processes end with
the one that has started them, however that ends.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from threading import Thread

from aha.corpus.writers import end_with_parent
from aha.machine.host import usable_cores
from aha.studies.cell_files import Cell, CellFiles, CellRunner, CellStopped, carry_out
from aha.training.loop import Interrupt

LOOK_EVERY_S = 0.5  # for a signal, while no process ends
STOPPED = 64  # added to the number of a signal: the exit code of a cell that one has stopped


def work(study: CellRunner, cell: Cell, out: Path, processes: int) -> None:
    """The life of a process: one cell."""
    Thread(target=end_with_parent, daemon=True).start()
    log = CellFiles(out).path(cell, "log").open("a", encoding="utf-8", buffering=1)
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    try:
        # Whatever goes wrong is this cell's: a fault of the program as well.
        carry_out(study, cell, out, processes, (Exception,))
    except CellStopped as stop:
        sys.exit(STOPPED + stop.number)


@contextmanager
def threads_of_children(threads: int) -> Iterator[None]:
    """Processes that are started meanwhile compute with so many threads. torch reads the number
    when it is imported, and reading the study imports it: before `work` has its first line."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


class CellProcesses:
    """Runs cells, at most `size` at a time, in their order as far as what they need is done.

    `ended(cell)` is called after each, with its file or its error on the disk; `begun(cell)` before
    each. Use `run` once.
    """

    def __init__(
        self,
        study: CellRunner,
        out: Path,
        size: int,
        begun: Callable[[Cell], None],
        ended: Callable[[Cell], None],
    ):
        self.study, self.out, self.size = study, out, size
        self.begun, self.ended = begun, ended
        self.files = CellFiles(out)
        # By the process's sentinel, with the time when it was started.
        self.running: dict[int, tuple[Cell, SpawnProcess, float]] = {}
        self.handed_on = False  # a stop, to the processes

    def run(self, cells: Sequence[Cell], done: Collection[str]) -> int | None:
        """All cells that can be done; `done` are names of others. Returns the number of the signal
        that has stopped them, None without one. A cell whose needs failed is left out."""
        waiting, finished = list(cells), {*done}
        with Interrupt() as stop:
            try:
                while True:
                    while not stop() and len(self.running) < self.size:
                        cell = next((c for c in waiting if finished.issuperset(c.needs)), None)
                        if cell is None or not self.has_room(cell):
                            break
                        waiting.remove(cell)
                        self.start(cell)
                    if not self.running:
                        return stop.signal
                    for cell in self.ends(stop):
                        if self.files.path(cell).is_file():
                            finished.add(cell.name)
                        self.ended(cell)
            finally:
                self.kill()

    def has_room(self, cell: Cell) -> bool:
        """Whether a cell may run beside those that are running."""
        return not self.running or not any(c.alone for c in (cell, *self.running_cells))

    @property
    def running_cells(self) -> list[Cell]:
        """The cells that are running."""
        return [cell for cell, _, _ in self.running.values()]

    def start(self, cell: Cell) -> None:
        """Begin a cell. Ctrl-C goes to all processes of a terminal; this one alone hears it, and
        tells the others."""
        self.begun(cell)
        context = multiprocessing.get_context("spawn")
        threads = usable_cores() if cell.alone else max(1, usable_cores() // self.size)
        resource_tracker.ensure_running()  # else the first start does this, and unblocks Ctrl-C
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process = context.Process(target=work, args=(self.study, cell, self.out, self.size))
            with threads_of_children(threads):
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self.running[process.sentinel] = cell, process, time.time()

    def ends(self, stop: Interrupt) -> list[Cell]:
        """Wait until at least one process has ended; returns the cells that are done or failed. A
        stop is handed on once."""
        while not (ready := wait(list(self.running), LOOK_EVERY_S)):
            if stop() and not self.handed_on:
                self.handed_on = True  # a second signal would end them at once
                for _, process, _ in self.running.values():
                    process.terminate()
        over = []
        for sentinel in ready:
            assert isinstance(sentinel, int), "what was waited for"
            cell, process, begun = self.running.pop(sentinel)
            process.join()
            self.note_try(cell, begun)
            code = process.exitcode or 0
            if stop() and (code > STOPPED or code == -signal.SIGTERM):
                continue
            has_file = self.files.path(cell).is_file() or self.files.error_of(cell) is not None
            if not has_file:
                words = f"ended with code {code}"
                if code > STOPPED:  # a signal to this process, and not to the study
                    words = f"was stopped by signal {code - STOPPED}"
                log = self.files.path(cell, "log")
                self.files.keep_error(cell, f"its process {words}; see {log}")
            over.append(cell)
        return over

    def note_try(self, cell: Cell, begun: float) -> None:
        """Write down for how long a process has worked that was ended before it could."""
        work = self.files.work_of(cell)
        if work is not None and not (work.tries and work.tries[-1][1] >= begun):
            self.files.begin(cell, work.with_lost_try(begun))

    def kill(self) -> None:
        """End what is left, where this process itself is ended."""
        for _, process, _ in self.running.values():
            process.kill()
        for cell, process, begun in self.running.values():
            with suppress(OSError):
                process.join()
                self.note_try(cell, begun)
