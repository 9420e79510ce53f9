"""A function in another process, with a limit of time and of memory for its calls.

`Worker` is our side; `worker_process` is the other one. Whatever the function does, a call returns
its own result or raises `CallFailed` within the time limit, and no process outlives `close`.
"""

import json
import os
import pickle
import selectors
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from aha.core.control_characters import visible
from aha.core.errors import AhaError, ConfigError, DataError, ModelError, RunError
from aha.tasks.worker_process import MAX_ERROR, MAX_REPLY, SIGNALLED, plain_line

START_SECONDS = 120.0  # heavy imports on a busy machine
END_SECONDS = 3.0  # for the keeper to end what the worker has started
POLL_SECONDS = 0.1  # between looks at a process that says nothing
MAX_PARTS = 100  # of the output of a process that has ended
MAX_PRINTED = 4_000  # characters that a worker's process may print in our terminal
GIGABYTE = 10**9
MAIN = "from aha.tasks.worker_process import main; main()"  # not -m: its classes exist once then

USER_ERRORS = {error.__name__: error for error in (ConfigError, DataError, ModelError, RunError)}


class CallFailed(Exception):
    """A call raised, exceeded its time limit or crashed; the message says which, in one line."""


class CallTimedOut(CallFailed):
    """A call exceeded its time limit."""


class ProcessEnded(Exception):
    """The process closed its pipe or ended in the middle of a call."""


