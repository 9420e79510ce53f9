"""The frame of every study: a grid of cells, each run once, judged together.

    OUT/cells/              a file for every cell that is done, failed or begun (`cell_files`)
    OUT/runs/               the trainings of the cells, ordinary run folders, where there are any
    OUT/study.json          everything: settings, results, verdicts, machine
    OUT/study.html          the page: figures, tables, verdicts; no script, no other file

A study has its cells and what one of them does; this module checks the grid, runs what is not done,
keeps results and writes the page as cells end. The same command goes on with what a stop has left:
in this process (`processes` None) it loses the cell that it is in, in processes of its own each
training goes on from its checkpoint.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from aha.core.errors import ConfigError, RunError
from aha.core.seeds import seed_for
from aha.machine.device import has_native_bf16
from aha.machine.host import loaded_gpu_name
from aha.plan.machines import CPU, CPU_FLOAT32, Cost, card_for, load_cards, price_of
from aha.plan.speed import Card
from aha.store.durable import to_json, write_text
from aha.store.run_folder import environment
from aha.store.run_lock import RunLock
from aha.studies.cell_files import (
    Cell,
    CellFiles,
    CellRecord,
    CellStopped,
    CellWork,
    Result,
    carry_out,
    clock_seconds,
)
from aha.studies.cell_processes import CellProcesses
from aha.studies.study_page import StudyPage, page_html
from aha.web.run_comparison import config_differences

WRITE_EVERY_S = 30.0  # the page takes seconds where a study is large


class Study(Protocol):
    """What a study has to offer. Cells come in the order in which they are run: all with the first
    seed, then all with the second, so that one that is stopped has compared everything once."""

    name: str

    @property
    def cells(self) -> Sequence[Cell]: ...

    def seconds_of(self, cell: Cell, card: Card) -> float:
        """How long a cell will take on a machine, from shapes alone."""

    def run(self, cell: Cell, out: Path) -> Result:
        """As `CellRunner.run`. With processes of its own, a study must be picklable."""

    def page(self, done: Mapping[str, Result]) -> StudyPage:
        """The results so far, of the cells that are done."""


@dataclass(frozen=True)
class Machine:
    """The machine that a study is planned for and runs on."""

    card: Card
    usd_per_hour: float
    watts: float

    @classmethod
    def here(cls, usd_per_hour: float | None, watts: float | None) -> "Machine":
        """This one; its speed is that of its row in cards.toml, or of a CPU's without a row."""
        gpu, (_, cards) = loaded_gpu_name(), load_cards()
        name = card_for(gpu, cards) if gpu else None
        card = cards[name or (CPU if has_native_bf16() else CPU_FLOAT32)]
        return cls(card, *price_of(gpu, usd_per_hour, watts))

    def cost(self, seconds: float) -> Cost:
        """What so many seconds cost."""
        return Cost.of(seconds, self.usd_per_hour, self.watts)


def check_cells(cells: Sequence[Cell]) -> None:
    """Raises `ConfigError` for cells of one kind that differ in more than what the study varies,
    for two cells of one name or with the same settings, and for a need that no earlier cell is."""
    if not cells:
        raise ConfigError("a study without cells", "at least one")
    firsts: dict[str, Cell] = {}
    seen: dict[str, str] = {}
    names: set[str] = set()
    for cell in cells:
        first = firsts.setdefault(cell.kind, cell)
        for key, ours, theirs in config_differences(dict(first.shared), dict(cell.shared)):
            raise ConfigError(
                f"{key} {ours} in {first.name} and {theirs} in {cell.name}",
                f"cells that differ in {', '.join(first.varied)} alone",
                f"the same {key} for all of them",
            )
        own = {key: value for key, value in cell.settings.items() if key != "name"}
        twin = seen.setdefault(f"{cell.kind} {to_json(own)}", cell.name)
        if cell.name in names or twin != cell.name:
            raise ConfigError(f"the cell {cell.name} twice", "each cell once", "name it once")
        if missing := [need for need in cell.needs if need not in names]:
            raise ConfigError(f"{cell.name} needs {missing[0]}", "a cell that comes before it")
        names.add(cell.name)


def refuse_another(name: str, out: Path) -> None:
    """Raises `RunError` for a folder with the page of another study, which would be written over:
    the names of its cells are others, so that none of them is in the way."""
    try:
        there = json.loads((out / "study.json").read_text(encoding="utf-8"))["study"]
    except (OSError, ValueError, LookupError, TypeError):
        return  # there is none, or none that anybody reads: it is made from the cells
    if there != name:
        raise RunError(
            f"{out} has the study {there}",
            f"the folder of the study {name}, or a new one",
            "--out ANOTHER",
        )


