"""Ranks that meet in process groups of torch: on CPUs in one of gloo, on GPUs in one of NCCL too.

Everything that is small meets through gloo on the CPU, also the loss and the answers to requests,
before the gradients on GPUs are added up. So a rank that is slow, stopped or gone keeps the others
waiting in gloo, which can tell one from the other, and NCCL begins when all are there.
"""

import hashlib
import os
import pickle
import socket
import time
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from aha.core.errors import ConfigError, RunStopped
from aha.dist.gradient_buckets import add_up_in_buckets
from aha.dist.rank_device import (
    GPU_BACKENDS,
    HeldGpu,
    RankDevice,
    check_not_shared,
    take_gpu,
)
from aha.dist.rank_place import LocalPlace
from aha.dist.world import PHASES, RankLost, Value, World

# Who waits too long is decided by the launcher, which does not count the time in which the whole
# run is stopped (Ctrl-Z, a closed laptop). The clock of a process group does.
FOREVER = timedelta(days=20)
LOOK = timedelta(seconds=1)  # so long a waiting rank does not notice that the launcher has given up
# For a meeting within a model, and for the sums on GPUs: between two lies the work of one layer, or
# that of a disk. One hour late is an error, as nothing but `abort_device` can end such a meeting.
MEETING = timedelta(hours=1)
TICK_S = 2e-4  # between two looks whether a GPU has done its sums
ON_CPU = "--model.device cpu"
GONE = "another rank has ended"
# What NCCL's own threads do about a rank that is gone: end the meeting, and leave the process and
# its last words to us. And no thread ends a process that was stopped with Ctrl-Z for long.
NCCL_SETTINGS = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "2", "TORCH_NCCL_ENABLE_MONITORING": "0"}


