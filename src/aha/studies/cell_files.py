"""A study's cells on the disk, and one cell from its beginning to its file.

OUT/cells/NAME.json     settings, seconds and result of a cell that is done
OUT/cells/NAME.error    why a cell failed; the next run of the study tries it again
OUT/cells/NAME.log      what the process of a cell has printed
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aha.core.errors import AhaError, RunError
from aha.store.durable import to_json, write_text
from aha.web.run_comparison import config_differences

Result = dict[str, Any]  # of a cell, in JSON's types
EXPECTED_FAULTS = (AhaError, MemoryError, RuntimeError)


@dataclass(frozen=True)
class Cell:
    """One place of the grid: `varied` is what the study varies, the seed included; `shared` must be
    the same in every cell of its `kind`. `name` is unique, and the name of a file. `needs` names
    the cells that must be done before."""

    name: str
    varied: Mapping[str, Any]
    shared: Mapping[str, Any]
    kind: str = ""
    needs: tuple[str, ...] = ()

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
class CellRecord:
    """What is kept of a finished cell. `seconds` by the clock, of which `processes` cells shared
    the machine; `cpu_seconds` of its own process."""

    result: Result
    seconds: float
    cpu_seconds: float | None = None
    processes: int = 1

    @property
    def machine_seconds(self) -> float:
        """Its share of the machine's time."""
        return self.seconds / self.processes


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
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            settings, seconds, result = (stored[key] for key in ("settings", "seconds", "result"))
            more = {key: stored[key] for key in ("cpu_seconds", "processes") if key in stored}
            record = CellRecord(result, float(seconds), **more)
            differences = config_differences(settings, cell.settings)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            raise RunError(
                f"{path}, which is no result of a cell", "the file as it was written", f"rm {path}"
            ) from None
        for key, then, now in differences:
            raise RunError(
                f"{path} was made with {key} {then}, and not {now}",
                "the study that is in this folder",
                "--out ANOTHER",
            )
        return record

    def keep(self, cell: Cell, record: CellRecord) -> None:
        """Write the result of a cell."""
        numbers = {"seconds": record.seconds, "cpu_seconds": record.cpu_seconds}
        numbers |= {"processes": record.processes}
        stored = {"settings": cell.settings, **numbers, "result": record.result}
        write_text(self.path(cell), to_json(stored) + "\n")
        self.path(cell, "error").unlink(missing_ok=True)

    def keep_error(self, cell: Cell, error: BaseException | str) -> None:
        """Write why a cell failed."""
        text = " ".join(str(error).split()) or type(error).__name__
        write_text(self.path(cell, "error"), text + "\n")


def carry_out(
    study: CellRunner,
    cell: Cell,
    out: Path,
    processes: int = 1,
    faults: tuple[type[Exception], ...] = EXPECTED_FAULTS,
) -> None:
    """Do a cell, and write its result or the reason why it failed; `faults` are the errors that
    make it a failed one. `processes`: how many cells share the machine."""
    files = CellFiles(out)
    started, cpu_started = time.perf_counter(), time.process_time()
    try:
        result = study.run(cell, out)
    except CellStopped:
        raise
    except faults as error:
        files.keep_error(cell, error)
        return
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    files.keep(cell, CellRecord(result, seconds, cpu_seconds, processes))
