"""Ranks that meet through gloo, on CPUs."""

import hashlib
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from aha.core.errors import RunStopped
from aha.dist.world import PHASES, RankLost, Value, World

# Who waits too long is decided by the launcher, which does not count the time in which the whole
# run is stopped (Ctrl-Z, a closed laptop). The clock of a process group does.
FOREVER = timedelta(days=20)
LOOK = timedelta(seconds=1)  # so long a waiting rank does not notice that the launcher has given up


class GlooWorld(World):
    """One of several ranks. Raises `RankLost` where another rank is gone.

    `seats` and `pulses` have a number for each rank: of the meetings that it has come to, by which
    the launcher sees who is missing, and of its signs of life. Ranks of one machine share this
    memory. The ranks meet from `connect` on. `given_up` is the reason for which the launcher has
    ended the wait for another rank; empty while it waits.
    """

    def __init__(self, rank: int, seats: MutableSequence[int], pulses: MutableSequence[int]):
        super().__init__()
        self.rank, self.size, self.seats, self.pulses = rank, len(seats), seats, pulses
        self.place, self.agreed = "the start", frozenset[str]()
        self.joint_place = ""  # of the joint work that the rank is in
        self.given_up, self.owns_group = "", False
        self.left = time.monotonic()  # the last meeting
        self.own_s = dict.fromkeys(PHASES, 0.0)

    def connect(self, store: Any, limit_s: float) -> None:
        """Find the other ranks, in `limit_s` seconds. `store` is one of torch.distributed."""
        limit = timedelta(seconds=limit_s)
        store.set_timeout(limit)
        if distributed.is_initialized():  # by Ray Train, which also ends it
            return
        self.owns_group = True
        self.meet(
            self.place,
            lambda: distributed.init_process_group(
                "gloo", store=store, rank=self.rank, world_size=self.size, timeout=limit
            ),
        )

    def close(self) -> None:
        """Leave the process group, if this has made it. The other ranks' calls then fail."""
        if self.owns_group and distributed.is_initialized():
            distributed.destroy_process_group()

    def pulse(self) -> None:
        self.pulses[self.rank] += 1

    def should(self, name: str) -> bool:
        return name in self.agreed

    def sum_gradients(
        self, parameters: Sequence[torch.Tensor], sums: torch.Tensor, place: str
    ) -> torch.Tensor:
        has_own = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
        answers = torch.tensor([float(answer()) for answer in self.requests.values()])
        # One buffer: a meeting costs more than the copies.
        parts = [*grads, sums, has_own, answers, self.own_seconds()]
        flat = torch.cat([part.flatten().float() for part in parts])
        self.add_up(flat, place)
        *totals, own_sums, has_any, yes, spent = flat.split([part.numel() for part in parts])
        columns = spent.view(len(PHASES), self.size).tolist()
        self.work_s = dict(zip(PHASES, columns, strict=True))
        for parameter, total, ranks in zip(parameters, totals, has_any.tolist(), strict=True):
            assert parameter.grad is not None, "each got one above"
            if ranks:
                parameter.grad.copy_(total.view_as(parameter.grad))
            else:
                parameter.grad = None
        names = zip(self.requests, yes.tolist(), strict=True)
        self.agreed = frozenset(name for name, count in names if count)
        total_sums: torch.Tensor = own_sums.view_as(sums).to(sums)
        return total_sums

    def own_seconds(self) -> torch.Tensor:
        """[phases, ranks] with this rank's seconds of work since the last update, and 0 for the
        others': what all ranks add up is everybody's."""
        self.count_work("update")
        seconds = torch.zeros(len(PHASES), self.size)
        seconds[:, self.rank] = torch.tensor([self.own_s[phase] for phase in PHASES])
        self.own_s = dict.fromkeys(PHASES, 0.0)
        return seconds

    def count_work(self, phase: str) -> None:
        """The time since the last meeting was work of this phase, which ends at the next one."""
        now = time.monotonic()
        self.own_s[phase] += now - self.left
        self.left = now

    def add_up(self, values: torch.Tensor, place: str) -> None:
        options = distributed.AllreduceOptions()
        options.timeout = FOREVER
        self.meet(place, lambda: group().allreduce([values], options))

    def gather(self, value: Value, place: str) -> list[Value]:
        return [self.broadcast(value, source, place) for source in range(self.size)]

    def broadcast(self, value: Value, source: int, place: str) -> Value:
        own = self.rank == source
        content = bytearray(pickle.dumps(value)) if own else bytearray()
        length = torch.tensor([len(content)])
        self.send(length, source, place)
        if not own:
            content = bytearray(int(length))
        self.send(torch.frombuffer(content, dtype=torch.uint8), source, place)
        if own:
            return value
        received: Value = pickle.loads(content)
        return received

    def check_equal(self, tensors: Iterable[torch.Tensor], place: str) -> None:
        digest = hashlib.sha256()
        for tensor in tensors:
            digest.update(tensor.detach().flatten().view(torch.uint8).numpy().tobytes())
        digests = self.gather(digest.hexdigest(), place)
        others = [rank for rank, other in enumerate(digests) if other != digests[0]]
        if others:
            raise RunStopped(
                f"other weights in rank {others[0]} than in rank 0 at {place}",
                "the same bits in all ranks",
                "start it again from its last checkpoint, with --ranks 1 if this comes back",
            )

    @contextmanager
    def joint(self, place: str, watched: bool = True) -> Iterator[None]:
        if not self.in_shards:
            yield
            return
        if watched:
            self.place = self.joint_place = place
        self.seats[self.rank] += 1
        try:
            yield
        except RuntimeError as error:
            if not is_lost_connection(error):
                raise
            raise RankLost(place, reason_of(error)) from None
        finally:
            self.joint_place = ""
        self.place = ""

    def send(self, buffer: torch.Tensor, source: int, place: str) -> None:
        """Fill the buffer of every rank with that of rank `source`."""
        options = distributed.BroadcastOptions()
        options.rootRank, options.rootTensor, options.timeout = source, 0, FOREVER
        self.meet(place, lambda: group().broadcast([buffer], options))

    def meet(self, place: str, exchange: Callable[[], Any]) -> None:
        """Count the meeting, and turn the errors of gloo into `RankLost`."""
        self.place = place
        self.seats[self.rank] += 1
        try:
            work = exchange()
            while work is not None and not self.is_over(work):
                if self.given_up:
                    raise RankLost(place, self.given_up)
        except RuntimeError as error:
            raise RankLost(place, reason_of(error)) from None
        self.place, self.left = self.joint_place, time.monotonic()

    @staticmethod
    def is_over(work: distributed.Work) -> bool:
        """Wait for an exchange, `LOOK` at most. Raises RuntimeError where it has failed."""
        try:
            work.wait(LOOK)
        except RuntimeError:
            if not work.is_completed():
                return False
            work.wait(LOOK)  # raises again where the error was not that of the time
        return True


def reason_of(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def is_lost_connection(error: RuntimeError) -> bool:
    """Whether an error of joint work says that another rank is gone, and is no fault of this one.
    Gloo raises errors of no type of its own."""
    words = ("gloo", "connection", "nccl", "timed out")
    return isinstance(error, distributed.DistError) or any(
        word in reason_of(error).lower() for word in words
    )


def group() -> distributed.ProcessGroup:
    """The process group of this process."""
    own = distributed.group.WORLD
    assert own is not None, "the group is made with the world"
    return own
