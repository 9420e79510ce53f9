"""A process that dies at its n-th call of the system, and what it leaves behind.

The calls are those that change what is on a disk: to open a file for reading is none of them. The
process is forked, and ends without a word before the call: no `finally`, no flush. So
`deaths(act)` goes through every state that a kill can leave, but for those within a single write.
"""

import io
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

CALLS = ("open", "fsync", "mkdir", "rename", "replace", "rmdir", "unlink", "truncate", "ftruncate")
DIED = 77


def in_child(act: Callable[[], object], call: int | None = None) -> int:
    """The exit code of a forked process that does `act` and dies before its `call`-th call."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    with suppress(BaseException):
        if call is not None:
            die_at(call)
        act()
        code = 0
    os._exit(code)


def die_at(call: int) -> None:
    """Make this process die before the call of that number."""
    count, opened = 0, io.open

    def reads(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> bool:
        return not set(mode) & set("wax+")

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += real is not opened or not reads(*args, **kwargs)
            if count == call:
                os._exit(DIED)
            return real(*args, **kwargs)

        return wrapper

    for name in CALLS:
        setattr(os, name, counted(getattr(os, name)))
    io.open = counted(io.open)  # what `Path.open` calls


def deaths(act: Callable[[], object], prepare: Callable[[], object]) -> Iterator[int]:
    """Prepare and die, once before every call of `act`; ends with the one that lives."""
    call, code = 0, DIED
    while code == DIED:
        call += 1
        prepare()
        code = in_child(act, call)
        assert code in (0, DIED), f"exit code {code} at call {call}"
        yield call
