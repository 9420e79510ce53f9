"""The ranks of a run as one of them sees them: what they add up, and what they tell each other.

A rank is a process that computes the gradient of its share of the rows. Every rank has all weights
and makes the same update, so only gradients travel. The code of a step calls a `World` and does not
know how many ranks there are: in a `World` of one each call returns at once, and no process group
exists.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

Value = TypeVar("Value")
PHASES = ("rollout", "update")  # of a step: what a rank does before others need it


class RankLost(Exception):
    """The ranks cannot meet at `place`: one of them has ended or does not come.

    Says where, not why. The launcher knows why, and raises the error for the user.
    """

    def __init__(self, place: str, reason: str):
        self.place, self.reason = place, reason
        super().__init__(place, reason)


class World:
    """A world of one rank, and the interface of all others.

    Every rank must make the same calls in the same order. `place` names the call in an error.

    `requests` are questions that any rank may answer with yes: `should(name)` is then true in all
    ranks after the same update. They travel with the gradients.
    """

    rank, size = 0, 1
    in_shards = False  # whether the models of the run are: no rank has all weights then
    # Of several ranks on GPUs: the process group that adds up there (see `take_device`).
    device_group: Any = None

    def __init__(self) -> None:
        self.requests: dict[str, Callable[[], bool]] = {}
        # Seconds that each rank has worked before the last update, by phase; by rank. Empty where
        # nobody waits for anybody.
        self.work_s: dict[str, list[float]] = {}

    def take_device(self, device: torch.device) -> None:
        """Compute on this kind of device from here on, which rank 0 has chosen: of several GPUs
        each rank takes one of its own. All ranks call it together, and those other than 0 before
        they open a model. A second call does nothing.

        Raises ConfigError in all ranks where one of them has no GPU for itself.
        """

    def count_work(self, phase: str) -> None:
        """What this rank did since it last met the others was work of this phase."""

    def pulse(self) -> None:
        """A sign of life, for work that uses little of the processor, such as to wait for a grader:
        without one in `late_s` seconds a rank that keeps others waiting is ended."""

    def should(self, name: str) -> bool:
        """Whether a rank said yes to the request `name` by the last `sum_gradients`."""
        return self.requests[name]()

    def share(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows of this rank: every `size`-th. None where there are fewer rows than ranks."""
        return rows[self.rank :: self.size]

    def deal(self, rows: Sequence[Value], cost_of: Callable[[Value], int]) -> list[Value]:
        """The rows of this rank: a run of them, cut so that all ranks have about the same cost.

        A row goes to the rank in whose part of the whole cost its middle lies. So rows that stand
        together stay together, and no rank has more than its part by more than the half of two
        rows. Example: costs 4 1 1 2 for two ranks: the middles are at 2, 4.5, 5.5 and 7 of 8, so
        rank 0 has the first row and rank 1 the others.
        """
        if self.size == 1:
            return list(rows)
        costs = [cost_of(row) for row in rows]
        whole, before, own = max(1, sum(costs)), 0, []
        for row, cost in zip(rows, costs, strict=True):
            if min(self.size - 1, (2 * before + cost) * self.size // (2 * whole)) == self.rank:
                own.append(row)
            before += cost
        return own

    def rounds(self, count: int, place: str) -> int:
        """How many micro-batches every rank computes, where this one has `count` of its own: as
        many, unless the models are in shards. Then no rank can compute without the others, so it is
        the largest number of all ranks."""
        if not self.in_shards:
            return count
        counts = torch.zeros(self.size, dtype=torch.int64)
        counts[self.rank] = count
        self.add_up(counts, place)
        return int(counts.max())

    @contextmanager
    def joint(self, place: str, watched: bool = True) -> Iterator[None]:
        """Around work in which models in shards make the ranks meet: what their absence raises
        there becomes `RankLost`. Not `watched`: it may take as long as it takes, as a disk does."""
        yield

    def sum_gradients(
        self, parameters: Sequence[torch.Tensor], sums: torch.Tensor, place: str
    ) -> torch.Tensor:
        """Replace each parameter's gradient by the sum over all ranks, bit-equal in all of them.

        A rank without rows may have no gradients: they count as 0. A parameter that has none in any
        rank has none afterwards. Returns the sum of `sums`, a few numbers such as the loss.
        """
        return sums

    def add_up(self, values: torch.Tensor, place: str) -> None:
        """Replace the values by their sum over all ranks, bit-equal in all of them. For few of
        them: wherever they are, they are added up on the CPU."""

    def gather(self, value: Value, place: str) -> list[Value]:
        """The value of each rank, by rank. For small values, which are pickled."""
        return [value]

    def broadcast(self, value: Value, source: int, place: str) -> Value:
        """The value of rank `source`; the others' is not read. It is pickled."""
        return value

    def check_equal(self, tensors: Iterable[torch.Tensor], place: str) -> None:
        """Raise RunStopped in all ranks unless all have the same bits in these tensors."""

    def barrier(self, place: str) -> None:
        """Wait until every rank has come here."""
        self.gather(None, place)