class Worker:
    """Calling the worker calls the function.

    `build` names a builder as "module:function"; called there with `args`, it returns the function.
    Arguments travel as a pickle, results as JSON of at most `MAX_REPLY` bytes. `seconds` is the
    time limit of one call, `memory_gb` the limit of the process in 10^9 bytes (None: no limit; only
    Linux has it). After a fault of the process itself the next call starts another one. The worker
    of a forked copy of this program starts its own. Raises `ConfigError` on Windows, which cannot
    pass pipes on by number.
    """

    def __init__(
        self, build: str, args: tuple[Any, ...], seconds: float, memory_gb: float | None = None
    ):
        self.build, self.args, self.seconds, self.memory_gb = build, args, seconds, memory_gb
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()
        self.calls = self.printed = 0  # by all processes of this worker
        self.start_s = self.starts_s = 0.0  # the last start, and all of them together

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.build, self.args, self.seconds, self.memory_gb)

    def __call__(self, *args: Any) -> Any:
        """The result. Raises `CallFailed`, and an `AhaError` that `build` raised at the start."""
        with self.lock:
            if self.process is not None and not self.is_ours():
                self.close()
            try:
                if self.process is None:
                    self.start()
                return self.exchange(args, self.seconds)
            except AhaError:
                raise
            except OSError as error:  # of this program: no process, no descriptor left
                self.close()
                reason = plain_line(str(error), MAX_ERROR)
                raise CallFailed(f"cannot be reached: {reason}") from None

    @property
    def restart_s(self) -> float:
        """Seconds that the next call will wait for a process, as the last one did; 0 if it runs."""
        return self.start_s if self.process is None else 0.0

    def is_ours(self) -> bool:
        """Whether the process is this program's and nothing waits in its pipe: bytes between two
        calls are no reply to any."""
        if self.owner != os.getpid():
            return False
        return self.replies not in {key.fd for key, _ in self.ready.select(0)}

    # -- its process ------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process and build in it. Raises as `__call__` does."""
        if os.name != "posix":
            raise ConfigError(
                "a task from outside on Windows", "Linux or macOS", "use WSL, or a packaged task"
            )
        begun = time.monotonic()
        requests, self.requests = os.pipe()
        self.replies, replies = os.pipe()
        self.output, output = os.pipe()
        memory = int(self.memory_gb * GIGABYTE) if self.memory_gb else 0
        command = [sys.executable, "-P", "-u", "-c", MAIN, str(requests), str(replies), str(memory)]
        self.owner, self.pid, self.tail = os.getpid(), 0, b""  # pid: the worker's, once it replies
        self.ready = selectors.PollSelector()
        for descriptor in (self.replies, self.output):
            os.set_blocking(descriptor, False)
            self.ready.register(descriptor, selectors.EVENT_READ)
        os.set_blocking(self.requests, False)
        try:
            # Its own session: a Ctrl-C means "finish this step", and the step needs its graders.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                pass_fds=(requests, replies),
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,
            )
        except BaseException:
            self.close_pipes()
            raise
        finally:
            for descriptor in (requests, replies, output):
                os.close(descriptor)
        try:
            self.exchange((self.build, self.args), START_SECONDS)
        except BaseException:
            self.close()
            raise
        self.start_s = time.monotonic() - begun
        self.starts_s += self.start_s

    def close(self) -> None:
        """End the process and all that it has started, even in the middle of a call. The next call
        starts another one. In a forked copy of this program it only lets go of the pipes."""
        process, self.process = self.process, None
        if process is None:
            return
        assert process.stdin is not None, "the keeper waits for the end of its input"
        if self.owner == os.getpid():
            with suppress(OSError):
                # A byte, because a forked copy of this program may hold the pipe open.
                process.stdin.write(b"\n")
                process.stdin.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_SECONDS)
            if process.returncode is None or process.returncode < 0:
                # The keeper was killed, or could not do its work.
                for group in (self.pid, process.pid):
                    with suppress(OSError):
                        os.killpg(group or process.pid, signal.SIGKILL)
                process.wait()
        self.close_pipes()

    def close_pipes(self) -> None:
        self.ready.close()
        for descriptor in (self.requests, self.replies, self.output):
            os.close(descriptor)

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # at the end of the interpreter its modules may be gone
            pass

    # -- a call -----------------------------------------------------------------------------

    def exchange(self, message: tuple[Any, ...], seconds: float) -> Any:
        """Send a message and wait for its reply; raises as `__call__` does."""
        self.calls += 1
        try:
            body = pickle.dumps((self.calls, message))
        except Exception as error:  # whatever foreign objects raise
            text = plain_line(str(error), MAX_ERROR)
            raise CallFailed(f"cannot be sent the problem: {text}") from None
        deadline = time.monotonic() + seconds
        try:
            line = self.reply_line(len(body).to_bytes(8, "big") + body, deadline)
            kind, value = self.outcome(line)
        except ProcessEnded:
            raise CallFailed(self.ending()) from None
        except TimeoutError:
            self.close()
            raise CallTimedOut(f"took more than {seconds:g} s") from None
        except BaseException:  # a Ctrl-C too: a late reply must not pass for the next one
            self.close()
            raise
        if kind == "refused":
            raise USER_ERRORS.get(value["type"], AhaError)(
                value["got"], value["wanted"], value["fix"]
            )
        if kind == "raised":
            if value.startswith("raised MemoryError"):
                self.close()  # what fills the memory may still be there
                value += f" (its limit is {self.memory_gb:g} GB)" if self.memory_gb else ""
            raise CallFailed(value)
        return value

    def reply_line(self, request: bytes, deadline: float) -> bytes:
        """Send a request and read the line that comes back. Raises `ProcessEnded`, `TimeoutError`,
        and `CallFailed` for a line that is too long."""
        unsent, received = self.send(memoryview(request)), b""
        while b"\n" not in received:
            left = deadline - time.monotonic()
            ready = {key.fd for key, _ in self.ready.select(max(0.0, min(left, POLL_SECONDS)))}
            if self.output in ready:
                self.read_output()
            if self.requests in ready:
                unsent = self.send(unsent)
            if self.replies in ready:
                part = os.read(self.replies, MAX_REPLY + 1)
                received += part
                if not part:
                    raise ProcessEnded
                if len(received) > MAX_REPLY:
                    raise CallFailed("wrote into the pipe of its grades")
            elif self.process is not None and self.process.poll() is not None:
                raise ProcessEnded
            elif left <= 0:
                raise TimeoutError
        return received

    def send(self, unsent: memoryview) -> memoryview:
        """Write what the pipe takes; the rest is written when it takes more."""
        with suppress(BlockingIOError):
            try:
                while unsent:
                    unsent = unsent[os.write(self.requests, unsent) :]
            except BrokenPipeError:
                raise ProcessEnded from None
        registered = self.requests in self.ready.get_map()
        if unsent and not registered:
            self.ready.register(self.requests, selectors.EVENT_WRITE)
        if not unsent and registered:
            self.ready.unregister(self.requests)
        return unsent

    def outcome(self, line: bytes) -> tuple[str, Any]:
        """(kind, value) of a reply. Raises `CallFailed` for a line that is not the reply of the
        worker to this call: the function may have written it, or a process that it has started."""
        try:
            reply = json.loads(line, parse_constant=refuse)
            call, pid, kind, value = (reply[key] for key in ("call", "pid", "kind", "value"))
        except (ValueError, KeyError, TypeError, RecursionError):
            call = pid = kind = value = None
        # The first reply of a process tells its id, and may refuse what it was to build.
        first = self.pid == 0
        is_one = kind == "done" or (kind == "raised" and type(value) is str)
        is_one = is_one or (first and kind == "refused")
        if call != self.calls or type(pid) is not int or not (first or pid == self.pid):
            is_one = False
        if not is_one:
            raise CallFailed("wrote into the pipe of its grades")
        self.pid = pid
        return kind, value

    def ending(self) -> str:
        """How the process ended, in words; closes it."""
        assert self.process is not None, "a process that has ended"
        with suppress(subprocess.TimeoutExpired):  # it may have closed the pipe and live on
            self.process.wait(END_SECONDS)
        code = self.process.poll()
        for _ in range(MAX_PARTS):
            if not self.read_output():
                break
        self.close()
        if code is None:
            return "closed the pipe of its grades"
        last = plain_line(self.tail.decode(errors="replace").strip().rpartition("\n")[2], MAX_ERROR)
        words = f" ({last})" if last else ""
        number = -code if code < 0 else code - SIGNALLED
        if number > 0:
            with suppress(ValueError):
                return f"lost its process to {signal.Signals(number).name}{words}"
        return f"ended its process with exit code {code}{words}"

    def read_output(self) -> bool:
        """Pass on what the process has printed, as far as it is not too much; False where nothing
        is there. It goes to the error stream: standard output is for results."""
        try:
            part = os.read(self.output, 1 << 16)
        except BlockingIOError:
            return False
        if not part:  # all that could print have ended
            with suppress(KeyError):
                self.ready.unregister(self.output)
            return False
        self.tail = (self.tail + part)[-2 * MAX_ERROR :]
        left, self.printed = MAX_PRINTED - self.printed, self.printed + len(part)
        if left > 0:
            text = part.decode(errors="replace")[:left]
            text = visible(text)
            if self.printed >= MAX_PRINTED:
                text += "\n(what it prints from here on is left out)\n"
            with suppress(OSError, ValueError, AttributeError):  # nobody may read it
                sys.stderr.write(text)
                sys.stderr.flush()
        return True


def refuse(constant: str) -> None:
    """Numbers that JSON does not have."""
    raise ValueError(f"{constant} in a reply")
