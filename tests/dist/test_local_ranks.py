"""Ranks of this machine: what they exchange, and that no end of one of them is a wait for ever."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from aha.core.errors import ConfigError, RunStopped
from aha.core.sizes import ONE_THREAD_MODEL
from aha.dist.local_ranks import LATE_S, LocalRanks, can_meet, choose_ranks
from aha.machine.host import usable_cores

from . import rank_work

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
needs_gloo = pytest.mark.skipif(not can_meet(), reason="this torch has no gloo")


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """A started process has this one's sys.path."""
    monkeypatch.syspath_prepend(str(ROOT))


def run(size: int, work: Callable, late_s: float = LATE_S) -> object:
    with LocalRanks(size, work, late_s) as world:
        came = work(world)
    assert multiprocessing.active_children() == [] and not torch.distributed.is_initialized()
    return came


# -- what they exchange ----------------------------------------------------------------------------


@needs_gloo
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_add_up_and_agree(size):
    came = run(size, rank_work.exchange)
    # 1 + 10, and 1 + 10 + 100; the second parameter has ten times that
    total = {2: 11.0, 3: 111.0}[size]
    assert [grad.shape for grad in came["grads"]] == [(2, 3), (4,)]
    assert [grad.unique().tolist() for grad in came["grads"]] == [[total], [10 * total]]
    assert came["loss"] == {2: 2.0, 3: 4.5}[size]  # .5 + 1.5, and 2.5
    assert came["rare"] == [2.0] * 3 and came["idle"] is None
    assert came["sums"] == came["values"] == [size, sum(range(size))]
    assert came["requests"] == (True, False)  # the last rank alone asked to stop
    assert came["gathered"] == [{"rank": rank} for rank in range(size)]
    assert came["broadcast"] == b"r" * size
    assert came["rows"] == {2: [[0, 2, 4], [1, 3]], 3: [[0, 3], [1, 4], [2]]}[size]
    assert came["threads"] == [1] * size  # the tests allow one


def test_one_rank_starts_nothing():
    with LocalRanks(1, rank_work.refuse) as world:
        assert (world.rank, world.size) == (0, 1)
        assert multiprocessing.active_children() == []


@needs_gloo
def test_weights_that_differ_in_one_bit_are_an_error():
    with pytest.raises(RunStopped, match="other weights in rank 1 than in rank 0 at the start"):
        run(2, rank_work.differ)


# -- when one of them ends -------------------------------------------------------------------------


@needs_gloo
def test_the_error_of_a_rank_is_that_of_the_command():
    with pytest.raises(ConfigError) as caught:
        run(3, rank_work.refuse)
    assert str(caught.value) == "a fork; wanted a spoon; fix: look in the drawer"
    assert multiprocessing.active_children() == [] and not torch.distributed.is_initialized()


@needs_gloo
def test_a_fault_of_the_program_keeps_its_lines():
    with pytest.raises(ZeroDivisionError, match="a half of nothing") as caught:
        run(2, rank_work.stumble)
    (note,) = caught.value.__notes__
    assert note.startswith("In rank 1:") and "rank_work.py" in note


@needs_gloo
def test_an_error_after_the_last_meeting_is_an_error():
    with pytest.raises(ConfigError, match="wipe it"):
        run(2, rank_work.fail_after_rank_0)


@needs_gloo
@pytest.mark.parametrize("size", [2, 3])
def test_a_rank_that_is_killed_ends_the_others_with_its_number(size):
    with pytest.raises(RunStopped, match=r"rank 1 \(process \d+\) was ended by SIGKILL") as caught:
        run(size, rank_work.disappear)
    assert "--ranks 1" in caught.value.fix
    assert multiprocessing.active_children() == []


@needs_gloo
def test_a_rank_that_does_not_come_is_named_with_the_place():
    where = r"rank 1 \(process \d+\) did not come to the table, and did nothing for 2 s"
    with pytest.raises(RunStopped, match=where):
        run(3, rank_work.fall_asleep, late_s=2.0)
    assert multiprocessing.active_children() == []


@needs_gloo
def test_an_error_of_rank_0_ends_the_others():
    with pytest.raises(ValueError, match="of rank 0"), LocalRanks(2, rank_work.wait) as world:
        world.barrier("the beginning")
        raise ValueError("of rank 0")
    assert multiprocessing.active_children() == [] and not torch.distributed.is_initialized()


KILLED = """
import time
from aha.dist.local_ranks import LocalRanks
from tests.dist.rank_work import wait
if __name__ == "__main__":
    with LocalRanks(2, wait) as world:
        world.barrier("the beginning")
        print("met", flush=True)
        time.sleep(600)
"""


def alive(group: int) -> list[int]:
    """The processes of a group that have not ended."""
    running = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = path.read_text().rsplit(")", 1)[1].split()[:3]
        except OSError:  # ended just now
            continue
        if int(its_group) == group and state != "Z":
            running.append(int(path.parent.name))
    return running


@needs_gloo
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
def test_ranks_end_with_a_rank_0_that_is_killed(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(KILLED)
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
    process = subprocess.Popen(
        [sys.executable, script], env=env, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout.readline() == b"met\n"
    assert len(alive(process.pid)) >= 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while (left := alive(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []


# -- how many --------------------------------------------------------------------------------------


@pytest.fixture
def threads():
    """torch computes with as many threads as the machine has cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(usable_cores())
    yield usable_cores()
    torch.set_num_threads(before)


@needs_gloo
def test_auto_is_a_rank_for_each_core_of_a_small_model(threads):
    assert choose_ranks(None, CPU, 800_000, 10**9) == threads
    assert choose_ranks(None, CPU, ONE_THREAD_MODEL, 10**9) == 1
    assert choose_ranks(None, torch.device("cuda"), 800_000, 10**9) == 1
    assert choose_ranks(None, CPU, 800_000, 0) == 1  # too little for two
    assert choose_ranks(None, CPU, 800_000, 2) <= 2
    torch.set_num_threads(1)  # as with OMP_NUM_THREADS=1
    assert choose_ranks(None, CPU, 800_000, 10**9) == 1


@needs_gloo
def test_a_number_is_taken_as_it_is_or_refused():
    assert choose_ranks(1, torch.device("cuda"), 10**9, 1) == 1
    assert choose_ranks(3, CPU, 10**9, 1) == 3
    with pytest.raises(ConfigError, match="--ranks auto"):
        choose_ranks(10_000, CPU, 1, 1)
    with pytest.raises(ConfigError, match="--device cpu"):
        choose_ranks(2, torch.device("cuda"), 1, 1)
