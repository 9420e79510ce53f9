"""Other processes write shards in advance; they are received in order.

Plain Python on one core writes documents more slowly than a GPU reads them. A shard is a function
of its number, so process w of W writes the shards w, w + W, w + 2W ... and waits at its pipe until
each is received. So each process is one shard ahead, there is no queue, and the shards and their
order do not depend on W.

The processes are started fresh, not forked, because the fork of a process with threads may hang.
They import no torch.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator
from itertools import count
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from threading import Thread
from typing import Any, TypeAlias, TypeVar

from aha.core.errors import RunError

Shard = TypeVar("Shard")
Pipe: TypeAlias = "Connection[Any, Any]"


def in_order(
    write: Callable[[int], Shard], first: int, writers: int
) -> Generator[Shard, None, None]:
    """`write(first)`, `write(first + 1)` ... without end, written by so many other processes.

    With 0 writers this process writes, when a shard is needed. `write` must be picklable. Closing
    the generator, or an error, ends the processes. Raises `RunError` where a process ends by
    itself; its own error text is on standard error.
    """
    if not writers:
        yield from map(write, count(first))
        return
    started = [start(write, first + place, writers) for place in range(writers)]
    try:
        for number in count(first):
            process, pipe = started[(number - first) % writers]
            try:
                shard = pipe.recv()
            except (EOFError, OSError):  # before a shard, or in the middle of one
                process.join()
                raise RunError(
                    f"the process that writes shard {number} ended, exit code {process.exitcode}",
                    "one that goes on writing",
                    "--writers 0 writes in the run itself",
                ) from None
            yield shard
    finally:
        for process, _ in started:
            process.terminate()
        for process, pipe in started:
            process.join()
            pipe.close()


def start(write: Callable[[int], Shard], number: int, stride: int) -> tuple[SpawnProcess, Pipe]:
    """Start a process that writes the shards `number`, `number + stride` ...; returns it and the
    end of the pipe that its shards come out of."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=keep_writing, args=(theirs, write, number, stride), daemon=True
    )
    # A process inherits the mask of blocked signals. Ctrl-C goes to all processes of a terminal and
    # means "finish this step" here, so writers must not receive it: `in_order` ends them.
    resource_tracker.ensure_running()  # else the first start does this, and unblocks Ctrl-C
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()  # so that the pipe ends when the process does
    return process, ours


def keep_writing(pipe: Pipe, write: Callable[[int], Shard], number: int, stride: int) -> None:
    """The loop of a writer, until it is ended or the other end of the pipe is closed."""
    Thread(target=end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a writer has one core's worth of work
    try:
        for mine in count(number, stride):
            pipe.send(write(mine))
    except BrokenPipeError:
        pass


def end_with_parent() -> None:
    """End this process when its parent ends. Without this, a writer whose parent was killed would
    first finish its shard."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "a writer is started by another process"
    parent.join()
    os._exit(1)
