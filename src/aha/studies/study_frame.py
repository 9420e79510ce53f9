"""The frame of every study: a grid of cells, each run once, judged together.

    OUT/cells/NAME.json     settings, seconds and result of a cell that is done
    OUT/cells/NAME.error    why a cell failed; the next run of the study tries it again
    OUT/study.json          everything: settings, results, verdicts, machine
    OUT/study.html          the page: figures, tables, verdicts; no script, no other file

A study has its cells and what one of them does; this module checks the grid, runs what is not done,
keeps results and writes the page after every cell. A study that is stopped loses the cell that it
is in. The same command goes on with the rest.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aha.core.errors import AhaError, ConfigError, RunError
from aha.core.seeds import seed_for
from aha.machine.device import has_native_bf16
from aha.machine.host import loaded_gpu_name
from aha.plan.machines import CPU, CPU_FLOAT32, Cost, card_for, load_cards, price_of
from aha.plan.speed import Card
from aha.store.durable import to_json, write_text
from aha.store.run_folder import environment
from aha.store.run_lock import RunLock
from aha.studies.study_page import StudyPage, page_html
from aha.web.run_comparison import config_differences

Result = dict[str, Any]
WRITE_EVERY_S = 30.0  # the page takes seconds where a study is large


@dataclass(frozen=True)
class Cell:
    """One place of the grid: `varied` is what the study varies, its seed included; `shared` must be
    the same in every cell. `name` is unique, and the name of a file."""

    name: str
    varied: Mapping[str, Any]
    shared: Mapping[str, Any]

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the result depends on, in JSON's types."""
        settings: dict[str, Any] = json.loads(to_json({**self.shared, **self.varied}))
        return settings


class Study(Protocol):
    """What a study has to offer. Cells come in the order in which they are run: all with the first
    seed, then all with the second, so that one that is stopped has compared everything once."""

    name: str

    @property
    def cells(self) -> Sequence[Cell]: ...

    def seconds_of(self, cell: Cell, card: Card) -> float:
        """How long a cell will take on a machine, from shapes alone."""

    def run(self, cell: Cell) -> Result:
        """Do a cell. An `AhaError` makes it a failed one."""

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
    """Raises `ConfigError` for cells that differ in more than what the study varies, and for two
    cells of one name or with the same settings."""
    if not cells:
        raise ConfigError("a study without cells", "at least one")
    first = cells[0]
    seen: dict[str, str] = {}
    names: set[str] = set()
    for cell in cells:
        for key, ours, theirs in config_differences(dict(first.shared), dict(cell.shared)):
            raise ConfigError(
                f"{key} {ours} in {first.name} and {theirs} in {cell.name}",
                f"cells that differ in {', '.join(first.varied)} alone",
                f"the same {key} for all of them",
            )
        twin = seen.setdefault(to_json(cell.settings), cell.name)
        if cell.name in names or twin != cell.name:
            raise ConfigError(f"the cell {cell.name} twice", "each cell once", "name it once")
        names.add(cell.name)


