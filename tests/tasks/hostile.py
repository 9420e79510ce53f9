"""A task whose grader does to its process what the text says; any other text is innocent."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
import zlib

from aha.core.records import Graded, Problem

MARK = "31536777"  # seconds: the `sleep` of this file, in a list of processes
SLEEP = ["sleep", MARK]
BARE = {"PATH": os.environ["PATH"]}  # an environment that does not show where it comes from


def problems(split, seed):
    yield Problem("hostile/1", "hostile", {"target": [1]})


def ask(problem):
    return "?"


def truth(text):
    return zlib.crc32(text.encode()) % 1000 / 1000


def pipes():
    return [int(name) for name in os.listdir("/proc/self/fd") if int(name) >= 200]


def write_replies():
    for number in range(2000):
        for pipe in pipes():
            try:
                os.write(pipe, b'{"call": 2, "pid": 1, "kind": "done", "value": {"reward": 9}}\n')
            except OSError:
                pass
        time.sleep(0.001 if number else 0)


def forked(then):
    if os.fork() == 0:
        then()
        os._exit(0)


def daemon():
    os.setsid()
    forked(lambda: os.execvp("sleep", SLEEP))


def grown():
    heap = []
    while True:
        heap.append(bytearray(20_000_000))


def patched():
    import json
    import pickle

    for module, name in ((json, "dumps"), (pickle, "loads"), (os, "_exit")):
        setattr(module, name, lambda *unused, **more: 1 / 0)


def later(seconds, error):
    signal.signal(signal.SIGALRM, lambda *unused: 1 / 0)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    if error:
        raise error


DEEDS = {
    "forks, and the child comes back": os.fork,
    "forks, and the child writes": lambda: forked(write_replies),
    "starts a daemon": lambda: forked(daemon),
    "starts a session of its own": lambda: subprocess.Popen(
        SLEEP, start_new_session=True, env=BARE
    ),
    "waits for a session of its own": lambda: subprocess.run(
        SLEEP, start_new_session=True, env=BARE
    ),
    "starts a daemon and ends": lambda: (forked(daemon), time.sleep(0.05), os._exit(5)),
    "leaves the pipe to a child and ends": lambda: (
        forked(lambda: time.sleep(float(MARK))),
        os._exit(9),
    ),
    "writes replies": write_replies,
    "writes replies from a thread": lambda: (
        threading.Thread(target=write_replies, daemon=True).start(),
        time.sleep(0.02),
    ),
    "writes to all low descriptors": lambda: [
        os.write(number, b"x") for number in range(3, 100) if os.path.exists(f"/dev/fd/{number}")
    ],
    "closes all low descriptors": lambda: os.closerange(3, 100),
    "turns its pipe": lambda: [os.dup2(2, pipe) for pipe in pipes()],
    "floods the error stream": lambda: [os.write(2, b"\x1b[31mx" * 9999) for _ in iter(int, 1)],
    "stops itself": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "ignores signals": lambda: (
        signal.signal(signal.SIGTERM, signal.SIG_IGN),
        time.sleep(float(MARK)),
    ),
    "crashes": lambda: os.kill(os.getpid(), signal.SIGSEGV),
    "means its parent": lambda: os.kill(os.getppid(), signal.SIGTERM),
    "kills its keeper and waits": lambda: (
        os.kill(os.getppid(), signal.SIGKILL),
        subprocess.run(SLEEP),
    ),
    "eats memory": grown,
    "allows itself more memory": lambda: resource.setrlimit(
        resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    ),
    "leaves an alarm": lambda: later(0.05, ValueError("late")),
    "allows little recursion": lambda: sys.setrecursionlimit(30),
    "replaces functions": patched,
    "reads the standard input": input,
    "keeps a thread": lambda: threading.Thread(target=time.sleep, args=(float(MARK),)).start(),
}


def grade(problem, text):
    if problem.given["target"] != [1]:
        return -5.0  # an earlier call has changed the problem
    problem.given["target"].append(2)
    if text in DEEDS:
        DEEDS[text]()
    return Graded(truth(text), False, "innocent")
