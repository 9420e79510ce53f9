"""The process of a `Worker`: it builds a function and answers calls, under the eyes of a keeper.

    python -c "from aha.tasks.worker_process import main; main()" REQUESTS REPLIES MEMORY_BYTES

The numbers are the descriptors of two pipes, and the memory limit (0: none). The process forks at
once. The child is the worker, which runs the foreign code. The parent is its keeper, which runs
none of it: when the worker ends, or when the program that started both closes the keeper's standard
input or dies, it kills all that the worker has started, and exits with the worker's exit code.

A request is its length in 8 bytes and a pickle: (number of the call, arguments). A reply is one
line of JSON with the number of the call and the process that answers. A fork of the worker loses
both pipes: it cannot answer for the worker.
"""

import ctypes
import json
import os
import pickle
import re
import select
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, NoReturn

from aha.core.errors import AhaError

MAX_REPLY = 1 << 16  # bytes of a line
MAX_ERROR = 200  # characters of an exception's text
HIGH = (
    200  # descriptors from here on: out of the reach of code that closes or writes to the low ones
)
END_TRIES = 200  # rounds of 10 ms, in which the keeper ends what the worker has started
SIGNALLED = 128  # exit code of a process that signal N ended: 128 + N, as a shell has it
ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")  # a terminal's colours and movements
PR_SET_CHILD_SUBREAPER = 36  # prctl, Linux


def plain_line(text: str, limit: int) -> str:
    """The text in one line of at most `limit` characters, without any that a terminal obeys."""
    text = ESCAPES.sub("", text[: 4 * limit])
    shown = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(shown.split())[:limit]


def locate(name: str) -> Callable[..., Any]:
    """The function of a name such as "module:function"."""
    module, _, function = name.partition(":")
    located: Callable[..., Any] = getattr(import_module(module), function)
    return located


# -- the worker -----------------------------------------------------------------------------

# Bound here: foreign code may replace the functions of a module.
_encode, _decode = json.dumps, pickle.loads
_exit, _own_pid, _read, _write = os._exit, os.getpid, os.read, os.write


