"""Starts the ranks of one machine, again and again, and keeps their store: what torchrun does."""

import multiprocessing
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from multiprocessing import connection
from typing import Any

from torch import distributed

from aha.core.errors import AhaError
from aha.dist.rank_place import RankPlace

# A fork has torch loaded; the process of the tests itself never joins, so it has no thread of gloo.
FORK = multiprocessing.get_context("fork")


class Agent:
    """`start(part)` calls `part(place)` in a process for each rank; `ends(n)` waits for n."""

    def __init__(self, size: int):
        wait = timedelta(seconds=30)
        self.store = distributed.TCPStore("127.0.0.1", 0, None, True, wait, False)
        self.size = size
        self.processes: list[Any] = []
        self.pipes: list[Any] = []

    def place(self, rank: int) -> RankPlace:
        numbers = (rank, self.size, rank, self.size)
        return RankPlace(*numbers, "127.0.0.1", self.store.port, hosted=True)

    def start(self, part: Callable[[RankPlace], Any]) -> None:
        self.processes, self.pipes = [], []
        for rank in range(self.size):
            ours, theirs = FORK.Pipe(duplex=False)  # one each: a killed process holds no lock
            process = FORK.Process(target=self.live, args=(self.place(rank), part, theirs))
            process.start()
            theirs.close()
            self.processes.append(process)
            self.pipes.append(ours)

    def live(self, place: RankPlace, part: Callable[[RankPlace], Any], pipe: Any) -> None:
        try:
            pipe.send_bytes(pickle.dumps(part(place)))
        except AhaError as error:
            pipe.send_bytes(pickle.dumps(error))
        finally:
            os._exit(0)  # as a process that has lost another one does

    def ends(self, ranks: int) -> dict[int, Any]:
        """What so many ranks have come to, by rank: a result, or an error for the user."""
        ended: dict[int, Any] = {}
        left = {pipe: rank for rank, pipe in enumerate(self.pipes)}
        while left and len(ended) < ranks:
            for pipe in connection.wait(list(left)):
                rank = left.pop(pipe)
                with suppress(EOFError):  # it was killed
                    ended[rank] = pickle.loads(pipe.recv_bytes())
        for process in self.processes:
            process.kill()
            process.join()
        return ended
