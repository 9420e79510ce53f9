"""Calls in a process of their own, with a time limit: for code that this project did not write.

A signal would be lighter and is not enough: it interrupts nothing inside C code, an `except:` in
that code swallows it, it exists in the main thread alone, and a crash ends our process too.
A thread cannot be stopped at all. A process can, whatever it is doing; a call costs a tenth of a
millisecond more.

The process starts at the first call and again after one that hung or crashed. It is a fresh Python,
not a fork, because a fork of a process whose libraries run threads may stop for ever.
"""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from aha.core.errors import AhaError

START_SECONDS = 120.0  # heavy imports on a busy machine


class CallFailed(Exception):
    """A call that raised, took too long or crashed; the text says which, in one line."""


class Worker:
    """A function in another process; calling the worker calls it there.

    `build` names a builder as "module:function"; called there with `args`, it returns the function.
    Arguments and results travel as pickles. `seconds` is the time limit of one call.
    """

    def __init__(self, build: str, args: tuple[Any, ...], seconds: float):
        self.build, self.args, self.seconds = build, args, seconds
        self.process: subprocess.Popen[bytes] | None = None
        self.pipe: Connection[Any, Any] | None = None

    def __call__(self, *args: Any) -> Any:
        """The result. Raises `CallFailed`, and whatever `build` raised when the process started."""
        if self.process is None:
            self.start()
        return self.exchange(args, self.seconds)

    def start(self) -> None:
        """Start the process and build in it; an error there is raised here, with its own type."""
        self.pipe, theirs = Pipe()
        command = [sys.executable, "-P", "-m", "aha.tasks.subprocess_calls", str(theirs.fileno())]
        # Its own session: a Ctrl-C means "finish this step", and the step needs its graders.
        self.process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,
        )
        theirs.close()
        try:
            self.exchange((self.build, self.args), START_SECONDS)
        except BaseException:
            self.close()
            raise

    def exchange(self, message: tuple[Any, ...], seconds: float) -> Any:
        """Send a message and wait for its reply; raises as `__call__` does."""
        assert self.process is not None and self.pipe is not None, "no process to talk to"
        process = self.process
        try:
            self.pipe.send(message)
            if not self.pipe.poll(seconds):
                raise CallFailed(f"took more than {seconds:g} s")
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            with suppress(subprocess.TimeoutExpired):  # it may have closed the pipe and live on
                process.wait(1.0)
            code = process.poll()
            self.close()
            raise CallFailed(f"its process ended with exit code {code}") from None
        except BaseException:  # a Ctrl-C too: a late reply must not pass for the next one
            self.close()
            raise
        if kind == "user error":
            raise value
        if kind == "raised":
            raise CallFailed(value)
        return value

    def close(self) -> None:
        """End the process, whatever it is doing; the next call starts another."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        if self.pipe is not None:
            self.pipe.close()
        self.process = self.pipe = None

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the interpreter its modules may be gone
            self.close()


# -- in the other process -------------------------------------------------------------------


def locate(name: str) -> Callable[..., Any]:
    """The function that "module:function" names."""
    module, _, function = name.partition(":")
    located: Callable[..., Any] = getattr(import_module(module), function)
    return located


def attempt(function: Callable[..., Any], *args: Any) -> tuple[str, Any]:
    """The outcome of a call as a message. Catches `BaseException`: a grader may call `exit()`."""
    try:
        return "done", function(*args)
    except AhaError as error:
        return "user error", error
    except BaseException as error:
        text = " ".join(str(error).split())[:200]
        return "raised", f"raised {type(error).__name__}" + (f": {text}" if text else "")


def serve(pipe: "Connection[Any, Any]") -> None:
    """Build once, then answer calls until the other end is closed."""
    build, args = pipe.recv()
    built: list[Callable[..., Any]] = []
    kind, value = attempt(lambda: built.append(locate(build)(*args)))
    pipe.send((kind, value))
    while built:
        try:
            message = pipe.recv()
        except EOFError:
            return
        outcome = attempt(built[0], *message)
        try:
            pipe.send(outcome)
        except OSError:
            return
        except Exception as error:  # the result cannot be pickled
            pipe.send(("raised", f"returned what cannot be sent: {type(error).__name__}"))


if __name__ == "__main__":
    # What a grader prints goes to the terminal's error stream: standard output is for results.
    os.dup2(2, 1)
    serve(Connection(int(sys.argv[1])))
