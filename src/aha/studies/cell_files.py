"""A study's cells on the disk, and one cell from its beginning to its file.

OUT/cells/NAME.begun    settings, plan and time so far of a cell that has begun and is not done
OUT/cells/NAME.json     the same of one that is done, with its result
OUT/cells/NAME.error    why a cell failed; the next run of the study tries it again
OUT/cells/NAME.log      what the process of a cell has printed
"""

import json
import os
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any, Protocol

from aha.core.errors import AhaError, RunError
from aha.store.durable import to_json, write_text
from aha.store.provenance import commit
from aha.web.run_comparison import config_differences

Result = dict[str, Any]  # of a cell, in JSON's types
EXPECTED_FAULTS = (AhaError, MemoryError, RuntimeError)


@dataclass(frozen=True)
class Cell:
    """One place of the grid: `varied` is what the study varies, the seed included; `shared` must be
    the same in every cell of its `kind`. `name` is unique, and the name of a file. `needs` names
    the cells that must be done before. `alone`: it takes all cores, so that none runs beside it."""

    name: str
    varied: Mapping[str, Any]
    shared: Mapping[str, Any]
    kind: str = ""
    needs: tuple[str, ...] = ()
    alone: bool = False

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the result depends on, in JSON's types."""
        settings: dict[str, Any] = json.loads(to_json({**self.shared, **self.varied}))
        return settings


class CellStopped(Exception):
    """A cell that a signal has stopped at a place from which it can go on; `number` is that of the
    signal."""

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class CellRunner(Protocol):
    """The part of a study that does a cell."""

    def run(self, cell: Cell, out: Path) -> Result:
        """Do a cell of the study in the folder `out`, or go on with it. An `AhaError` makes it a
        failed one. Raises `CellStopped` where a signal has stopped it."""


@dataclass(frozen=True)
class CellWork:
    """What a cell was planned with, and what it took. `tries`: (beginning, end) in seconds since
    1970 of each time that it was worked on. `cpu_seconds` of its process and of those that this one
    has started. `processes`: how many cells shared the machine last. `older_seconds`: of a result
    of an older version, which kept no tries. None: not known. `commits`: those of the program in
    its tries, each once."""

    planned_seconds: float | None = None
    tries: tuple[tuple[float, float], ...] = ()
    cpu_seconds: float | None = 0.0
    processes: int = 1
    older_seconds: float | None = None
    commits: tuple[str, ...] = ()

    def with_try(self, begun: float, cpu_begun: float, processes: int) -> "CellWork":
        """The same with a try that ends now; `cpu_begun`: of `processor_seconds` then."""
        cpu = self.cpu_seconds
        cpu = None if cpu is None else cpu + processor_seconds() - cpu_begun
        tries = (*self.tries, (begun, time.time()))
        commits = tuple(dict.fromkeys(filter(None, (*self.commits, commit()))))
        done = replace(self, tries=tries, cpu_seconds=cpu, processes=processes)
        return replace(done, commits=commits)

    def with_lost_try(self, begun: float) -> "CellWork":
        """The same with a try whose process was ended, and with it what it knew of its time."""
        return replace(self, tries=(*self.tries, (begun, time.time())), cpu_seconds=None)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> "CellWork":
        """As a file has it."""
        return cls(
            stored.get("planned_seconds"),
            tuple((float(begin), float(end)) for begin, end in stored.get("tries", ())),
            stored.get("cpu_seconds"),
            stored.get("processes", 1),
            stored.get("seconds"),
            tuple(map(str, stored.get("commits", ()))),
        )

    @property
    def untold_seconds(self) -> float | None:
        """What its tries leave out: of an older result its seconds, where no cell ran beside it."""
        if self.tries:
            return 0.0
        return self.older_seconds if self.processes == 1 else None


@dataclass(frozen=True)
class CellRecord:
    """What is kept of a finished cell."""

    result: Result
    work: CellWork


def processor_seconds() -> float:
    """Of this process and of all that it has started and that have ended."""
    return time.process_time() + sum(os.times()[2:4])


