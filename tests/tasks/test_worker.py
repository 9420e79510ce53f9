"""The worker: whatever a grader does, no text gets another one's grade, nothing hangs, and nothing
is left behind."""

import os
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from aha.core.errors import AhaError, ConfigError
from aha.core.records import Graded, Problem
from aha.tasks.catalog import make_task
from aha.tasks.worker import CallFailed, CallTimedOut, Worker

from .hostile import DEEDS, MARK, truth

HOSTILE = str(Path(__file__).with_name("hostile.py"))
GIVEN = {"target": [1]}
PROBLEM = Problem("hostile/1", "hostile", GIVEN)
LIMIT_S = 0.8  # of what hangs
PATIENCE_S = 60.0  # of all else, on a busy machine

LATE = f"took more than {LIMIT_S} s"
FAULTS = {
    "waits for a session of its own": LATE,
    "starts a daemon and ends": "ended its process with exit code 5",
    "leaves the pipe to a child and ends": "ended its process with exit code 9",
    "writes replies": "wrote into the pipe of its grades",
    "writes replies from a thread": "wrote into the pipe of its grades",
    "turns its pipe": "Bad file descriptor",
    "floods the error stream": LATE,
    "stops itself": LATE,
    "ignores signals": LATE,
    "crashes": "lost its process to SIGSEGV",
    "kills its keeper and waits": "lost its process to SIGKILL",
    "eats memory": "raised MemoryError (its limit is 0.2 GB)",
    "allows itself more memory": "not allowed to raise maximum limit",
    "leaves an alarm": "raised ValueError: late",
    "reads the standard input": "raised EOFError",
    "replaces functions": None,  # a grade, or a process that has ended
}


def left_behind() -> list[psutil.Process]:
    """What the graders of this file have started and is still there."""
    processes = psutil.process_iter(["cmdline"])
    return [process for process in processes if MARK in (process.info["cmdline"] or [])]


def has_ended(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(seconds: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + seconds
    while left_behind() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left_behind() == []


@pytest.fixture(scope="module")
def task():
    task = make_task(HOSTILE, {}, PATIENCE_S, memory_gb=0.2)
    yield task
    task.worker.close()
    assert left_behind() == []


def grade_innocent(task, text: str) -> None:
    assert task.grade(PROBLEM, text) == Graded(truth(text), False, "innocent")


@pytest.mark.parametrize("deed", DEEDS)
def test_a_deed_costs_its_own_text_at_most(task, deed, capfd):
    grade_innocent(task, f"before {deed}")
    hangs = FAULTS.get(deed) == LATE
    task.worker.seconds = LIMIT_S if hangs else PATIENCE_S
    started = time.monotonic()
    graded = task.grade(PROBLEM, deed)
    task.worker.seconds = PATIENCE_S
    assert time.monotonic() - started < (LIMIT_S + PATIENCE_S / 2 if hangs else PATIENCE_S)
    if graded.parts:
        assert (FAULTS[deed] or "") in graded.reason and graded.parts["grade_error"] == 1.0
        assert graded.reward == 0.0 and not graded.correct
    else:
        assert graded == Graded(truth(deed), False, "innocent")
        assert not FAULTS.get(deed)
    for number in range(3):
        grade_innocent(task, f"after {deed} {number}")
    assert PROBLEM.given == {"target": [1]}
    printed = capfd.readouterr()
    assert "\x1b" not in printed.err and len(printed.err) < 5_000 and printed.out == ""


def test_a_fork_that_comes_back_is_told(capfd):
    task = make_task(HOSTILE)  # the other one has printed all that it may
    deed = "forks, and the child comes back"
    deadline, printed = time.monotonic() + PATIENCE_S, ""
    while "came back" not in printed and time.monotonic() < deadline:
        task.grade(PROBLEM, deed)
        printed += capfd.readouterr().err
    assert "a fork of the grader came back from `grade`, and was ended" in printed


def test_a_process_that_is_lost_costs_the_start_of_the_next_one(task):
    grade_innocent(task, "now it runs")
    assert task.worker.restart_s == 0.0
    task.grade(PROBLEM, "crashes")
    assert 0.0 < task.worker.restart_s == task.worker.start_s


def test_what_a_call_that_hangs_has_started_ends_with_it():
    task = make_task(HOSTILE, {}, LIMIT_S)
    assert task.grade(PROBLEM, "waits for a session of its own").parts["grade_timeout"] == 1.0
    assert left_behind() == []


SCRIPT = """
import sys
from aha.core.records import Problem
from aha.tasks.catalog import make_task

task = make_task(sys.argv[1], {}, 60.0)
print("begins", flush=True)
for text in sys.argv[2:]:
    task.grade(Problem("hostile/1", "hostile", {"target": [1]}), text)
"""


def program(*texts: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", SCRIPT, HOSTILE, *texts]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_program_that_ends_leaves_nothing_that_holds_its_output_open():
    out, err = program("starts a daemon", "starts a session of its own").communicate(
        timeout=PATIENCE_S
    )
    assert out == b"begins\n" and err == b""
    wait_until_gone()


def test_a_program_that_is_killed_in_a_call_leaves_nothing():
    done = program("waits for a session of its own")
    deadline = time.monotonic() + PATIENCE_S
    while not left_behind() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert left_behind()
    done.kill()
    done.communicate(timeout=PATIENCE_S)
    wait_until_gone()


# -- calls, without a task ------------------------------------------------------------------


@pytest.fixture(scope="module")
def worker(importable):
    worker = Worker("doubler:build", (1,), PATIENCE_S)
    yield worker
    worker.close()


@pytest.fixture(autouse=True, scope="module")
def importable():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parent))
        yield


def test_threads_share_a_worker_without_mixing_their_calls(worker):
    results: dict[int, int] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: worker(n)})) for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: 2 * n + 1 for n in range(20)}