class Answers:
    """The two pipes of a worker, and the loop over its calls."""

    def __init__(self, requests: int, replies: int):
        self.requests, self.replies = out_of_reach(requests), out_of_reach(replies)
        self.pid = _own_pid()
        os.register_at_fork(after_in_child=self.close)

    def close(self) -> None:
        for descriptor in (self.requests, self.replies):
            with suppress(OSError):
                os.close(descriptor)

    def read(self, size: int) -> bytes:
        """So many bytes. Raises `EOFError` where the pipe ends before."""
        parts = []
        while size > 0:
            part = _read(self.requests, min(size, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def next_call(self) -> tuple[int, tuple[Any, ...]]:
        """(number, arguments). Raises `EOFError` where there will be no other call."""
        body = self.read(int.from_bytes(self.read(8), "big"))
        number, args = _decode(body)
        return number, args

    def reply(self, number: int, outcome: dict[str, Any]) -> None:
        """Send the outcome of a call. Whoever is not the worker ends here: a fork of it that came
        back from the foreign code would go on as a second worker."""
        if _own_pid() != self.pid:
            with suppress(OSError):
                _write(2, b"a fork of the grader came back from `grade`, and was ended\n")
            _exit(0)
        head = {"call": number, "pid": self.pid}
        try:
            line = _encode(head | outcome).encode()
            if len(line) >= MAX_REPLY:
                raise ValueError(f"{len(line)} bytes, and at most {MAX_REPLY} are read")
        except (TypeError, ValueError, RecursionError) as error:
            text = f"returned what cannot be sent: {plain_line(str(error), MAX_ERROR)}"
            line = _encode(head | {"kind": "raised", "value": text}).encode()
        unsent = memoryview(line + b"\n")
        while unsent:
            unsent = unsent[_write(self.replies, unsent) :]

    def serve(self) -> None:
        """Build once, then answer calls until there are no more."""
        number, (build, args) = self.next_call()
        built: list[Callable[..., Any]] = []
        self.reply(number, attempt(lambda: built.append(locate(build)(*args)), building=True))
        while built:
            number, args = self.next_call()
            outcome = attempt(lambda: built[0](*args))  # noqa: B023 - called before the next turn
            # An alarm that a call has set and left would end the next one.
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.reply(number, outcome)


class Nonsense(Exception):
    """A function returned something that is no result; the message begins with "returned"."""


def attempt(function: Callable[[], Any], building: bool = False) -> dict[str, Any]:
    """The result or the error of a call. Catches `exit()` in foreign code as well.

    While building, an error that a user can mend keeps its type.
    """
    try:
        return {"kind": "done", "value": function()}
    except BaseException as error:
        if building and isinstance(error, AhaError):
            words = {"got": error.got, "wanted": error.wanted, "fix": error.fix}
            return {"kind": "refused", "value": {"type": type(error).__name__, **words}}
        return {"kind": "raised", "value": raised(error)}


def raised(error: BaseException) -> str:
    """An exception in a few words; its text is foreign code too."""
    try:
        text = plain_line(str(error), MAX_ERROR)
    except Exception:
        text = ""
    if isinstance(error, Nonsense):
        return text
    return f"raised {type(error).__name__}" + (f": {text}" if text else "")


def out_of_reach(descriptor: int) -> int:
    """The descriptor under a high number, closed at exec."""
    import fcntl  # Windows, which reads this module too, has none

    try:
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, HIGH)
    except OSError:  # the process may have fewer
        os.set_inheritable(descriptor, False)
        return descriptor
    os.close(descriptor)
    return moved


def limit_memory(memory_bytes: int) -> None:
    """Refuse more memory to this process. Linux alone obeys; no other system has a limit for it."""
    import resource  # Windows has none

    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory_bytes:
        # Not RLIMIT_AS: a GPU's address space is counted there, and is no memory.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def work(requests: int, replies: int, memory_bytes: int) -> NoReturn:
    """The worker's life. Its standard input is empty: the keeper's is none of its business."""
    os.setsid()
    with open(os.devnull, "rb") as empty:
        os.dup2(empty.fileno(), 0)
    limit_memory(memory_bytes)
    with suppress(EOFError):
        Answers(requests, replies).serve()
    _exit(0)


# -- the keeper -----------------------------------------------------------------------------


def adopt_orphans() -> None:
    """Become the parent of every process below whose own parent has ended (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap(worker: int, code: int | None) -> int | None:
    """Take the exit codes of all that have ended: the worker's, or `code` where it lives."""
    with suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            if pid == worker:
                code = os.waitstatus_to_exitcode(status)
    return code


def end_all(worker: int) -> None:
    """Kill the worker and all that it has started. On Linux also what left its session: a process
    whose parent was killed becomes the keeper's child, until none is left."""
    import psutil  # only here: it is needed at the end alone

    for _ in range(END_TRIES):
        with suppress(OSError):
            os.killpg(worker, signal.SIGKILL)
        below = psutil.Process().children(recursive=True)
        for process in below:
            with suppress(psutil.Error):
                process.kill()
        reap(worker, None)
        if not below:
            return
        time.sleep(0.01)


def keep(worker: int) -> NoReturn:
    """Wait for the end of the worker, or of standard input, and leave nothing behind."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.signal(signal.SIGCHLD, lambda *unused: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a grader may mean its parent
    code = reap(worker, None)
    while code is None:
        ready, _, _ = select.select([0, woken], [], [])
        if 0 in ready:
            break
        os.read(woken, 1 << 12)
        code = reap(worker, None)
    end_all(worker)
    if code is None:
        _exit(0)
    _exit(code if code >= 0 else SIGNALLED - code)


def main() -> NoReturn:
    requests, replies, memory_bytes = map(int, sys.argv[1:])
    adopt_orphans()
    worker = os.fork()
    if worker == 0:
        work(requests, replies, memory_bytes)
    os.close(requests)
    os.close(replies)
    keep(worker)