def clock_seconds(tries: Iterable[tuple[float, float]]) -> float:
    """For how long at least one of them was going on."""
    total, last = 0.0, 0.0
    for begin, end in sorted(tries):
        total += max(0.0, end - max(begin, last))
        last = max(last, end)
    return total


class CellFiles:
    """The files of the cells below the folder of a study."""

    def __init__(self, out: Path):
        self.folder = out / "cells"

    def path(self, cell: Cell, ending: str = "json") -> Path:
        return self.folder / f"{cell.name}.{ending}"

    def error_of(self, cell: Cell) -> str | None:
        """Why the cell failed when it was tried last; None where it did not."""
        path = self.path(cell, "error")
        return path.read_text(encoding="utf-8").strip() if path.is_file() else None

    def read(self, cell: Cell) -> CellRecord | None:
        """The result of a cell, None without one. Raises `RunError` for one of other settings, and
        for a file that is none."""
        path = self.path(cell)
        if not path.is_file():
            return None
        stored = self.stored(path, cell)
        try:
            return CellRecord(stored["result"], CellWork.of(stored))
        except (LookupError, TypeError, ValueError):
            raise no_record(path) from None

    def work_of(self, cell: Cell) -> CellWork | None:
        """What a cell that is not done has taken so far, None before it has begun. Raises as
        `read`: what lies in OUT/runs of one that began with other settings must not be gone on
        with."""
        path = self.path(cell, "begun")
        return CellWork.of(self.stored(path, cell)) if path.is_file() else None

    def stored(self, path: Path, cell: Cell) -> dict[str, Any]:
        """The content of a file of this cell. Raises as `read`, and the system's error where it
        cannot be read: such a file may be whole, and hours of work."""
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            differences = config_differences(content["settings"], cell.settings)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise no_record(path) from None
        for key, then, now in differences:
            raise RunError(
                f"{path} was made with {key} {then}, and not {now}",
                "the study that is in this folder",
                "--out ANOTHER",
            )
        return content

    def begin(self, cell: Cell, work: CellWork) -> None:
        """Write down that a cell begins or has stopped, with what it has taken so far."""
        write_text(self.path(cell, "begun"), to_json(self.content(cell, work)) + "\n")

    def keep(self, cell: Cell, record: CellRecord) -> None:
        """Write the result of a cell."""
        stored = self.content(cell, record.work) | {"result": record.result}
        write_text(self.path(cell), to_json(stored) + "\n")
        for ending in ("begun", "error"):
            self.path(cell, ending).unlink(missing_ok=True)

    def content(self, cell: Cell, work: CellWork) -> dict[str, Any]:
        """What every file of a cell has."""
        kept = {key: value for key, value in asdict(work).items() if key != "older_seconds"}
        return {"settings": cell.settings, **kept}

    def keep_error(self, cell: Cell, error: BaseException | str) -> None:
        """Write why a cell failed; an error that is no `AhaError` with its type."""
        text = " ".join(str(error).split())
        if isinstance(error, BaseException) and not isinstance(error, AhaError):
            text = f"{type(error).__name__}: {text}"
        write_text(self.path(cell, "error"), text + "\n")


def no_record(path: Path) -> RunError:
    """The error for a file that is not what a cell writes."""
    return RunError(
        f"{path}, which is no result of a cell",
        "the file as it was written",
        f"rm {quote(str(path))}",
    )


def carry_out(
    study: CellRunner,
    cell: Cell,
    out: Path,
    processes: int = 1,
    faults: tuple[type[Exception], ...] = EXPECTED_FAULTS,
) -> None:
    """Do a cell, and write its result or the reason why it failed; `faults` are the errors that
    make it a failed one. `processes`: how many cells share the machine."""
    files, begun, cpu_begun = CellFiles(out), time.time(), processor_seconds()
    before = files.work_of(cell) or CellWork()
    try:
        result = study.run(cell, out)
    except BaseException as error:
        files.begin(cell, before.with_try(begun, cpu_begun, processes))
        if isinstance(error, CellStopped) or not isinstance(error, faults):
            raise
        if not isinstance(error, AhaError):
            traceback.print_exc()
        files.keep_error(cell, error)
        return
    files.keep(cell, CellRecord(result, before.with_try(begun, cpu_begun, processes)))
