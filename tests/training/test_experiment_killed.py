"""Runs that are killed anywhere and resumed are the run that nobody stopped, bit for bit.

Kills of two kinds: SIGKILL at a random moment, and a death before the n-th call that changes the
disk, which meets every state between two renames. Also while a finished run is saved once more.
"""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from aha.store.checkpoint import checkpoints, newest_whole
from aha.store.run_folder import Run, read_rows
from aha.studies.resume_trial import differences_of
from aha.training.experiment import Experiment
from aha.training.outcome import Listener

from ..dying import DIED, in_child
from ..tiny import answering_folder
from .test_experiment import config

STEPS = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return answering_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def cfg(model):
    return config(model, steps=STEPS, checkpoint_every=1, eval={"every": 2, "problems": 2})


@pytest.fixture(scope="module")
def straight(cfg, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "straight"
    live(cfg, path)
    return path


def live(cfg, path: Path) -> None:
    """Begin the run, or go on with it, to its end."""
    if path.exists():
        Experiment.resume(path, Listener()).run_all()
    else:
        Experiment.start(cfg, path, Listener()).run_all()


def killed_after(act, seconds: float) -> bool:
    """Whether the process died of it; else it had come to its end."""
    child = os.fork()
    if not child:
        os._exit(in_this(act))
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL), code
    return code != 0


def in_this(act) -> int:
    try:
        act()
    except BaseException as error:
        print("the killed process failed by itself:", repr(error), flush=True)
        return 1
    return 0


def nothing_is_lost(path: Path) -> None:
    """Of the steps whose rows are written at most the last has no checkpoint."""
    if not path.exists():
        return
    run = Run(path)
    steps = [row["step"] for row in read_rows(run.metrics)]
    saved = newest_whole(run.checkpoints)
    assert saved is None or saved.damaged == []
    assert (saved.step if saved else 0) >= max(steps, default=0) - 1


def is_whole(path: Path, straight: Path) -> None:
    compared: dict[str, int] = {}
    assert list(differences_of(straight, path, compared)) == []
    assert compared["rows of metrics.jsonl"] == STEPS and compared["rows of evals.jsonl"] == 2
    assert compared["results"] == 3 and compared["values of the last state"] > 50
    assert not [p.name for p in path.rglob("*") if p.name.startswith((".partial", ".replaced"))]
    # A reader finds a model at any time, and it is the trained one in the end.
    assert len(checkpoints(path / "checkpoints")) == 3, "the last two, and the best one"


@pytest.mark.parametrize("call", [40, 160, 250])
def test_a_run_that_dies_at_a_call_of_the_system_is_bit_equal(cfg, tmp_path, straight, call):
    path = tmp_path / "run"
    assert in_child(lambda: live(cfg, path), call) == DIED
    nothing_is_lost(path)
    live(cfg, path)
    is_whole(path, straight)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_hundred_kills(cfg, tmp_path, straight, capfd):
    """Of both kinds, several in each run until it is whole; KILLS in the environment for more."""
    kills, rng, began = int(os.environ.get("KILLS", "200")), random.Random(7), time.monotonic()
    assert in_child(lambda: live(cfg, tmp_path / "timed")) == 0
    seconds = time.monotonic() - began
    done = {"at a moment": 0, "at a call": 0, "of a finished run": 0, "runs": 0}
    path = tmp_path / "run"
    while min(done["at a moment"], done["at a call"]) < kills // 2:
        for _ in range(rng.randint(1, 4)):
            finished = (path / "summary.json").exists()
            if done["at a moment"] <= done["at a call"]:
                # A finished run needs little more than a test: most of its moments are early.
                longest = seconds * (0.3 if finished else 0.8)
                died = killed_after(lambda: live(cfg, path), rng.uniform(0, longest))
                done["at a moment"] += died
            else:
                last = 120 if finished else 400
                died = in_child(lambda: live(cfg, path), rng.randint(1, last)) == DIED
                done["at a call"] += died
            done["of a finished run"] += finished and died
            nothing_is_lost(path)
        live(cfg, path)
        is_whole(path, straight)
        done["runs"] += 1
        if rng.random() < 0.6:  # else the finished run is killed while it is saved once more
            shutil.rmtree(path)
    with capfd.disabled():
        print(f"\n{done}, 0 lost, 0 differences, {time.monotonic() - began:.0f} s")
