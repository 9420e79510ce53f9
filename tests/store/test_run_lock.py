"""One process at a time writes to a run, and a dead one is no obstacle."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from aha.core.errors import RunError
from aha.store.run_folder import check_new
from aha.store.run_lock import RunLock

from ..dying import in_child

HOLD = """
import sys, time
from pathlib import Path
from aha.store.run_lock import RunLock
lock = RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_refused_with_pid_and_host_and_the_dead_one_is_replaced(tmp_path, holder):
    with pytest.raises(RunError) as caught:
        RunLock(tmp_path)
    host = json.loads((tmp_path / "owner.json").read_text())["host"]
    assert f"process {holder.pid} on {host}" in str(caught.value)
    assert f"kill {holder.pid}" in caught.value.fix
    # As the fix says, but without mercy.
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    said = []
    lock = RunLock(tmp_path, said.append)
    assert said[0].startswith(f"process {holder.pid} on {host}") and "taken over" in said[0]
    lock.release()
    lock.release()
    assert not (tmp_path / "owner.json").exists()
    RunLock(tmp_path, said.append).release()
    assert len(said) == 1


def test_no_child_keeps_the_lock(tmp_path):
    """Neither a fork, which ends with its locks untouched, nor a program that is started."""
    lock = RunLock(tmp_path)
    assert in_child(lambda: None) == 0
    with pytest.raises(RunError, match="in use"):
        RunLock(tmp_path)
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    lock.release()
    try:
        RunLock(tmp_path).release()
    finally:
        sleeper.kill()
        sleeper.wait()
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    def refuse(self, *unused) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    said = []
    RunLock(tmp_path, said.append).release()
    assert "No locks available" in said[0]


@pytest.mark.parametrize("damage", ["", "{", "[]", "\x00"])
def test_an_owner_that_cannot_be_read_is_no_obstacle(tmp_path, damage):
    (tmp_path / "owner.json").write_text(damage)
    RunLock(tmp_path).release()


def test_a_place_for_runs_that_is_none_is_refused_before_anything(tmp_path, monkeypatch):
    runs = tmp_path / "runs"
    runs.write_text("")
    with pytest.raises(RunError, match="runs is a file; wanted a folder"):
        check_new(runs / "mine")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(RunError, match="cannot be written to"):
        check_new(Path("runs") / "mine")
