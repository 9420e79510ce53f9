"""Ranks that another program has started (torchrun, Ray): they meet through a store of torch.

Each process joins by itself, so nobody has its pipe or may end it. What a rank has to say goes
through the store: a sign of life each second, and the error that has ended it. By these rank 0 sees
who keeps the others waiting, and every rank why it could not meet.
"""

import pickle
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, ClassVar

from torch import distributed

from aha.core.errors import ConfigError, RunStopped
from aha.dist.local_ranks import LATE_S, LOST_RANK, REPORT_S, as_report, prefer_loopback, rank_error
from aha.dist.patience import Patience, is_gone
from aha.dist.process_group_world import ProcessGroupWorld
from aha.dist.rank_place import RankPlace
from aha.dist.sign_of_life import SignOfLife, sign_of_this
from aha.dist.world import RankLost, World

SILENT_S = 5.0  # without a sign of life from another machine, where something went wrong already
AGAIN = "start all of it again; a run that has begun goes on with `aha train --resume RUN`"


@dataclass(frozen=True)
class Limits:
    """Seconds: in which a rank has to reach the store (`reach_s`) and then all others (`meet_s`),
    and after which a rank that does nothing is given up (`late_s`)."""

    reach_s: float = 50.0
    meet_s: float = 120.0  # the first import of torch from a slow disk takes so long
    late_s: float = LATE_S


