"""The lock of a run folder: one process at a time writes to it.

The lock is the system's (flock, through `filelock`): it goes with the process that holds it,
however that process ends, and no child inherits it. `owner.json` beside it is for words alone: who
holds the lock. One that a dead process left is no obstacle.
"""

import errno
import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from aha.core.errors import RunError
from aha.store.durable import disk_errors

LOCK, OWNER = ".lock", "owner.json"
# What a file system without locks answers, as some network file systems do.
NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP)


class RunLock:
    """Held from its making until `release`, or until the process ends.

    `say` gets a line where a process that is gone has left its name, and where the file system has
    no locks. Raises `RunError` while another process holds the lock.
    """

    def __init__(self, folder: Path, say: Callable[[str], None] = lambda line: None):
        self.folder = folder
        self.lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
        with disk_errors(f"lock {folder}"):
            try:
                self.lock.acquire()
            except Timeout:
                raise in_use(folder) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                say(f"no lock on {folder}: {error.strerror}; nothing keeps a second process out")
        left = owner_of(folder)
        if left:
            say(f"{words_of(left)} ended without a word; its lock is taken over")
        with disk_errors(f"lock {folder}"):
            (folder / OWNER).write_text(json.dumps(this_process()) + "\n", encoding="utf-8")

    def release(self) -> None:
        """Give the folder to others. Does nothing the second time."""
        if self.lock.is_locked:
            with suppress(OSError):
                (self.folder / OWNER).unlink()
            self.lock.release()


def this_process() -> dict[str, Any]:
    since = time.strftime("%Y-%m-%d %H:%M:%S")  # for people; `time` is of no time zone
    here = {"pid": os.getpid(), "host": socket.gethostname()}
    return here | {"since": since, "time": time.time()}


def owner_of(folder: Path) -> dict[str, Any]:
    """Who has written its name into the folder; {} where nobody has, or nobody can read it."""
    try:
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def words_of(owner: dict[str, Any]) -> str:
    pid, host = owner.get("pid", "?"), owner.get("host", "?")
    return f"process {pid} on {host}, which began at {owner.get('since', '?')},"


def in_use(folder: Path) -> RunError:
    """The error of who comes second."""
    owner = owner_of(folder)
    if not owner:
        return RunError(f"{folder} is in use by another process", "one process for a run", "wait")
    where = "" if owner.get("host") == socket.gethostname() else f" on {owner.get('host')}"
    return RunError(
        f"{folder} is in use by {words_of(owner).rstrip(',')}",
        "one process for a run",
        f"wait until it has ended, or stop it{where} with: kill {owner.get('pid', 'PID')}",
    )
