"""The log of a rank other than 0, `ranks/rank_1.log` in the run folder: rank 0 alone prints.

It has every order with its seconds, all that libraries print in that process, and the traceback of
the error that ended it.
"""

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from aha.dist.world import World

FOLDER = "ranks"
Note = Callable[[str], None]


@contextmanager
def rank_log(folder: Path, world: World) -> Iterator[Note]:
    """Open the log and give the function that writes a line with the time. Meanwhile the output of
    the process goes there too; afterwards an error goes where a launcher reads it. A resumed run
    adds to the log. A disk that does not take it costs the log, and one line on the error stream
    says so; the run goes on."""
    try:
        folder.mkdir(exist_ok=True)
        log = (folder / f"rank_{world.rank}.log").open("a", encoding="utf-8", buffering=1)
    except OSError as error:
        print(f"aha: rank {world.rank} keeps no log: {error}", file=sys.stderr)
        yield lambda line: None
        return
    with log, output_in(log.fileno()):

        def note(line: str) -> None:
            with suppress(OSError):  # a full disk: rank 0 meets it too, and says so
                log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")

        note(f"rank {world.rank} of {world.size}, process {os.getpid()}")
        try:
            yield note
        except BaseException:
            note(traceback.format_exc())
            raise
        note("the end")


@contextmanager
def output_in(log: int) -> Iterator[None]:
    """All that this process and its libraries print goes to an open file meanwhile."""
    before = []
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # a rank may be killed at any moment
        before.append((stream, os.dup(stream.fileno())))
        os.dup2(log, stream.fileno())
    try:
        yield
    finally:
        for stream, own in before:
            stream.flush()
            os.dup2(own, stream.fileno())
            os.close(own)


def name_of(order: Callable[..., Any]) -> str:
    """The name of the function that rank 0 has sent."""
    return getattr(order.func if isinstance(order, partial) else order, "__name__", str(order))


def carry_out(order: Callable[..., Any], subject: object, note: Note) -> None:
    """Do what rank 0 has sent, and write how long it took."""
    started = time.perf_counter()
    order(subject)
    note(f"{name_of(order)}: {time.perf_counter() - started:.3f} s")
