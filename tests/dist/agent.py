"""Starts the ranks of one machine, again and again, and keeps their store: what torchrun does."""

import multiprocessing
import os
import pickle
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from torch import distributed

from aha.core.errors import AhaError
from aha.dist.rank_place import RankPlace

# A fork has torch loaded; the process of the tests itself never joins, so it has no thread of gloo.
FORK = multiprocessing.get_context("fork")


class Agent:
    """`start(part)` calls `part(place)` in a process for each rank; `ends(n)` waits for n of them."""

    def __init__(self, size: int):
        wait = timedelta(seconds=30)
        self.store = distributed.TCPStore("127.0.0.1", 0, None, True, wait, False)
        self.size, self.results = size, FORK.SimpleQueue()
        self.processes: list[Any] = []

    def place(self, rank: int) -> RankPlace:
        numbers = (rank, self.size, rank, self.size)
        return RankPlace(*numbers, "127.0.0.1", self.store.port, hosted=True)

    def start(self, part: Callable[[RankPlace], Any]) -> None:
        places = [self.place(rank) for rank in range(self.size)]
        self.processes = [FORK.Process(target=self.live, args=(place, part)) for place in places]
        for process in self.processes:
            process.start()

    def live(self, place: RankPlace, part: Callable[[RankPlace], Any]) -> None:
        try:
            self.results.put(pickle.dumps((place.rank, part(place))))
        except AhaError as error:
            self.results.put(pickle.dumps((place.rank, error)))
        finally:
            os._exit(0)  # as a process that has lost another one does

    def ends(self, ranks: int) -> dict[int, Any]:
        """What so many ranks have come to: a result, or an error for the user."""
        ended = dict(pickle.loads(self.results.get()) for _ in range(ranks))
        for process in self.processes:
            process.kill()
            process.join()
        return ended
