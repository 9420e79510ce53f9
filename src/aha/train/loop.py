"""The loop. It is the only one: whatever is to happen between steps is a watcher."""

import os
import signal
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any


def drive(steps: Iterable, watchers: list[Callable], stop: Callable[[], bool] = bool) -> None:
    """Hand every step's report to every watcher; leave when the steps end or `stop()` says so."""
    for report in steps:
        for watch in watchers:
            watch(report)
        if stop():
            break


class Interrupt:
    """Turns the first Ctrl-C or SIGTERM into "finish this step"; the second one is immediate.

    A context manager: `with Interrupt() as stop: drive(steps, watchers, stop)`. What it has to
    say it writes with one system call: a handler may run in the middle of any print.
    """

    WORDS = b"\nstopping after this step; once more to stop at once\n"

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[int, Any] = {}

    def __enter__(self) -> "Interrupt":
        for number in self.SIGNALS:
            self.before[number] = signal.signal(number, self.handle)
        return self

    def __exit__(self, *unused) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def __call__(self) -> bool:
        return self.asked

    def handle(self, number: int, unused_frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        os.write(2, self.WORDS)
