"""The loggers of a run: chosen by name, opened, fed from the run's files, closed.

    names = chosen_loggers("wandb,tensorboard")   # raises where a package is missing
    loggers = RunLoggers(run, names, tell, say)
    loggers.follow()                              # after each step
    loggers.end()

The command line joins them to the loop: `aha.cli.logged_run`.
"""

import difflib
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from aha.core.control_characters import visible
from aha.core.errors import ConfigError, MissingExtra, shorter, shown
from aha.core.findings import Finding
from aha.loggers.logger_protocol import LoggedRun, Logger
from aha.loggers.position import Position, stored_positions, write_positions
from aha.loggers.run_rows import Entry, RunRows
from aha.store.guarded_files import Row
from aha.store.run_folder import Run, resume_command

# By name, which is that of the extra and of its package too: module and class.
LOGGERS = {
    "wandb": ("aha.loggers.wandb_logger", "WandbLogger"),
    "tensorboard": ("aha.loggers.tensorboard_logger", "TensorboardLogger"),
    "trackio": ("aha.loggers.trackio_logger", "TrackioLogger"),
}
NONE = "none"


def chosen_loggers(text: str) -> list[str]:
    """The loggers of a list such as "wandb,tensorboard"; [] for "none".

    Raises ConfigError for any other name and MissingExtra for a package that is not installed.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    if names == [NONE]:
        return []
    for name in names:
        if name not in LOGGERS:
            known = ", ".join(LOGGERS)
            near = difflib.get_close_matches(name, LOGGERS, 1, 0.5)
            fix = f"--log {near[0] if near else next(iter(LOGGERS))}"
            raise ConfigError(f"--log {shown(text)}", f"{known}, several with commas, or none", fix)
    check_installed(names)
    return names


def check_installed(names: Iterable[str]) -> None:
    """Raise `MissingExtra` for a logger whose package is not installed, ConfigError where it cannot
    be imported."""
    for name in names:
        # A folder of that name is a package without an origin: wandb itself makes one called wandb.
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            fix = f"pip install 'aha[{name}]', or --log {NONE}"
            raise MissingExtra(name, name, fix)
        try:
            import_module(LOGGERS[name][0]).check_import()
        except Exception as error:
            raise ConfigError(
                f"the package {name!r} cannot be imported: {type(error).__name__}: {error}",
                f"a working {name}",
                f"pip install --force-reinstall {name}, or --log {NONE}",
            ) from error


def stored_loggers(path: Path) -> list[str]:
    """The loggers that the run in a folder has been using, as far as their names are known."""
    positions, _ = stored_positions(Run(path))
    return [name for name in LOGGERS if name in positions]


def make_logger(name: str) -> Logger:
    """A logger by its name."""
    module, logger = LOGGERS[name]
    made: Logger = getattr(import_module(module), logger)()
    return made


class RunLoggers:
    """Opens loggers for a run and hands them its records. No error of a logger ends the run.

    A logger that raises is left out from then on: `tell` gets that once, as a finding with its
    step. The next process that opens the run's loggers sends what it has missed. The lock of the
    run is held until `end` returns. `make` makes a logger by its name.
    """

    def __init__(
        self,
        run: Run,
        names: Sequence[str],
        tell: Callable[[int, Finding], None],
        say: Callable[[str], None],
        make: Callable[[str], Logger] = make_logger,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.run, self.tell, self.say, self.clock = run, tell, say, clock
        # Of the caller, who may start a run while it handles an error of another one.
        self.handled = sys.exc_info()[1]
        self.rows = RunRows(run)
        self.open: dict[str, Logger] = {}
        self.received: dict[str, Position] = {}  # in this process
        self.held: dict[str, list[tuple[float, Entry]]] = {}  # with the time of each
        # What is safe, of all loggers that the run has had: one may be used again later.
        self.positions, damaged = stored_positions(run) if names else ({}, False)
        if damaged:
            say(f"{run.path / 'loggers.json'} is damaged: what it says no more begins a new run")
        entries = self.rows.new() if names else []
        for name in names:
            self.open_logger(name, make)
        if self.open:
            self.hand_out(entries)

    def open_logger(self, name: str, make: Callable[[str], Logger]) -> None:
        """Open one logger where it stopped."""
        position = self.positions.get(name) or Position.new()
        try:
            logger = make(name)
            if logger.rewinds:
                position.go_back_to(self.rows.last_step)
            # A finished run that goes on makes its last test again.
            position.tests = [test for test in position.tests if test in self.rows.tests]
            logger.open(
                LoggedRun(
                    *(self.run.path.absolute().name, self.run.path, position.id),
                    config=self.config(),
                    step=position.step,
                    say=self.say,
                )
            )
            self.positions[name], self.received[name] = position, position.copy()
            self.held[name] = []
            write_positions(self.run, self.positions)
            self.open[name] = logger
        except Exception as error:
            self.leave_out(name, error)

    def config(self) -> dict[str, Row]:
        """The settings of the run, and below `environment` the machine and the versions."""
        settings = self.run.read_or_none("config.json") or {}
        return settings | {"environment": self.run.read_or_none("environment.json") or {}}

    def follow(self, *unused: object) -> None:
        """Hand out what the run has written since the last call; takes what a listener gets."""
        if self.open:
            self.hand_out(self.rows.new())

    def hand_out(self, entries: Sequence[Entry]) -> None:
        """Hand entries to every open logger that has not got them."""
        for entry in entries:
            for name, logger in list(self.open.items()):
                if self.received[name].has(entry):
                    continue
                try:
                    logger.log(entry)
                    self.received[name].add(entry)
                    self.held[name].append((self.clock(), entry))
                except Exception as error:
                    self.leave_out(name, error)
            entry.drop_completions()
        if entries:
            self.write()

    def advance(self, name: str, holds_s: float) -> None:
        """Move the position of a logger over the entries that a kill no longer loses."""
        held, now = self.held[name], self.clock()
        old = [entry for since, entry in held if now - since >= holds_s]
        newest = max((entry.step for entry in old), default=0)
        safe = [entry for entry in old if not holds_s or entry.step < newest]
        # By identity: a run that catches up holds all its entries, and to compare each with each
        # would take longer than to train.
        gone = {id(entry) for entry in safe}
        self.held[name] = [(since, entry) for since, entry in held if id(entry) not in gone]
        for entry in safe:
            self.positions[name].add(entry)

    def write(self) -> None:
        """Keep the positions. A disk that is full ends the run elsewhere, in words of its own."""
        for name, logger in self.open.items():
            self.advance(name, logger.holds_s)
        try:
            write_positions(self.run, self.positions)
        except Exception as error:
            for name in list(self.open):
                self.leave_out(name, error)

    def leave_out(self, name: str, error: Exception, fix: str = "") -> None:
        """Say what went wrong, once, and go on without the logger."""
        logger = self.open.pop(name, None)
        words = visible(shorter(f"{type(error).__name__}: {error}", 300))
        message = f"the logger {name} failed: {words}"
        later = f"`{resume_command(self.run.path)}`"
        fix = fix or f"the run goes on without it; later {later} sends the rest"
        self.tell(self.rows.last_step, Finding("warn", message, fix, f"logger_{name}"))
        if logger is not None:
            self.advance(name, logger.holds_s)
            try:
                logger.close(failed=True)
            except Exception:
                # It has failed already, and that was said.
                return

    def end(self) -> None:
        """Hand out the rest and close all loggers. Called in a `finally`: where an error of the run
        is on its way, the run is marked as failed."""
        error = sys.exc_info()[1]
        failed = error is not None and error is not self.handled
        self.follow()
        for name, logger in list(self.open.items()):
            try:
                logger.close(failed)
                self.positions[name] = self.received[name]
            except Exception as error:
                del self.open[name]
                self.leave_out(name, error, f"see its message; all rows are in {self.run.path}")
        if self.open:
            self.held = {name: [] for name in self.held}
            self.write()
        self.open.clear()
