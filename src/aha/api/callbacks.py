"""Callbacks of a Python call: functions, or objects with methods, that get the rows of a run."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aha.core.errors import ConfigError, shown
from aha.core.findings import Finding

ON_STEP, ON_VALIDATION = "on_step", "on_validation"
METHODS = (ON_STEP, ON_VALIDATION)
Row = dict[str, Any]
Tell = Callable[[int, Finding], None]


class Callbacks:
    """Calls every callback with a row, in their order.

    A function gets the row of every step; an object has `on_step(row)`, `on_validation(row)`, or
    both. What a callback raises is told through `tell` (step, finding), once for each of them and
    each text, and the run goes on. A KeyboardInterrupt is none of these: it stops the run, as
    Ctrl-C does, with a checkpoint of the step. Raises `ConfigError` for what cannot be called.
    """

    def __init__(self, callbacks: object):
        self.callbacks = checked_callbacks(callbacks)
        self.reported: set[tuple[int, str]] = set()

    def step(self, row: Row, tell: Tell) -> None:
        """After a step, with its row of metrics.jsonl."""
        self.call(ON_STEP, row, tell)

    def validation(self, row: Row, tell: Tell) -> None:
        """After a validation, with its row of evals.jsonl."""
        self.call(ON_VALIDATION, row, tell)

    def call(self, method: str, row: Row, tell: Tell) -> None:
        """Call the method of every callback that has it. Each gets a copy of the row."""
        for place, callback in enumerate(self.callbacks):
            function = getattr(callback, method, None)
            if function is None and method == ON_STEP and not has_methods(callback):
                function = callback
            if function is None:
                continue
            try:
                function(dict(row))
            except Exception as error:
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                if (place, reason) not in self.reported:
                    self.reported.add((place, reason))
                    tell(row["step"], raised_by(callback, row["step"], reason))


def checked_callbacks(callbacks: object) -> Sequence[Any]:
    """The callbacks as a list. Raises `ConfigError` for one that cannot be called."""
    if callbacks is None:
        return []
    several = isinstance(callbacks, Iterable) and not has_methods(callbacks)
    every = list(callbacks) if several and isinstance(callbacks, Iterable) else [callbacks]
    for callback in every:
        if isinstance(callback, type) or not (callable(callback) or has_methods(callback)):
            raise ConfigError(
                f"the callback {shown(callback)}",
                f"a function of a row, or an object with {' or '.join(METHODS)}",
                "callbacks=[print]",
            )
    return every


def has_methods(callback: object) -> bool:
    """Whether it is an object with one of the methods."""
    return any(callable(getattr(callback, method, None)) for method in METHODS)


def raised_by(callback: object, step: int, reason: str) -> Finding:
    """The finding for a callback that has raised."""
    name = getattr(callback, "__name__", type(callback).__name__)
    return Finding(
        "warn",
        f"the callback {name} raised in step {step}, and the run goes on: {reason[:300]}",
        "mend the callback; it is called again after every step",
        "callback",
    )