class StudyFolder:
    """The folder of a study, and what is done of it. `command` is what was typed, for the file of
    results."""

    def __init__(self, study: Study, out: Path, command: str | None = None):
        check_cells(study.cells)
        refuse_another(study.name, out)
        self.study, self.out, self.command = study, out, command
        self.files = CellFiles(out)
        self.records: dict[str, CellRecord] = {}
        self.begun: dict[str, CellWork] = {}  # not done
        self.failed: dict[str, str] = {}
        for cell in study.cells:
            self.read(cell)

    def read(self, cell: Cell) -> None:
        """Take up what is on the disk of a cell. Raises as `CellFiles.read`."""
        record, error = self.files.read(cell), self.files.error_of(cell)
        self.failed.pop(cell.name, None)
        self.begun.pop(cell.name, None)
        if record is not None:
            self.records[cell.name] = record
            return
        if work := self.files.work_of(cell):
            self.begun[cell.name] = work
        if error is not None:
            self.failed[cell.name] = error

    def begin(self, cell: Cell, machine: Machine) -> None:
        """Write down that a cell begins, with its plan; of one that was stopped that is written.
        The reason why an earlier try failed goes."""
        self.failed.pop(cell.name, None)
        self.files.path(cell, "error").unlink(missing_ok=True)
        if cell.name not in self.begun:
            work = CellWork(planned_seconds=self.study.seconds_of(cell, machine.card))
            self.files.begin(cell, work)
            self.begun[cell.name] = work

    @property
    def done(self) -> dict[str, Result]:
        """The results of the cells that are done, by name."""
        return {name: record.result for name, record in self.records.items()}

    @property
    def to_do(self) -> list[Cell]:
        """The cells without a result."""
        return [cell for cell in self.study.cells if cell.name not in self.records]

    def planned_seconds(self, cells: Sequence[Cell], machine: Machine) -> float:
        """How long the machine has to do with these cells by the plan: that of before they began,
        since a base costs nothing once it is there."""
        return sum(self.planned(cell, machine) for cell in cells)

    def planned(self, cell: Cell, machine: Machine) -> float:
        """How long a cell takes by its plan."""
        record = self.records.get(cell.name)
        work = self.begun.get(cell.name) if record is None else record.work
        planned = None if work is None else work.planned_seconds
        return self.study.seconds_of(cell, machine.card) if planned is None else planned

    def clock_seconds(self) -> float | None:
        """For how long the study was at work, all cells together; None where an older version did
        cells side by side, of which it kept no clock times."""
        works = [record.work for record in self.records.values()]
        untold = [seconds for work in works if (seconds := work.untold_seconds) is not None]
        if len(untold) < len(works):
            return None
        tries = [one for work in [*works, *self.begun.values()] for one in work.tries]
        return clock_seconds(tries) + sum(untold)

    def plan_lines(self, machine: Machine) -> list[str]:
        """What there is to do, with the time of each cell, as lines to print."""
        lines = []
        for cell in self.study.cells:
            seconds = self.study.seconds_of(cell, machine.card)
            state = "done" if cell.name in self.records else f"{seconds:.0f} s"
            lines.append(f"{cell.name}: {state}")
        return lines

    def run_cells(
        self, machine: Machine, say: Callable[[str], None], processes: int | None = None
    ) -> int | None:
        """Do all that is not done, and write the results from time to time and at the end.

        `processes`: how many cells are done side by side, each in a process of its own; None: one
        after the other in this one. Returns the number of the signal that has stopped them. Raises
        `RunError` while another process works in the folder.
        """
        self.files.folder.mkdir(parents=True, exist_ok=True)
        lock = RunLock(self.out, say)
        progress = StudyProgress(self, machine, say)
        try:
            if processes is None:
                return self.run_here(progress)
            runner = CellProcesses(self.study, self.out, processes, progress.begun, progress.ended)
            stopped_by = runner.run(self.to_do, self.records)
            if stopped_by is None:
                self.name_left_out()
            return stopped_by
        finally:
            try:
                self.write(machine)
            finally:
                lock.release()

    def run_here(self, progress: "StudyProgress") -> int | None:
        """All cells in this process."""
        for cell in self.to_do:
            if not self.records.keys() >= {*cell.needs}:
                continue
            progress.begun(cell)
            try:
                carry_out(self.study, cell, self.out)
            except CellStopped as stop:
                return stop.number
            progress.ended(cell)
        self.name_left_out()
        return None

    def name_left_out(self) -> None:
        """Show the cells that were not run because what they need has failed."""
        for cell in self.to_do:
            lacking = [need for need in cell.needs if need not in self.records]
            if lacking and cell.name not in self.failed:
                self.failed[cell.name] = f"not run: it needs {lacking[0]}, which failed"

    def write(self, machine: Machine) -> StudyPage:
        """Write study.json and study.html with the results so far."""
        page, here = self.study.page(self.done), environment()
        self.begun = {c.name: work for c in self.to_do if (work := self.files.work_of(c))}
        records = self.records.values()
        # A page may be written again by a later version than that which did the cells.
        known = [one for record in records for one in record.work.commits]
        commits = list(dict.fromkeys(known)) or [str(here["commit"])]
        seconds = self.clock_seconds()
        cost = None if seconds is None else machine.cost(seconds)
        planned = self.planned_seconds(self.study.cells, machine)
        finished = [cell for cell in self.study.cells if cell.name in self.records]
        done = f"{len(self.done)} of {len(self.study.cells)} cells are done"
        planned_of_done = self.planned_seconds(finished, machine)
        about = [
            *page.about,
            f"{done}{cost_text(cost)} (these were planned with {planned_of_done / 60:.1f} minutes, "
            f"all with {planned / 60:.1f})",
            f"{here['machine']}, {here['cores']} cores, commit {' and '.join(commits)}",
        ]
        failed = [f"the cell {name} failed: {text}" for name, text in self.failed.items()]
        content = {
            "study": self.study.name,
            "command": self.command,
            "cells": [cell.settings | {"name": cell.name} for cell in self.study.cells],
            "done": sorted(self.records),
            "failed": self.failed,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds_of(list(records)),
            "planned_seconds": planned,
            "planned_seconds_of_done": planned_of_done,
            "usd": cost and cost.usd,
            "kwh": cost and cost.kwh,
            "notes": page.notes,
            "verdicts": page.verdicts,
            "results": page.results,
            "commits": commits,
            "environment": here,
        }
        write_text(self.out / "study.json", to_json(content, indent=1) + "\n")
        write_text(self.out / "study.html", page_html(page, about, failed))
        return page


