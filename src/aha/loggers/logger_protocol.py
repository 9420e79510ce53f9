"""The protocol of a logger, and what it is opened with."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from aha.loggers.run_rows import Entry


@dataclass(frozen=True)
class LoggedRun:
    """What a logger is opened with.

    `id` names the run in the logger for good: a resumed run has the same. `config` holds the
    settings and the environment. `step` is the last step that the logger has, -1 for a new run.
    `say` takes a line for the user.
    """

    name: str
    path: Path
    id: str
    config: Mapping[str, Any]
    step: int
    say: Callable[[str], None]


class Logger(Protocol):
    """A tracker that receives the records of one run. Every method may raise: `RunLoggers` says so
    once, and the run goes on without this logger.

    `rewinds`: a step that is trained again after a resume replaces the one that was logged. Without
    it the first one stays, because the tracker takes no step twice.
    """

    rewinds: bool

    def open(self, run: LoggedRun) -> None:
        """Begin the run in the tracker, or go on with it. Called once, first."""

    def log(self, entry: Entry) -> None:
        """Take one record. When it returns, a killed process loses nothing of it, as far as the
        tracker can promise that."""

    def close(self, failed: bool) -> None:
        """Send what is left; `failed` says that an error ends the run. Called once, last."""
