"""Ranks that another program has started: how they meet, and that each end of one is said."""

import os
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import distributed

from aha.core.errors import ConfigError, RunStopped
from aha.dist.joined_ranks import JoinedRanks, Limits, joined
from aha.dist.local_ranks import LOST_RANK, can_meet
from aha.dist.rank_place import RankPlace

from . import rank_work
from .agent import Agent

pytestmark = pytest.mark.skipif(not can_meet(), reason="this torch has no gloo")
QUICK = Limits(reach_s=30.0, meet_s=60.0, late_s=60.0)


class Joining(Agent):
    """Its ranks join, and do some work in their world."""

    def begin(self, work: Callable, limits: Limits = QUICK) -> None:
        self.start(partial(joined_work, work, limits))


def joined_work(work: Callable, limits: Limits, place: RankPlace) -> Any:
    with joined(place, limits) as ranks:
        return work(ranks.world)


def test_ranks_exchange_what_local_ones_do():
    agent = Joining(2)
    agent.begin(rank_work.exchange)
    came = agent.ends(2)[0]
    assert came["loss"] == 2.0 and came["sums"] == came["values"] == [2, 1]
    assert came["gathered"] == [{"rank": 0}, {"rank": 1}] and came["requests"] == (True, False)


def test_an_error_of_one_is_that_of_rank_0_and_a_new_attempt_meets_afresh():
    """The store still has everything of the first attempt."""
    agent = Joining(2)
    agent.begin(rank_work.refuse)
    ended = agent.ends(2)
    assert all(isinstance(error, ConfigError) for error in ended.values())
    assert str(ended[0]) == "a fork; wanted a spoon; fix: look in the drawer"
    agent.begin(keep_and_exchange)
    assert agent.ends(2)[0] == ["", ""]
    agent.begin(keep_and_exchange)
    assert agent.ends(2)[0] == ["runs/first", "runs/first"]


def keep_and_exchange(world) -> list[str]:
    ranks = JoinedRanks.current
    kept = world.gather(ranks.kept("run"), "what was kept")
    if world.rank == 0:
        ranks.keep("run", "runs/first")
    return kept


def test_a_rank_that_is_killed_is_named_with_the_place():
    agent = Joining(3)
    agent.begin(rank_work.disappear)
    ended = agent.ends(2)
    process, host = agent.processes[1].pid, socket.gethostname()
    for rank in (0, 2):
        assert isinstance(ended[rank], RunStopped) and ended[rank].check == LOST_RANK
        assert f"rank 1 (process {process} on {host}) ended before" in str(ended[0])


def test_the_others_say_that_rank_0_was_killed():
    agent = Joining(2)
    agent.begin(kill_rank_0)
    assert f"rank 0 (process {agent.processes[0].pid} on" in str(agent.ends(1)[1])


def kill_rank_0(world) -> None:
    world.barrier("the beginning")
    if world.rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    world.barrier("the table")


def test_a_rank_that_does_nothing_is_given_up_and_a_slow_one_is_not():
    agent = Joining(2)
    agent.begin(slow_then_asleep, Limits(30.0, 60.0, late_s=3.0))
    words = str(agent.ends(1)[0])
    assert words.startswith(f"rank 1 (process {agent.processes[1].pid} on ")
    assert "did not come to the bed, and did nothing for 3 s" in words


def slow_then_asleep(world) -> None:
    """Rank 1 first keeps the others waiting with work, for longer than they wait for a sleeper."""
    until = time.monotonic() + 5.0 * (world.rank == 1)
    while time.monotonic() < until:
        sum(range(10_000))
    world.barrier("the table")
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    world.barrier("the bed")


def test_a_master_that_cannot_be_reached_is_said_with_its_address():
    with socket.socket() as unused:  # taken, and nobody listens there
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        place = RankPlace(1, 2, 0, 1, "127.0.0.1", port, hosted=True)
        with pytest.raises(ConfigError, match=f"rank 1 on .* cannot reach .*127.0.0.1:{port}"):
            JoinedRanks(place, Limits(reach_s=0.2)).connect()
    nowhere = RankPlace(0, 2, 0, 1, "no-such-host.invalid", 29500, hosted=True)
    with pytest.raises(ConfigError, match="no-such-host.invalid:29500"):
        JoinedRanks(nowhere, Limits(reach_s=0.2)).connect()
    limits = Limits()
    assert limits.reach_s + 5 < 120


def test_a_rank_that_does_not_come_is_named():
    agent = Joining(3)
    ranks = JoinedRanks(agent.place(1), Limits(meet_s=0.3))
    with pytest.raises(RunStopped, match=r"rank 0, rank 2 of 3 did not come to 127\.0\.0\.1:"):
        ranks.connect()


def test_a_world_of_one_meets_nobody():
    agent = Joining(1)
    with joined(agent.place(0)) as ranks:
        assert (ranks.world.rank, ranks.world.size) == (0, 1)
        assert not distributed.is_initialized()
    assert JoinedRanks.current is None


# -- with a device group ---------------------------------------------------------------------------


def test_gradients_are_added_up_in_a_group_of_the_device():
    agent = Joining(2)
    agent.begin(rank_work.exchange_on_device)
    came = agent.ends(2)[0]
    assert came["loss"] == 2.0 and came["kinds"][1][1] == [3.0] * 5


@pytest.mark.parametrize("work", [rank_work.disappear_on_device, rank_work.wait_for_a_gpu])
def test_a_rank_that_is_killed_while_a_device_adds_up_is_named(work):
    agent = Joining(2)
    agent.begin(work)
    words = str(agent.ends(1)[0])
    assert f"rank 1 (process {agent.processes[1].pid} on " in words
    assert "ended before" in words


@pytest.mark.skipif(torch.cuda.device_count() > 1, reason="this machine has a GPU for each rank")
def test_too_few_gpus_are_the_error_of_all_ranks():
    agent = Joining(2)
    agent.begin(take_gpus)
    ended = agent.ends(2)
    assert {type(error) for error in ended.values()} == {ConfigError}
    for words in map(str, ended.values()):
        assert "rank 0 on " in words and "GPUs" in words and "--model.device cpu" in words


def take_gpus(world) -> None:
    world.take_device(torch.device("cuda"))