class JoinedRanks:
    """The ranks of a run as one of them sees them, from `connect` to `close`.

    A context manager, as `LocalRanks` is: an error of its body that says that the ranks could not
    meet becomes the reason for it. `current` is that of this process, if it has joined any.
    """

    current: ClassVar["JoinedRanks | None"] = None

    def __init__(self, place: RankPlace, limits: Limits | None = None):
        self.place, self.size, self.again = place, place.size, AGAIN
        self.limits = limits or Limits()
        self.late_s = self.limits.late_s
        self.seats, self.pulses = [0] * place.size, [0] * place.size
        self.world = World()
        if self.size > 1:
            self.world = self.meetings = ProcessGroupWorld(
                place.rank, self.seats, self.pulses, place.local
            )
        self.over = threading.Event()
        self.begun = False  # whether rank 0 has named a run to the others

    def __enter__(self) -> World:
        return self.world

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, RankLost):
            raise self.reason(error) from None

    # -- the beginning -----------------------------------------------------------------------------

    def connect(self) -> None:
        """Find the other ranks. Raises ConfigError where the store cannot be reached, RunStopped
        where a rank does not come."""
        base = self.open_store()
        self.job = distributed.PrefixStore("aha", base)
        if self.size == 1:
            return
        if self.place.on_one_machine:
            prefer_loopback()
        session = self.agree_on_session()
        with self:
            self.meetings.connect(distributed.PrefixStore("gloo", self.store), self.limits.meet_s)
            self.world.barrier("the start")
        again = base.clone()  # type: ignore[attr-defined]
        own = distributed.PrefixStore(session, distributed.PrefixStore("aha", again))
        threading.Thread(target=self.watch, args=(own,), daemon=True).start()

    def open_store(self) -> distributed.TCPStore:
        """The store at the address of the launcher; rank 0 makes it where the launcher has none."""
        place, limit = self.place, timedelta(seconds=self.limits.reach_s)
        makes_it = place.rank == 0 and not place.hosted
        try:
            if not makes_it:
                wait_for_port(place.host, place.port, self.limits.reach_s)
            return distributed.TCPStore(
                place.host, place.port, None, makes_it, limit, False, multi_tenant=True
            )
        except (OSError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ConfigError(
                f"rank {place.rank} on {socket.gethostname()} cannot reach the ranks' meeting "
                f"point {place.address}: {reason}",
                "an address and a port that every machine reaches",
                "the name or address of the first machine (torchrun --rdzv-endpoint HOST:PORT, or "
                "--master-addr), and a port that its firewall lets through",
            ) from None

    def agree_on_session(self) -> str:
        """A name that only the processes of this attempt know: whatever the store still has of an
        earlier one is under another name.

        Launchers count their attempts differently on each machine, so each rank leaves a number of
        its own, and rank 0 names a session of all numbers. A number may be one of an earlier
        attempt, whose rank never answers: so the session begins when each rank has answered.
        """
        rank, own = self.place.rank, secrets.token_hex(8)
        self.job.set(f"arrived/{rank}", own)
        deadline = time.monotonic() + self.limits.meet_s
        answered = ""
        while time.monotonic() < deadline:
            if rank == 0:
                self.name_session()
            session = self.read_key("session")
            if own in session.split("-"):
                if answered != session:
                    self.store = distributed.PrefixStore(session, self.job)
                    self.show_life(self.store)
                    self.job.set(f"{session}/answer/{rank}", own)
                    answered = session
                if rank == 0 and not self.missing_answers(session):
                    self.job.set(f"{session}/begins", own)
                if self.job.check([f"{session}/begins"]):
                    return session
            time.sleep(0.05)
        names = ", ".join(f"rank {number}" for number in self.absent(self.read_key("session"), own))
        raise rank_error(
            f"{names} of {self.size} did not come to {self.place.address} "
            f"in {self.limits.meet_s:.0f} s",
            "all ranks at one meeting point",
            "look at what the launcher says of that rank; torchrun needs the same --nnodes, "
            "--rdzv-id and --rdzv-endpoint on all machines",
        )

    def name_session(self) -> None:
        numbers = [self.read_key(f"arrived/{rank}") for rank in range(self.size)]
        session = "-".join(numbers)
        if all(numbers) and session != self.read_key("session"):
            self.job.set("session", session)

    def missing_answers(self, session: str) -> list[int]:
        """The ranks that have not answered to this session."""
        ranks = range(self.size)
        return [r for r in ranks if not self.job.check([f"{session}/answer/{r}"])]

    def absent(self, session: str, own: str) -> list[int]:
        """The ranks that this one has waited for in vain."""
        others = [rank for rank in range(self.size) if rank != self.place.rank]
        if own in session.split("-"):
            return [rank for rank in others if rank in self.missing_answers(session)] or [0]
        return [rank for rank in others if not self.read_key(f"arrived/{rank}")] or [0]

    def read_key(self, key: str) -> str:
        """Of the job; empty where nobody has written it."""
        return str(self.job.get(key).decode()) if self.job.check([key]) else ""

    def keep(self, key: str, text: str) -> None:
        """For the next attempts of the same job, where the launcher keeps the store."""
        self.job.set(f"kept/{key}", text)

    def kept(self, key: str) -> str:
        """What an attempt of this job has kept; else empty."""
        return self.read_key(f"kept/{key}")

    # -- signs of life -----------------------------------------------------------------------------

    def show_life(self, store: Any) -> None:
        rank = self.place.rank
        store.set(f"life/{rank}", sign_of_this(self.seats[rank], self.pulses[rank]).as_text())

    def sign_of(self, rank: int, store: Any) -> SignOfLife:
        """The last one of a rank. It is there from `connect` on."""
        return SignOfLife.from_text(store.get(f"life/{rank}").decode())

    def watch(self, store: Any) -> None:
        """Show that this rank lives, and give up the wait for one that does not.

        Every meeting is one of all ranks. So rank 0 looks whether the others work, and these look
        whether rank 0 lives: it may wait for a slow disk. `store` is a connection of this thread.
        """
        away, patience = Patience(self.late_s), Patience(self.late_s)
        meeting, before = 0, dict[int, SignOfLife]()
        while not self.over.wait(away.tick):
            try:
                self.show_life(store)
                signs = {rank: self.sign_of(rank, store) for rank in self.watched()}
                away = Patience(self.late_s)
            except RuntimeError:
                if away.over(0.0, False):
                    self.give_up(f"the meeting point {self.place.address} is gone")
                    return
                continue
            if self.meetings.place and any(self.is_gone_here(sign) for sign in signs.values()):
                self.meetings.abort_device()  # gloo is told by its sockets, a GPU by nobody
            if not self.meetings.place or self.seats[self.place.rank] != meeting:
                patience, meeting = Patience(self.late_s), self.seats[self.place.rank]
            late = {rank: sign for rank, sign in signs.items() if sign.seat < meeting} or signs
            silent = [rank for rank, sign in late.items() if sign == before.get(rank)]
            if patience.over(*self.work_of_late(late, silent)) and self.meetings.place:
                self.give_up(self.words_for({r: late[r] for r in silent} or late))
                return
            before = signs

    def give_up(self, reason: str) -> None:
        """No longer wait for the others, wherever this rank is."""
        self.meetings.given_up = reason
        self.meetings.abort_device()

    def watched(self) -> list[int]:
        return [0] if self.place.rank else list(range(1, self.size))

    def work_of_late(self, late: dict[int, SignOfLife], silent: list[int]) -> tuple[float, bool]:
        """For `Patience.over`: whether ranks that are late work; of rank 0 whether it lives."""
        if self.place.rank:
            return float(late[0].number), False
        running = any(sign.running for rank, sign in late.items() if rank not in silent)
        return sum(sign.signs for sign in late.values()), running

    def words_for(self, late: dict[int, SignOfLife]) -> str:
        names = ", ".join(f"rank {rank} ({sign.where()})" for rank, sign in late.items())
        place = self.meetings.place
        return f"{names} did not come to {place}, and did nothing for {self.late_s:.0f} s"

    # -- the end -----------------------------------------------------------------------------------

    def tell_error(self, error: BaseException) -> None:
        """The other ranks read why this one ends."""
        if self.size > 1 and hasattr(self, "store") and not is_of_another(error):
            with suppress(RuntimeError):
                report = pickle.dumps(as_report(error, self.place.rank))
                self.store.set(f"error/{self.place.rank}", report)  # type: ignore[arg-type]

    def reason(self, lost: RankLost) -> BaseException:
        """Why the ranks could not meet: the error of one of them, or which one has gone.

        From here on this process only says what has happened, so SIGTERM waits: torchrun sends it
        to all ranks as soon as it misses one.
        """
        if threading.current_thread() is threading.main_thread():
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        got = f"the ranks could not meet at {lost.place}: {lost.reason}"
        if self.meetings.given_up:
            return rank_error(self.meetings.given_up, "ranks that work to the end", self.again)
        try:
            others = [rank for rank in range(self.size) if rank != self.place.rank]
            before = {rank: self.sign_of(rank, self.store) for rank in others}
            began = time.monotonic()
            while time.monotonic() - began < REPORT_S:
                silent = time.monotonic() - began > SILENT_S
                gone = [rank for rank, sign in before.items() if self.has_gone(rank, sign, silent)]
                for rank in others:
                    if self.store.check([f"error/{rank}"]):
                        return self.error_of(rank)
                if gone:
                    names = ", ".join(f"rank {rank} ({before[rank].where()})" for rank in gone)
                    got = f"{names} ended before {lost.place}: killed, perhaps because memory ran "
                    got += "out, or its machine is gone"
                    return rank_error(got, "ranks that work to the end", self.again)
                time.sleep(0.2)
        except RuntimeError:
            got += f"; the meeting point {self.place.address} is gone, and with it rank 0"
        return rank_error(got, "ranks that reach each other", self.again)

    def has_gone(self, rank: int, before: SignOfLife, silent: bool) -> bool:
        """Whether a rank has ended: known of this machine, and of another one if it has been
        `silent` since the sign of life `before`."""
        if before.host == socket.gethostname():
            return self.is_gone_here(before)
        return silent and self.sign_of(rank, self.store).number == before.number

    @staticmethod
    def is_gone_here(sign: SignOfLife) -> bool:
        """Whether a rank of this machine has ended."""
        return sign.host == socket.gethostname() and is_gone(sign.pid)

    def error_of(self, rank: int) -> BaseException:
        """The error that has ended another rank; rank 0 has it as its own."""
        error = pickle.loads(self.store.get(f"error/{rank}"))
        assert isinstance(error, BaseException)
        if self.place.rank == 0:
            return error
        got = f"rank {rank} has ended: {error}"
        return rank_error(got, "ranks that work to the end", "see there")

    def close(self) -> None:
        """Leave the others, when all have come to the end."""
        self.over.set()
        if self.size > 1:
            self.meetings.close()


@contextmanager
def joined(place: RankPlace, limits: Limits | None = None) -> Iterator[JoinedRanks]:
    """The ranks that this process belongs to, connected. The body is the whole work of this rank.

    At the end all wait for each other. An error of the body is told to the other ranks.
    """
    ranks = JoinedRanks.current = JoinedRanks(place, limits)
    try:
        with ranks:
            ranks.connect()
            yield ranks
            ranks.world.barrier("the end")
        ranks.close()
    except BaseException as error:
        ranks.tell_error(error)
        raise
    finally:
        ranks.over.set()
        JoinedRanks.current = None


def is_of_another(error: BaseException) -> bool:
    """Whether an error only says that another rank is gone."""
    return isinstance(error, RankLost) or (
        isinstance(error, RunStopped) and error.check == LOST_RANK
    )


def wait_for_port(host: str, port: int, limit_s: float) -> None:
    """Wait until something listens there. Raises OSError, with the last reason."""
    deadline = time.monotonic() + limit_s
    while True:
        try:
            socket.create_connection((host, port), timeout=5.0).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


def ranks_here(ranks: int) -> int:
    """How many of a run's ranks are on this machine: all, unless a launcher has spread them."""
    joined = JoinedRanks.current
    return joined.place.local_size if joined else ranks
