"""The loggers of a run that a command (`--log`) or a Python call (`log=`) starts or resumes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from aha.loggers.run_loggers import RunLoggers, check_installed, chosen_loggers, stored_loggers
from aha.training.experiment import Experiment


def loggers_of(log: str | Sequence[str] | None, resumed: Path | None = None) -> list[str]:
    """The loggers that are named, in a text with commas or one by one; without any name those that
    the resumed run has had.

    Raises ConfigError for an unknown name and `MissingExtra` for a missing package.
    """
    if log is not None:
        return chosen_loggers(log if isinstance(log, str) else ",".join(log))
    names = stored_loggers(resumed) if resumed else []
    check_installed(names)
    return names


def attach_loggers(experiment: Experiment, names: Sequence[str]) -> None:
    """Let loggers follow the run from now on, until its end. Nothing is done without names."""
    if not names:
        return
    listener = experiment.listener
    try:
        loggers = RunLoggers(experiment.run, names, experiment.tell, listener.say)
    except BaseException:  # Ctrl-C while a server is waited for: `run_all` will not close the run
        experiment.close()
        raise
    listener.step = both(listener.step, loggers.follow)
    listener.validation = both(listener.validation, loggers.follow)
    listener.end = both(listener.end, loggers.end)


def both(first: Callable[..., Any], second: Callable[..., Any]) -> Callable[..., None]:
    """A callback that calls two, in order."""

    def call(*arguments: Any) -> None:
        first(*arguments)
        second(*arguments)

    return call
