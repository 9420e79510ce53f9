"""A training whose ranks another program has started: the same run, the same bits, and its faults.

The ranks are forks that an `Agent` starts, in the place of torchrun; the slow tests are of torchrun
itself.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from aha.cli.launched import RayWork, repeatable, work_of_rank
from aha.cli.train_command import AUTO, TrainCommand
from aha.core.errors import AhaError, ConfigError, RunError, RunStopped
from aha.dist.local_ranks import can_meet
from aha.dist.rank_place import RankPlace
from aha.store.run_folder import Run, read_rows
from aha.studies.resume_trial import differences_of

from ..dist.agent import Agent
from ..tiny import answering_folder, write_recipe

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not can_meet(), reason="this torch has no gloo")
STEPS = 6


def recipe(folder: Path, model: Path | str) -> None:
    """tiny.toml, with a checkpoint of every step."""
    tests = {"every": 2, "problems": 3}
    more = {"checkpoint_every": 1, "steps": STEPS, "eval": tests}
    write_recipe(folder / "tiny.toml", model, **more)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return answering_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(tmp_path, model, monkeypatch) -> Path:
    """The folder in which the command is given."""
    recipe(tmp_path, model)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def part(command: TrainCommand, changes: dict[int, dict[str, Any]], place: RankPlace) -> int:
    """The work of a rank, whose own command line may have other `changes` of the recipe."""
    sys.stdout = open(os.devnull, "w")
    return work_of_rank(replace(command, changes=changes.get(place.rank, {})), place)


def tiny(**words: Any) -> TrainCommand:
    return TrainCommand("tiny.toml", words.pop("name", "first"), dash=False, **words)


def carry_out(agent: Agent, command: TrainCommand, **changes: dict[str, Any]) -> dict[int, Any]:
    agent.start(partial(part, command, {int(k[1:]): v for k, v in changes.items()}))
    return agent.ends(agent.size)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, model) -> Path:
    """The run of two ranks that nobody disturbs."""
    folder, before = tmp_path_factory.mktemp("straight"), Path.cwd()
    recipe(folder, model)
    os.chdir(folder)
    try:
        assert carry_out(Agent(2), tiny()) == {0: 0, 1: 0}
    finally:
        os.chdir(before)
    return folder / "runs" / "first"


def is_whole(run: Path, straight: Path) -> None:
    compared: dict[str, int] = {}
    assert list(differences_of(straight, run, compared)) == []
    assert compared["rows of metrics.jsonl"] == STEPS


# -- one run ---------------------------------------------------------------------------------------


def test_ranks_that_were_started_from_outside_make_the_run(straight):
    assert json.loads((straight / "fingerprints.json").read_text())["ranks"] == 2
    assert [row["step"] for row in read_rows(straight / "metrics.jsonl")] == list(
        range(1, STEPS + 1)
    )
    assert (straight / "model").is_dir() and (straight / "summary.json").is_file()
    assert list(read_rows(straight / "findings.jsonl")) == []
    assert [path.name for path in straight.parent.glob(".*")] == []  # no marker is left


def signalled_part(command: TrainCommand, number: int, step: int, place: RankPlace) -> int:
    """Rank 1 gets a signal as soon as rank 0 has saved this step."""

    def send() -> None:
        while not Path(f"runs/first/checkpoints/step_{step:06d}").is_dir():
            time.sleep(0.01)
        os.kill(os.getpid(), number)

    if place.rank == 1:
        Thread(target=send, daemon=True).start()
    return part(command, {}, place)


def test_a_killed_rank_is_named_and_the_next_attempt_ends_in_the_same_bits(folder, straight):
    agent = Agent(2)
    agent.start(partial(signalled_part, tiny(), signal.SIGKILL, 1))
    lost = agent.ends(1)[0]
    assert isinstance(lost, RunStopped) and f"rank 1 (process {agent.processes[1].pid}" in str(lost)
    assert f"--resume {Path('runs/first')}" in lost.fix
    run = folder / "runs" / "first"
    assert [row["check"] for row in read_rows(run / "findings.jsonl")] == ["ranks"]
    # The same command of the same job: no --resume is typed. SIGTERM to rank 1 stops all.
    agent.start(partial(signalled_part, tiny(), signal.SIGTERM, 3))
    assert agent.ends(2) == {0: 128 + signal.SIGTERM, 1: 0}
    assert not (run / "summary.json").exists()
    assert carry_out(agent, tiny()) == {0: 0, 1: 0}
    is_whole(run, straight)
    # Another job refuses the name, and goes on with --resume auto, where nothing is left to do.
    ended = carry_out(Agent(2), tiny())
    assert isinstance(ended[0], RunError) and "exists already" in str(ended[0])
    assert isinstance(ended[1], AhaError)
    before = sorted(run.rglob("*"))
    assert carry_out(Agent(2), tiny(resume=AUTO)) == {0: 0, 1: 0}
    assert sorted(run.rglob("*")) == before
    # With another recipe it is refused.
    ended = carry_out(Agent(2), tiny(resume=AUTO), r0={"optim.lr": 0.5}, r1={"optim.lr": 0.5})
    assert "optim.lr 0.001 -> 0.5" in str(ended[0]) and sorted(run.rglob("*")) == before


# -- bad input: nothing is written -----------------------------------------------------------------


def refused(folder: Path, command: TrainCommand, **changes: dict[str, Any]) -> dict[int, Any]:
    before = sorted(folder.rglob("*"))
    ended = carry_out(Agent(2), command, **changes)
    assert all(isinstance(error, AhaError) for error in ended.values()), ended
    assert not any(isinstance(error, RunStopped) for error in ended.values()), ended
    assert sorted(folder.rglob("*")) == before
    return ended


def test_other_recipes_on_two_ranks_are_refused_by_both(folder):
    ended = refused(folder, tiny(), r1={"optim.lr": 0.5, "seed": 3})
    for error in ended.values():
        assert "rank 0 and rank 1 have different runs: seed 0 and 3; optim.lr 0.001 and 0.5" in (
            str(error)
        )
    # More steps are no free change here.
    assert f"steps {STEPS} and 9" in str(refused(folder, tiny(), r1={"steps": 9})[0])


def other_base(command: TrainCommand, place: RankPlace) -> int:
    """Each rank has a folder of its own with a base of the same name."""
    os.chdir(f"machine-{place.rank}")
    return part(command, {}, place)


def test_other_bases_on_two_ranks_are_refused_by_both(folder, model):
    for rank in range(2):
        shutil.copytree(model, folder / f"machine-{rank}" / "base")
        recipe(folder / f"machine-{rank}", "base")
    changed = folder / "machine-1" / "base" / "config.json"
    changed.write_text(changed.read_text() + "\n")
    before = sorted(folder.rglob("*"))
    agent = Agent(2)
    agent.start(partial(other_base, tiny()))
    for error in agent.ends(2).values():
        assert isinstance(error, ConfigError)
        assert "rank 0 and rank 1 have different runs: base.config.json sha256" in str(error)
    assert sorted(folder.rglob("*")) == before


def test_more_ranks_than_groups_are_refused_before_anybody_waits(folder):
    with pytest.raises(ConfigError, match="3 ranks for 2 groups") as error:
        work_of_rank(tiny(), RankPlace(1, 3, 1, 3, "nowhere.invalid", 1))
    assert "--rollout.prompts 3" in error.value.fix


def test_resume_auto_needs_a_name_and_a_recipe():
    for command in (TrainCommand("demo", resume=AUTO), TrainCommand(None, "first", AUTO)):
        with pytest.raises(ConfigError, match="--resume auto without") as error:
            command.check()
        assert "aha train demo --name first --resume auto" in error.value.fix


def test_a_dry_run_and_no_run_end_all_ranks(folder):
    assert carry_out(Agent(2), tiny(dry_run=True)) == {0: 0, 1: 0}
    assert not (folder / "runs").exists()


def test_what_ray_repeats_goes_on_and_overwrites_nothing(folder, tmp_path):
    again = repeatable(tiny())
    assert (again.name, again.resume, again.recipe) == ("first", AUTO, "tiny.toml")
    (folder / "runs" / "first").mkdir(parents=True)
    with pytest.raises(RunError, match="exists already"):
        repeatable(tiny())
    place = RankPlace(0, 1, 0, 1, "127.0.0.1", 1)
    end = RayWork(again, tmp_path / "nowhere")(place)
    assert isinstance(end, RunError) and "rank 0 has no folder" in str(end)


# -- torchrun itself -------------------------------------------------------------------------------


def torchrun(folder: Path, *words: str, restarts: int = 0) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", "--max-restarts", str(restarts), "-m", "aha", *words]
    env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=folder, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


@pytest.mark.slow
def test_two_torchrun_as_if_on_two_machines(folder, straight):
    """The lines of deploy/torchrun-machines.sh, twice."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text = (ROOT / "deploy" / "torchrun-machines.sh").read_text()
    values = {"NODES": "2", "RANKS": "1", "FOLDER": str(folder), "HEAD": "127.0.0.1"}
    for field, value in (values | {"RECIPE": "tiny.toml", "NAME": "first"}).items():
        text = text.replace(f"@{field}@", value)
    text = text.replace(".venv/bin/torchrun", f"{sys.executable} -m torch.distributed.run")
    (folder / "run.sh").write_text(text.replace(":29500", f":{port}"))
    env = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    both = [
        subprocess.Popen(
            ["bash", "run.sh"], cwd=folder, env=env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for _ in range(2)
    ]  # fmt: skip
    for machine in both:
        output, _ = machine.communicate(timeout=1500)
        assert machine.returncode == 0, output[-3000:]
    is_whole(folder / "runs" / "first", straight)


@pytest.mark.slow
def test_commands_that_do_not_share_their_work_are_refused_under_torchrun(folder):
    output, _ = torchrun(folder, "lab", "--recipes", "grpo").communicate(timeout=600)
    assert "processes of `aha lab` by torchrun; wanted one process" in output
    assert list(folder.iterdir()) == [folder / "tiny.toml"]


def test_a_job_that_goes_on_has_the_ranks_of_its_run(tmp_path, monkeypatch):
    """Another number would change the last bits of what it goes on with."""
    monkeypatch.chdir(tmp_path)
    run = Run.create(tmp_path / "runs" / "first", {})
    assert TrainCommand("demo", "first").ranks_before() == 1
    for command in (TrainCommand(None, resume=run.path), TrainCommand("demo", "first", AUTO)):
        assert command.ranks_before() == 1  # an older version has not kept the number
    run.write("fingerprints.json", {"ranks": 4})
    for command in (TrainCommand(None, resume=run.path), TrainCommand("demo", "first", AUTO)):
        assert command.ranks_before() == 4