class StudyFolder:
    """The folder of a study, and what is done of it."""

    def __init__(self, study: Study, out: Path):
        check_cells(study.cells)
        self.study, self.out, self.cells = study, out, out / "cells"
        self.done: dict[str, Result] = {}
        self.seconds: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        for cell in study.cells:
            self.read(cell)

    def file(self, cell: Cell, ending: str = "json") -> Path:
        return self.cells / f"{cell.name}.{ending}"

    def read(self, cell: Cell) -> None:
        """Take up what an earlier run has left of a cell. Raises `RunError` for a result of other
        settings, and for a file that is none."""
        if self.file(cell, "error").is_file():
            self.failed[cell.name] = self.file(cell, "error").read_text(encoding="utf-8").strip()
        path = self.file(cell)
        if not path.is_file():
            return
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            settings, seconds, result = (stored[key] for key in ("settings", "seconds", "result"))
        except (OSError, ValueError, LookupError, TypeError):
            raise RunError(
                f"{path}, which is no result of a cell", "the file as it was written", f"rm {path}"
            ) from None
        for key, then, now in config_differences(settings, cell.settings):
            raise RunError(
                f"{path} was made with {key} {then}, and not {now}",
                "the study that is in this folder",
                "--out ANOTHER",
            )
        self.done[cell.name], self.seconds[cell.name] = result, seconds
        self.failed.pop(cell.name, None)

    @property
    def to_do(self) -> list[Cell]:
        """The cells without a result."""
        return [cell for cell in self.study.cells if cell.name not in self.done]

    def planned_seconds(self, cells: Sequence[Cell], machine: Machine) -> float:
        """How long these cells will take."""
        return sum(self.study.seconds_of(cell, machine.card) for cell in cells)

    def plan_lines(self, machine: Machine) -> list[str]:
        """What there is to do, with time and money, as lines to print."""
        lines = []
        for cell in self.study.cells:
            seconds = self.study.seconds_of(cell, machine.card)
            state = "done" if cell.name in self.done else f"{seconds:.0f} s"
            lines.append(f"{cell.name}: {state}")
        return lines

    def run_cells(self, machine: Machine, say: Callable[[str], None]) -> None:
        """Do all that is not done, and write the results from time to time and at the end.

        Raises `RunError` while another process works in the folder.
        """
        self.cells.mkdir(parents=True, exist_ok=True)
        lock = RunLock(self.out, say)
        written = time.perf_counter()
        try:
            cells = self.to_do
            for number, cell in enumerate(cells, 1):
                left = self.planned_seconds(cells[number - 1 :], machine)
                say(f"{number}/{len(cells)}  {cell.name}  (about {left / 60:.1f} min left)")
                self.run_cell(cell, say)
                if time.perf_counter() - written > WRITE_EVERY_S:
                    self.write(machine)
                    written = time.perf_counter()
        finally:
            try:
                self.write(machine)
            finally:
                lock.release()

    def run_cell(self, cell: Cell, say: Callable[[str], None]) -> None:
        """Do a cell, and keep its result or the reason why it failed."""
        started = time.perf_counter()
        try:
            result = self.study.run(cell)
        except (AhaError, MemoryError, RuntimeError) as error:
            text = " ".join(str(error).split()) or type(error).__name__
            self.failed[cell.name] = text
            write_text(self.file(cell, "error"), text + "\n")
            say(f"failed: {text}")
            return
        seconds = time.perf_counter() - started
        stored = {"settings": cell.settings, "seconds": seconds, "result": result}
        write_text(self.file(cell), to_json(stored) + "\n")
        self.file(cell, "error").unlink(missing_ok=True)
        self.done[cell.name], self.seconds[cell.name] = result, seconds
        self.failed.pop(cell.name, None)

    def write(self, machine: Machine) -> StudyPage:
        """Write study.json and study.html with the results so far."""
        page, here = self.study.page(self.done), environment()
        cost = machine.cost(sum(self.seconds.values()))
        planned = self.planned_seconds(self.study.cells, machine)
        done = f"{len(self.done)} of {len(self.study.cells)} cells are done"
        about = [
            *page.about,
            f"{done}, in {cost.seconds / 60:.1f} minutes (all planned: {planned / 60:.1f}), "
            f"{cost.usd:.4f} USD, {cost.kwh:.4f} kWh",
            f"{here['machine']}, {here['cores']} cores, commit {here['commit']}",
        ]
        failed = [f"the cell {name} failed: {text}" for name, text in self.failed.items()]
        content = {
            "study": self.study.name,
            "cells": [cell.settings | {"name": cell.name} for cell in self.study.cells],
            "done": sorted(self.done),
            "failed": self.failed,
            "seconds": cost.seconds,
            "planned_seconds": planned,
            "usd": cost.usd,
            "kwh": cost.kwh,
            "notes": page.notes,
            "results": page.results,
            "environment": here,
        }
        write_text(self.out / "study.json", to_json(content, indent=1) + "\n")
        write_text(self.out / "study.html", page_html(page, about, failed))
        return page


def sampling_seed(seed: int, *names: object) -> int:
    """The seed of the draws of a cell, of a study's seed and of what the cell is about."""
    return seed_for(seed, "study", *names)
