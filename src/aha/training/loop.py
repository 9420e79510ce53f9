"""The only loop over steps. What happens between steps is a watcher."""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any, TypeVar

Report = TypeVar("Report")


def drive(
    steps: Iterable[Report],
    watchers: Sequence[Callable[[Report], None]],
    stop: Callable[[], bool] = bool,
) -> None:
    """Hand the report of every step to every watcher; end when the steps end or `stop()` is true.

    RL and pre-training both run through here.
    """
    for report in steps:
        for watch in watchers:
            watch(report)
        if stop():
            break


class Interrupt:
    """Turns the first Ctrl-C or SIGTERM into "finish this step"; the second one is immediate.

    The end of the terminal (SIGHUP) does so too, unless the process was started to outlive it, as
    by `nohup`. Outside of the main thread no signal arrives, and none is handled.

    A context manager: `with Interrupt() as stop: drive(steps, watchers, stop)`. `signal` is the
    number of the first one, None before it; the second is raised as `KeyboardInterrupt(number)`.
    The message is written with one system call: a signal handler may run in the middle of any
    print.
    """

    MESSAGE = b"\nstopping after this step; once more to stop at once\n"

    HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
    SIGNALS = (signal.SIGINT, signal.SIGTERM, *([HANGUP] if HANGUP else []))

    def __init__(self) -> None:
        self.signal: int | None = None
        self.handlers: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        here = threading.current_thread() is threading.main_thread()
        for number in self.SIGNALS if here else ():
            if number != self.HANGUP or signal.getsignal(number) != signal.SIG_IGN:
                self.handlers[number] = signal.signal(number, self.handle)
        return self

    def __exit__(self, *unused: object) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        return self.signal is not None

    def handle(self, number: int, unused_frame: FrameType | None) -> None:
        if self.signal is not None:
            raise KeyboardInterrupt(number)
        self.signal = number
        with suppress(OSError):  # the terminal may be gone
            os.write(2, self.MESSAGE)


class QuietInterrupt(Interrupt):
    """Of a rank other than 0: its message would be one too many."""

    MESSAGE = b""
