"""Ticks of the native engine as CUDA graphs: one token for every row, launched as a whole.

A layer of a small model is done sooner than the host can ask for it. A graph asks once for
everything between two tokens, sampling included. It is recorded for one number of rows and one
size of the cache: rows are rounded up to an eighth of the table, and the cache grows in steps.

**This has not been run on a GPU yet.** Elsewhere the same ticks run one operation at a time, which
is how they are tested.
"""

from collections.abc import Callable

import torch

from aha.rollout.slots import Slots

LOOK = 16  # ticks between two looks of the host; a row that ends early waits for at most so many
WIDTHS = 8  # numbers of rows that a table is cut into
CACHE_BLOCK = 128  # positions by which the cache grows: each time, graphs are recorded anew


class Ticks:
    """Runs `tick(width)` often: it advances the first `width` rows of the table by one token."""

    def __init__(self, slots: Slots, tick: Callable[[int], None]):
        self.slots, self.tick = slots, tick
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.capacity = -1
        self.pool = None

    def width(self) -> int:
        """The rows that there are, rounded up: those in excess are computed for nothing."""
        part = -(-self.slots.size // WIDTHS)
        return min(self.slots.size, -(-len(self.slots.rows) // part) * part)

    def run(self, count: int) -> None:
        """`count` tokens for every row, without waiting for the device."""
        width = self.width()
        if self.slots.device.type != "cuda":
            for _ in range(count):
                self.tick(width)
            return
        if self.slots.cache.capacity != self.capacity:
            self.graphs.clear()  # their cache is gone
            self.pool = None  # one that no graph uses any more may not be used again
            self.capacity = self.slots.cache.capacity
        if width not in self.graphs:
            self.tick(width)  # libraries set themselves up at first use, which no graph may hold
            count -= 1
            self.graphs[width] = self.record(width)
        for _ in range(count):
            self.graphs[width].replay()

    def record(self, width: int) -> torch.cuda.CUDAGraph:
        """A graph of one tick. Recording computes nothing."""
        graph = torch.cuda.CUDAGraph()
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        with torch.cuda.graph(graph, pool=self.pool):
            self.tick(width)
        return graph
