"""Shards written ahead by other processes, handed over in their order.

Documents are made by plain Python, one core's worth at a time, and a GPU reads faster than one core
writes. A shard is a function of its number, so process w of W simply writes the shards w, w + W,
w + 2W ... and waits in its pipe until each is taken: one finished shard ahead a process, no queue,
and the same shards in the same order whatever W is.

They are fresh Pythons, not forks, because a fork of a process whose libraries run threads may stop
for ever. They import no torch.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Generator
from itertools import count
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from threading import Thread
from typing import TypeVar

from aha.core.errors import RunError

Shard = TypeVar("Shard")


def in_order(
    write: Callable[[int], Shard], first: int, writers: int
) -> Generator[Shard, None, None]:
    """`write(first)`, `write(first + 1)` ... without end; with 0 writers in this process.

    `write` must be picklable. Closing the generator, or an error on the way, ends the processes.
    Raises `RunError` where one of them ends by itself; what it had to say is on standard error.
    """
    if not writers:
        yield from map(write, count(first))
        return
    started = [start(write, first + place, writers) for place in range(writers)]
    try:
        for number in count(first):
            process, pipe = started[(number - first) % writers]
            try:
                found = pipe.recv()
            except (EOFError, OSError):  # before a shard, or in the middle of one
                process.join()
                raise RunError(
                    f"the process that writes shard {number} ended, exit code {process.exitcode}",
                    "one that goes on writing",
                    "--writers 0 writes in the run itself",
                ) from None
            yield found
    finally:
        for process, _ in started:
            process.terminate()
        for process, pipe in started:
            process.join()
            pipe.close()


def start(write: Callable[[int], Shard], number: int, stride: int):
    """(process, our end of its pipe)."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(
        target=keep_writing, args=(theirs, write, number, stride), daemon=True
    )
    # A process inherits which signals are held back. Ctrl-C goes to all of a terminal's processes,
    # and means "finish this step" here: the writers hear of it from us.
    resource_tracker.ensure_running()  # the first start would do it, and let Ctrl-C in again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    theirs.close()  # so that the pipe ends when the process does
    return process, ours


def keep_writing(pipe: Connection, write: Callable[[int], Shard], number: int, stride: int) -> None:
    """What a writer does, until it is ended or nobody is there to read."""
    Thread(target=end_with_parent, daemon=True).start()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a writer is one core's worth
    try:
        for mine in count(number, stride):
            pipe.send(write(mine))
    except BrokenPipeError:
        pass


def end_with_parent() -> None:
    """A run that was killed closes nothing: without this, a writer would finish its shard first."""
    multiprocessing.parent_process().join()
    os._exit(1)
