"""Decode steps of the native engine as CUDA graphs: one token for every row in one launch.

A GPU computes a layer of a small model in less time than the host needs to launch its kernels. A
graph is one launch for everything between two tokens, sampling included.

A graph holds addresses and sizes, not tensors: it repeats the recorded kernels on the same memory.
So everything that a step reads or writes is in buffers that are allocated once (`Slots`, `KVCache`)
and changed in place, and a step returns nothing. A new number of rows needs another graph: it is
rounded up to an eighth of the slots, so there are at most 8. A cache that has grown is other
memory: all graphs are recorded again, which is why it grows by `CACHE_BLOCK` positions at a time.
Example:
80 slots, 33 rows: parts of 10, so the graph for 40 rows; the 7 in excess are computed and ignored.

Measured on one H100 (results/gpu): .10 to .22 of the speed of a copy. Elsewhere the same steps run
one operation at a time, which is how they are tested.
"""

from collections.abc import Callable
from typing import Any

import torch

from aha.rollout.slots import Slots

STEPS_PER_SYNC = 16  # a row that ends waits for at most so many steps until the host knows it
NUM_WIDTHS = 8  # different numbers of rows for which a graph is recorded
CACHE_BLOCK = 128  # positions by which the cache grows


class DecodeSteps:
    """Runs `step(width)` many times: it adds one token to the first `width` slots."""

    def __init__(self, slots: Slots, step: Callable[[int], None]):
        self.slots, self.step = slots, step
        self.graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self.capacity = -1
        self.pool: Any = None

    def width(self) -> int:
        """The number of rows, rounded up to an eighth of the slots."""
        part = -(-self.slots.size // NUM_WIDTHS)
        return min(self.slots.size, -(-len(self.slots.rows) // part) * part)

    def run(self, count: int) -> None:
        """`count` tokens for every row, without waiting for the device."""
        width = self.width()
        if self.slots.device.type != "cuda":
            for _ in range(count):
                self.step(width)
            return
        if self.slots.cache.capacity != self.capacity:
            self.graphs.clear()  # they point to the old cache's memory
            self.pool = None  # torch frees a memory pool with its last graph: take a new one
            self.capacity = self.slots.cache.capacity
        if width not in self.graphs:
            # Libraries allocate at their first use, which a graph must not contain: run once
            # without.
            self.step(width)
            count -= 1
            self.graphs[width] = self.record(width)
        for _ in range(count):
            self.graphs[width].replay()

    def record(self, width: int) -> torch.cuda.CUDAGraph:
        """A graph of one step. Recording computes nothing."""
        graph = torch.cuda.CUDAGraph()
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        # What other threads ask of CUDA meanwhile, as NCCL's watchdog does, must not end it.
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            self.step(width)
        return graph
