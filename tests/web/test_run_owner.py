import json
import os
import socket
import subprocess
import sys
import time

import pytest

from aha.store.run_lock import RunLock, owner_of, this_process
from aha.web.run_owner import owner_lives


def test_the_holder_of_the_lock_lives_until_it_releases_it(tmp_path):
    lock = RunLock(tmp_path)
    assert owner_lives(owner_of(tmp_path)) is True
    lock.release()
    assert owner_lives(owner_of(tmp_path)) is False


def test_a_killed_process_is_dead_and_so_is_one_that_got_its_number_later():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = this_process() | {"pid": child.pid}
    assert owner_lives(owner) is True
    assert owner_lives(owner | {"time": 1e9}) is False
    of_an_older_version = {"pid": child.pid, "host": owner["host"], "since": owner["since"]}
    assert owner_lives(of_an_older_version) is True
    assert owner_lives(of_an_older_version | {"since": "2001-01-01 00:00:00"}) is False
    child.kill()
    if hasattr(os, "waitid"):
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert owner_lives(owner) is False  # a zombie, whose end nobody has taken yet
    child.wait()
    assert owner_lives(owner) is False


def test_a_reader_in_another_time_zone_sees_it_live(monkeypatch):
    owner = this_process()
    monkeypatch.setenv("TZ", "Asia/Tokyo")  # it begins nine hours before
    time.tzset()
    try:
        assert owner_lives(owner) is True
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("pid", [None, "7", 0, -1, 10**30, True, 1.5])
def test_a_pid_that_is_none_is_no_process(pid):
    assert owner_lives(this_process() | {"pid": pid}) is False


def test_of_another_machine_nothing_is_known():
    assert owner_lives(this_process() | {"host": "elsewhere"}) is None
    strange = {"pid": os.getpid(), "host": socket.gethostname(), "since": "yesterday"}
    assert owner_lives(json.loads(json.dumps(strange))) is None