class ProcessGroupWorld(World):
    """One of several ranks. Raises `RankLost` where another rank is gone.

    `seats` and `pulses` have a number for each rank: of the meetings that it has come to, by which
    the launcher sees who is missing, and of its signs of life. Ranks of one machine share this
    memory. The ranks meet from `connect` on. `given_up` is the reason for which the launcher has
    ended the wait for another rank; empty while it waits. `local`: which rank of its machine it is;
    by default all are on one.
    """

    def __init__(
        self,
        rank: int,
        seats: MutableSequence[int],
        pulses: MutableSequence[int],
        local: LocalPlace | None = None,
    ):
        super().__init__()
        self.local = local or LocalPlace(rank, len(seats))
        self.device: torch.device | None = None  # whose tensors `device_group` adds up
        self.aborted = False  # the meetings on it, as another rank is gone
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

    def take_device(self, device: torch.device) -> None:
        if device.type == "cpu" or self.device is not None:
            return
        answer: HeldGpu | ConfigError
        try:
            answer = take_gpu(self.local, device, self.rank, ON_CPU)
        except ConfigError as error:
            where = f"rank {self.rank} on {socket.gethostname()}"
            answer = ConfigError(f"{where}: {error.got}", error.wanted, error.fix)
        answers = self.gather(answer, "the choice of GPUs")
        for refusal in answers:
            if isinstance(refusal, ConfigError):
                raise refusal
        check_not_shared([gpu for gpu in answers if isinstance(gpu, HeldGpu)], ON_CPU)
        number = torch.cuda.current_device()
        self.open_device_group(RankDevice(torch.device(device.type, number), GPU_BACKENDS))

    def open_device_group(self, own: RankDevice) -> None:
        """Add up what is on this device in a process group of its own from here on. All ranks call
        it together."""
        for name, value in NCCL_SETTINGS.items():
            os.environ.setdefault(name, value)
        # With its device NCCL connects now, and what it lacks is an error here and not in a step.
        bound = own.device if own.device.type != "cpu" else None

        def connect() -> None:
            self.device_group = distributed.new_group(
                timeout=MEETING, backend=own.backends, device_id=bound
            )

        self.meet(f"the GPUs of all ranks ({own.backends})", connect)
        self.device = own.device

    def abort_device(self) -> None:
        """End the meetings on the device, in which this rank may be: another one has gone, and a
        GPU that waits for it would wait for ever. Called by a thread of the launcher."""
        if self.device_group is None or self.aborted:
            return
        self.aborted = True
        with suppress(RuntimeError):  # a back end that cannot, as gloo of older versions
            self.device_group._get_backend(self.device).abort()

    def close(self) -> None:
        """Leave the process group, if this has made it. The other ranks' calls then fail."""
        self.device_group = None  # a process that ends with a group waits for its threads
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
        here = [parameter for parameter in parameters if not self.is_on_device(parameter)]
        grads = [gradient_of(parameter) for parameter in here]
        answers = torch.tensor([float(answer()) for answer in self.requests.values()])
        # One buffer: a meeting costs more than the copies.
        parts = [*grads, sums.cpu(), has_own, answers, self.own_seconds()]
        flat = torch.cat([part.flatten().float() for part in parts])
        self.add_up(flat, place)
        *totals, own_sums, has_any, yes, spent = flat.split([part.numel() for part in parts])
        columns = spent.view(len(PHASES), self.size).tolist()
        self.work_s = dict(zip(PHASES, columns, strict=True))
        for gradient, total in zip(grads, totals, strict=True):
            gradient.copy_(total.view_as(gradient))
        counted = list(zip(parameters, has_any.tolist(), strict=True))
        there = [weight for weight, ranks in counted if ranks and self.is_on_device(weight)]
        add_up_in_buckets(
            [gradient_of(weight) for weight in there],
            lambda numbers: self.add_up_on_device(numbers, place),
        )
        for parameter, ranks in counted:
            if not ranks:
                parameter.grad = None
        names = zip(self.requests, yes.tolist(), strict=True)
        self.agreed = frozenset(name for name, count in names if count)
        total_sums: torch.Tensor = own_sums.view_as(sums).to(sums)
        return total_sums

    def is_on_device(self, tensor: torch.Tensor) -> bool:
        """Whether it is added up where it is, and not on the CPU."""
        on_device = self.device is not None and tensor.device.type == self.device.type
        assert on_device or tensor.device.type == "cpu", "no group adds up on its device"
        return on_device

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
        numbers = values.cpu()  # itself where it is there
        self.meet(place, lambda: group().allreduce([numbers], options))
        if numbers is not values:
            values.copy_(numbers)

    def add_up_on_device(self, numbers: torch.Tensor, place: str) -> None:
        """The same, in the process group of the device. Its own limit of time is `MEETING`."""
        self.place = place
        self.seats[self.rank] += 1
        try:
            work = self.device_group.allreduce([numbers], distributed.AllreduceOptions())
            # To wait with a limit would abort NCCL at its end; and a wait without one hears nobody.
            while not work.is_completed():
                if self.given_up or self.aborted:
                    raise RankLost(place, self.given_up or GONE)
                time.sleep(TICK_S)
            work.wait()  # raises its error; and the GPU's next work begins after it
        except RuntimeError as error:
            raise RankLost(place, reason_of(error)) from None
        self.place, self.left = self.joint_place, time.monotonic()

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
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy().tobytes())
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
            if self.aborted:
                raise RankLost(place, self.given_up or GONE)
        except (RuntimeError, RunStopped) as error:
            # What a meeting that was ended in its middle leaves, errors and numbers, says nothing.
            if self.aborted:
                raise RankLost(place, self.given_up or GONE) from None
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


def gradient_of(parameter: torch.Tensor) -> torch.Tensor:
    """The gradient of a parameter; zeros where this rank has none, as its part of the sum."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def reason_of(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def is_lost_connection(error: RuntimeError | RunStopped) -> bool:
    """Whether an error of joint work says that another rank is gone, and is no fault of this one.
    Gloo raises errors of no type of its own."""
    words = ("gloo", "connection", "nccl", "timed out")
    if isinstance(error, RunStopped):
        return False
    return isinstance(error, distributed.DistError) or any(
        word in reason_of(error).lower() for word in words
    )


def group() -> distributed.ProcessGroup:
    """The process group of this process."""
    own = distributed.group.WORLD
    assert own is not None, "the group is made with the world"
    return own
