"""Whether the process that writes to a run still lives, by the name that it left in owner.json."""

import socket
import time

import psutil

from aha.store.guarded_files import Row, number

SINCE = "%Y-%m-%d %H:%M:%S"  # as `aha.store.run_lock` writes it
LARGEST_PID = 2**31 - 1


def owner_lives(owner: Row) -> bool | None:
    """True, False, or None where this machine cannot know: the process is on another one.

    `owner` is {} for a run without owner.json: a process that ends in order takes it away. A number
    of a process is given again, so one that is younger than its entry is another process.
    """
    if not owner:
        return False
    if owner.get("host") != socket.gethostname():
        return None
    pid = owner.get("pid")
    if type(pid) is not int or not 0 < pid <= LARGEST_PID:
        return False
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        written = number(owner.get("time"))
        if written is None:  # of an older version
            written = time.mktime(time.strptime(str(owner.get("since")), SINCE))
        return bool(process.create_time() < written + 2)  # whole seconds, and two clocks
    except psutil.NoSuchProcess:
        return False
    except (psutil.Error, ValueError, OverflowError):
        return None