def cost_text(cost: Cost | None) -> str:
    """`, in 12.0 minutes by the clock, 0.0160 USD, 0.0060 kWh`; nothing where it is not known."""
    if cost is None:
        return ""
    return (
        f", in {cost.seconds / 60:.1f} minutes by the clock, {cost.usd:.4f} USD, {cost.kwh:.4f} kWh"
    )


def cpu_seconds_of(records: Sequence[CellRecord]) -> float | None:
    """The processor time of all cells; None where one was not measured."""
    seconds = [record.work.cpu_seconds for record in records]
    known = [value for value in seconds if value is not None]
    return sum(known) if len(known) == len(seconds) else None


class StudyProgress:
    """Says what begins and ends, with the time that is left, and writes the page now and then."""

    def __init__(self, folder: StudyFolder, machine: Machine, say: Callable[[str], None]):
        self.folder, self.machine, self.say = folder, machine, say
        self.total, self.number = len(folder.to_do), 0
        self.written = time.perf_counter()

    def begun(self, cell: Cell) -> None:
        """Before a cell."""
        self.number += 1
        self.folder.begin(cell, self.machine)
        left = self.folder.planned_seconds(self.folder.to_do, self.machine)
        self.say(f"{self.number}/{self.total}  {cell.name}  (about {left / 60:.1f} min left)")

    def ended(self, cell: Cell) -> None:
        """After a cell."""
        self.folder.read(cell)
        if cell.name in self.folder.failed:
            self.say(f"failed: {cell.name}: {self.folder.failed[cell.name]}")
        if time.perf_counter() - self.written > WRITE_EVERY_S:
            self.write_page()
            self.written = time.perf_counter()

    def write_page(self) -> None:
        """The results so far. A page that fails must not end the cells that are running: all their
        results are files, and the page at the end raises what is wrong."""
        try:
            self.folder.write(self.machine)
        except Exception as error:
            self.say(f"no page yet: {type(error).__name__}: {error}")


def sampling_seed(seed: int, *names: object) -> int:
    """The seed of the draws of a cell, of a study's seed and of what the cell is about."""
    return seed_for(seed, "study", *names)
