"""How long the ranks wait for one that does nothing: a process that works is slow, not lost."""

from collections.abc import Iterable
from contextlib import suppress

import psutil


class Patience:
    """Counts the seconds in which processes did nothing: `over` is called once in `tick` seconds.

    A process that works, or would if a busy machine let it, is slow and not stuck. Neither the
    clock counts nor the time in which the whole run is stopped.
    """

    def __init__(self, limit_s: float):
        self.limit_s, self.tick = limit_s, min(1.0, limit_s / 4)
        self.idle_s, self.signs = 0.0, 0.0

    def over(self, signs: float, running: bool) -> bool:
        """Whether none of the processes has worked for `limit_s` seconds. `signs`: a number that
        changes where one of them works, such as the seconds of processor that they have used;
        `running`: one of them wants a processor now."""
        self.idle_s = 0.0 if running or signs != self.signs else self.idle_s + self.tick
        self.signs = signs
        return self.idle_s >= self.limit_s


def work_of(pids: Iterable[int | None]) -> tuple[float, bool]:
    """(seconds of processor that these processes have used, whether one of them wants one now)."""
    used, running = 0.0, False
    for pid in pids:
        with suppress(psutil.Error):
            process = psutil.Process(pid)
            used += sum(process.cpu_times()[:2])
            running |= process.status() == psutil.STATUS_RUNNING
    return used, running


def is_gone(pid: int) -> bool:
    """Whether a process of this machine has ended."""
    try:
        return psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False