def test_a_forked_copy_of_the_program_has_a_worker_of_its_own(worker):
    ours = worker("own process")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:  # must not touch our worker, whatever fails here
        try:
            os.write(writing, str(worker("own process")).encode())
            worker.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    theirs = int(os.read(reading, 20))
    assert theirs != ours == worker("own process") and not psutil.pid_exists(theirs)


def test_a_copy_by_pickle_starts_its_own_process(worker):
    copy = pickle.loads(pickle.dumps(worker))
    assert (copy(3), copy.process.pid != worker.process.pid) == (7, True)
    copy.close()


@pytest.mark.parametrize(
    ("value", "reason"), [("set", "cannot be sent: .*set"), ("long", "cannot be sent: 7.... bytes")]
)
def test_a_result_that_cannot_be_sent_is_a_failed_call(worker, value, reason):
    with pytest.raises(CallFailed, match=reason):
        worker(value)
    assert worker(1) == 3


def test_an_argument_that_cannot_be_sent_is_a_failed_call(worker):
    with pytest.raises(CallFailed, match="cannot be sent the problem"):
        worker(lambda: 1)
    assert worker(1) == 3


def test_a_long_request_goes_through_a_pipe_that_is_shorter(worker):
    assert worker([7] * 1_000_000) == 1_000_000


def test_an_error_that_a_user_can_mend_keeps_its_type_at_the_start():
    with pytest.raises(ConfigError, match="an offset of None; wanted a number; fix: give one"):
        Worker("doubler:build", (None,), PATIENCE_S)(1)


def test_a_process_that_ends_at_the_start_is_a_failed_call():
    with pytest.raises(CallFailed, match="exit code 4"):
        Worker("doubler:build", (-1,), PATIENCE_S)(1)


def test_a_reply_after_the_limit_is_not_the_next_ones():
    worker = Worker("doubler:build", (1,), 0.1)
    with pytest.raises(CallTimedOut):
        worker("slow")
    worker.seconds = PATIENCE_S
    assert worker(4) == 9
    worker.close()


def test_a_process_that_was_stopped_between_two_calls_is_started_again(worker):
    worker(1)
    killed = psutil.Process(worker("own process"))
    killed.kill()
    deadline = time.monotonic() + PATIENCE_S
    while not has_ended(killed) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert worker(1) == 3


def test_windows_is_told_before_anything_starts(monkeypatch):
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(AhaError, match="Windows"):
        Worker("doubler:build", (1,), PATIENCE_S)(1)


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"xxx\n",
        b"null\n",
        b"[]\n",
        b'"done"\n',
        b"\xff\xfe\n",
        b"[" * 60_000 + b"\n",
        b'{"call": 7, "pid": 5, "kind": "done"}\n',
        b'{"call": 6, "pid": 5, "kind": "done", "value": 1}\n',
        b'{"call": "7", "pid": 5, "kind": "done", "value": 1}\n',
        b'{"call": 7, "pid": 4, "kind": "done", "value": 1}\n',
        b'{"call": 7, "pid": [], "kind": "done", "value": 1}\n',
        b'{"call": 7, "pid": 5, "kind": [], "value": 1}\n',
        b'{"call": 7, "pid": 5, "kind": "raised", "value": 1}\n',
        b'{"call": 7, "pid": 5, "kind": "refused", "value": {}}\n',
        b'{"call": 7, "pid": 5, "kind": "done", "value": NaN}\n',
        b'{"call": 7, "pid": 5, "kind": "done", "value": 1}\nx',
        b'x\n{"call": 7, "pid": 5, "kind": "done", "value": 1}\n',
    ],
)
def test_a_line_that_is_no_reply_to_the_call_is_refused(line):
    worker = Worker("doubler:build", (1,), PATIENCE_S)
    worker.calls, worker.pid = 7, 5
    assert worker.outcome(b'{"call": 7, "pid": 5, "kind": "done", "value": 1}\n') == ("done", 1)
    with pytest.raises(CallFailed, match="wrote into the pipe"):
        worker.outcome(line)


def test_no_descriptor_left_is_a_failed_call(monkeypatch):
    worker = Worker("doubler:build", (1,), PATIENCE_S)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pipe", lambda: os.open("/nowhere", os.O_RDONLY))
        with pytest.raises(CallFailed, match="cannot be reached: .*No such file"):
            worker(1)
    assert worker(1) == 3
    worker.close()


def test_without_an_error_stream_printing_does_no_harm(monkeypatch):
    task = make_task(str(Path(__file__).with_name("outside.py")))
    monkeypatch.setattr(sys, "stderr", None)
    seven = Problem("outside/7", "outside", {"number": 7})
    assert task.grade(seven, "print").reason == "another number"
    assert task.grade(seven, "7").correct
