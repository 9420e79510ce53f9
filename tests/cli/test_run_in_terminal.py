"""A run in a process of its own: asked to stop, it saves and says how to go on."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aha.store.run_folder import read_rows

from ..tiny import answering_folder, write_recipe

STEPS = 60
TIMES = ("_s", "_per_s", "memory_gb")


@pytest.fixture
def folder(tmp_path) -> Path:
    answering_folder(tmp_path / "base")
    write_recipe(tmp_path / "mine.toml", steps=STEPS, show_every=0)
    return tmp_path


def start(folder: Path, *words: str) -> subprocess.Popen:
    """One thread, as in this process: the order of sums must not depend on the machine."""
    alone = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "40"}
    command = [sys.executable, "-m", "aha", "train", *words]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(command, cwd=folder, env=alone, **pipes)


def wait_for_steps(path: Path, count: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while len(list(read_rows(path / "metrics.jsonl"))) < count:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "no step within two minutes"
        time.sleep(0.005)


def timeless(path: Path) -> list[dict]:
    rows = read_rows(path / "metrics.jsonl")
    return [{k: v for k, v in row.items() if not k.endswith(TIMES)} for row in rows]


def test_sigterm_finishes_the_step_saves_and_resume_completes_bit_equal(aha, folder):
    """Stopped in a process of its own, resumed and compared in this one."""
    stopped = start(folder, "mine.toml", "--name", "stopped")
    path = folder / "runs" / "stopped"
    wait_for_steps(path, 2, stopped)
    stopped.send_signal(signal.SIGTERM)
    said, _ = stopped.communicate(timeout=120)
    assert stopped.returncode == 143, said
    steps = len(timeless(path))
    assert 2 <= steps < STEPS, "the signal came too late to stop anything"
    assert "stopping after this step" in said
    # Whole on one line, however narrow the terminal: it is there to be copied.
    assert "aha train --resume runs/stopped" in said.splitlines()[-1]
    assert not (path / "summary.json").exists() and not (path / "model").exists()
    assert [one.name for one in (path / "checkpoints").iterdir()] == [f"step_{steps:06d}"]

    resumed = aha("train", "--resume", "runs/stopped")
    assert resumed.code == 0 and f"after step {steps}" in resumed.out
    (first,) = (line for line in resumed.out.splitlines() if f" {steps + 1}/{STEPS} " in line)
    assert first.split()[-2] != "-", "what is left is known from the steps before"
    assert aha("train", "mine.toml", "--name", "whole").code == 0
    ours, theirs = folder / "runs" / "whole", path
    assert timeless(ours) == timeless(theirs) and len(timeless(ours)) == STEPS
    summaries = [json.loads((run / "summary.json").read_text()) for run in (ours, theirs)]
    assert [summary["steps"] for summary in summaries] == [STEPS, STEPS]
    one, other = (load_file(run / "model" / "model.safetensors") for run in (ours, theirs))
    assert all(torch.equal(one[name], other[name]) for name in one)
    base = load_file(folder / "base" / "model.safetensors")
    assert any(not torch.equal(one[name], base[name]) for name in one), "nothing was learnt"


def test_a_run_serves_its_dashboard_and_takes_it_along(folder):
    done = start(folder, "mine.toml", "--name", "seen", "--dash")
    line = ""
    while "watch it in a browser" not in line:
        line = done.stdout.readline()
        assert line, "the run ended without an address"
    base = line.split("browser: ")[1].partition("#")[0]
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(f"{base}api/runs/seen", timeout=60) as answer:
        assert json.load(answer)["card"]["steps"] == STEPS
    done.send_signal(signal.SIGINT)
    out, _ = done.communicate(timeout=200)
    assert done.returncode == 130, out
    with pytest.raises(OSError):
        direct.open(f"{base}api/runs/seen", timeout=60)


def test_without_a_terminal_a_run_only_says_how_to_watch_it(aha, folder):
    done = aha("train", "mine.toml", "--name", "unseen", "--steps", "1")
    assert done.code == 0 and "aha dash` in another terminal" in " ".join(done.out.split())
    assert "http://" not in done.out
