"""Kills ranks of a run at random moments (SIGKILL), and looks whether anything is lost.

    python benchmarks/rank_kills.py [--launcher local] [--kills 20] [--steps 40] [--seed 7]

| launcher | what is killed |
|---|---|
| local | a rank of `aha train --ranks 2`; then `--resume` is typed again |
| torchrun | a rank; torchrun starts all of them again |
| ray | a worker of Ray; Ray starts all of them again, three times at most |
| ray-node | the machine of a worker, in a cluster of `ray.cluster_utils` on this machine |

The run is the demo with few and short completions and a checkpoint after each step. The first one
is left alone. The others are killed: three of ten times at a moment of their start, otherwise at a
moment after a step or two. A run that ends is compared with the first one in everything that the
two have written, but for times, and another one begins, until all kills are done.

A hang is a command that does nothing for `--patience` seconds. A lost step is one that had a
checkpoint before a kill, and that the run did not go on after. The script ends with code 1 where
there is one of either, or a difference.
"""

import argparse
import itertools
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from _common import file_row, head

from aha.store.checkpoint import checkpoints
from aha.store.checksums import digest
from aha.studies.resume_trial import differences_of

SOURCES = Path(__file__).resolve().parents[1] / "src"
RANKS, RAY_RESTARTS = 2, 3
RECIPE = "--checkpoint_every 1 --rollout.prompts 4 --rollout.group_size 8 --eval.every 0 "
RECIPE += "--rollout.max_new_tokens 48 --eval.final 8"
RESUMED = re.compile(r"resumes after step (\d+)")
AT_START = 0.3  # of the kills


@dataclass
class Kills:
    """What was done and what came of it."""

    wanted: int
    rng: random.Random
    victims: Counter[str] = field(default_factory=Counter)
    moments: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    hangs: int = 0
    lost_steps: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def done(self) -> int:
        return sum(self.victims.values())


class Launcher(ABC):
    """Runs commands of `aha train` in a folder, whose ranks can be killed."""

    def __init__(self, folder: Path, steps: int, patience: float):
        self.folder, self.steps, self.patience = folder, steps, patience
        self.process: subprocess.Popen[str] | None = None
        self.start_s = self.step_s = 1.0  # of the run that is left alone

    words: tuple[str, ...] = ("--ranks", str(RANKS))
    before: tuple[str, ...] = ()  # between python and `-m aha`
    most_kills = 10**9  # of one run
    noun = "rank"

    def begin(self, name: str) -> None:
        self.spawn(self.before, "train", "demo", "--name", name, *self.words, *self.recipe())

    def recipe(self) -> list[str]:
        return ["--steps", str(self.steps), *RECIPE.split()]

    def spawn(self, before: tuple[str, ...], *words: str) -> None:
        command = [sys.executable, *before, "-m", "aha", *words]
        env = os.environ | {"PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": "1"} | self.variables()
        log = (self.folder / "output.txt").open("a")
        self.process = subprocess.Popen(command, cwd=self.folder, env=env, stdout=log, stderr=log)

    def variables(self) -> dict[str, str]:
        return {}

    @abstractmethod
    def ranks(self) -> list[psutil.Process]:
        """The processes of the ranks that live."""

    def kill(self, rng: random.Random) -> str:
        """Kill a rank, if there is one. Returns its name, or nothing."""
        with suppress(psutil.Error):
            ranks = self.ranks()
            if len(ranks) == RANKS:
                number = rng.randrange(RANKS)
                ranks[number].kill()
                return f"{self.noun} {number}" if self.noun == "rank" else self.noun
        return ""

    def after_kill(self, name: str) -> None:  # noqa: B027 (by default there is nothing to do)
        """Whatever has to be typed for the run to go on."""

    def wait(self, seconds: float) -> bool:
        """Whether the command ends in this time."""
        assert self.process is not None
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def close(self) -> None:  # noqa: B027
        """End what this has started besides commands."""

    def stop(self) -> None:
        """End what is left of a command that hangs."""
        assert self.process is not None
        with suppress(psutil.Error):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                process.kill()
        self.process.kill()
        self.process.wait()


class Local(Launcher):
    def ranks(self) -> list[psutil.Process]:
        assert self.process is not None
        first = psutil.Process(self.process.pid)
        others = [p for p in first.children() if "spawn_main" in " ".join(p.cmdline())]
        return [first, *others]

    def after_kill(self, name: str) -> None:
        if not self.wait(self.patience):
            return
        if (self.folder / "runs" / name).is_dir():
            self.spawn((), "train", "--resume", f"runs/{name}")
        else:  # it was killed before there was a run
            self.begin(name)


class Torchrun(Launcher):
    words = ()
    before = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(RANKS))
    before += ("--max-restarts", "1000")

    def ranks(self) -> list[psutil.Process]:
        assert self.process is not None
        children = psutil.Process(self.process.pid).children()
        return [p for p in children if "aha" in p.cmdline()]


class Ray(Launcher):
    words = ("--launcher", "ray", "--ranks", str(RANKS))
    most_kills = RAY_RESTARTS
    noun = "a worker"  # Ray does not say which rank a process is

    def ranks(self) -> list[psutil.Process]:
        """Ray names the processes of its workers after their class."""
        lines = {p: " ".join(p.cmdline()) for p in psutil.process_iter() if is_living(p)}
        return [p for p, line in lines.items() if "ray::" in line and "TrainWorker" in line]


class RayNode(Ray):
    """Three machines with a core each, and a head without one. A machine that is removed gets
    another one in its place."""

    def __init__(self, folder: Path, steps: int, patience: float):
        super().__init__(folder, steps, patience)
        from ray.cluster_utils import Cluster

        os.environ.setdefault("RAY_TRAIN_V2_ENABLED", "1")
        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        self.nodes = [self.cluster.add_node(num_cpus=1) for _ in range(RANKS + 1)]
        self.cluster.wait_for_nodes()

    def variables(self) -> dict[str, str]:
        return {"RAY_ADDRESS": self.cluster.address}

    def close(self) -> None:
        self.cluster.shutdown()

    def kill(self, rng: random.Random) -> str:
        with suppress(psutil.Error):
            ranks = self.ranks()
            if len(ranks) < RANKS:
                return ""
            number = rng.randrange(RANKS)
            raylet = ranks[number].ppid()
            for node in self.nodes:
                if any(raylet == p.process.pid for p in node.all_processes.get("raylet", [])):
                    self.cluster.remove_node(node, allow_graceful=False)
                    self.nodes.remove(node)
                    self.nodes.append(self.cluster.add_node(wait=False, num_cpus=1))
                    return "the machine of a worker"
        return ""


LAUNCHERS = {"local": Local, "torchrun": Torchrun, "ray": Ray, "ray-node": RayNode}


def is_living(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def newest(run: Path) -> int:
    """The step of the newest checkpoint; 0 without one."""
    saved = checkpoints(run / "checkpoints") if (run / "checkpoints").is_dir() else []
    return int(saved[-1].name.removeprefix("step_")) if saved else 0


def resumes(run: Path) -> list[int]:
    """The steps after which the run has gone on so far, as its log says."""
    with suppress(OSError):
        return [int(step) for step in RESUMED.findall((run / "run.log").read_text())]
    return []


def wait_for_moment(launcher: Launcher, run: Path, kills: Kills) -> str:
    """Wait for the moment of the next kill. Returns "start" or "steps", or nothing where the
    command has ended before, or hangs."""
    rng, saved = kills.rng, newest(run)
    if rng.random() < AT_START:
        return "" if launcher.wait(rng.uniform(0, launcher.start_s)) else "start"
    goal, since = saved + rng.choice((1, 2)), time.monotonic()
    while newest(run) < goal:
        if launcher.wait(0.05):
            return ""
        if newest(run) > saved:
            saved, since = newest(run), time.monotonic()
        if time.monotonic() - since > launcher.patience:
            kills.hangs += 1
            return ""
    return "" if launcher.wait(rng.uniform(0, launcher.step_s)) else "steps"


def kill_one(launcher: Launcher, run: Path, kills: Kills, name: str) -> tuple[int, int] | None:
    """The next kill of this run: (its resumes so far, its newest checkpoint); None without one."""
    moment = wait_for_moment(launcher, run, kills)
    if not moment:
        return None
    mark = len(resumes(run)), newest(run)
    victim = ""
    while not victim:
        victim = launcher.kill(kills.rng)
        if not victim and launcher.wait(0.05):
            return None
    kills.victims[victim] += 1
    kills.moments[moment] += 1
    print(f"kill {kills.done}: {victim}, at {moment}, after step {mark[1]}", flush=True)
    launcher.after_kill(name)
    return mark


def lost_steps(resumed: list[int], marks: list[tuple[int, int]]) -> int:
    """Steps that had a checkpoint and were not gone on after. `resumed`: the steps after which a
    run has gone on; `marks`: at each kill, how many such lines there were, and the newest
    checkpoint."""
    lost = 0
    for count, saved in marks:
        after = resumed[count] if count < len(resumed) else saved
        lost += max(0, saved - after)
    return lost


def kill_a_run(launcher: Launcher, name: str, straight: Path, kills: Kills) -> None:
    """One run from its beginning to its end, with as many kills as it lives."""
    run, marks = launcher.folder / "runs" / name, []
    launcher.begin(name)
    while kills.done < kills.wanted and len(marks) < launcher.most_kills and not kills.hangs:
        mark = kill_one(launcher, run, kills, name)
        if mark is None:
            break
        marks.append(mark)
    if kills.hangs or not launcher.wait(launcher.patience + 3 * launcher.steps * launcher.step_s):
        kills.hangs = 1
        launcher.stop()
        return
    kills.runs += 1
    kills.lost_steps += lost_steps(resumes(run), marks)
    if not (run / "summary.json").is_file():
        kills.differences.append(f"{name} did not end: see output.txt")
        return
    kills.differences += list(differences_of(straight, run, {}))


@contextmanager
def folder_for(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="aha-kills-") as folder:
        yield Path(folder)


def run_straight(launcher: Launcher) -> Path:
    """The run that nobody disturbs, by local ranks; takes the times of a start and of a step."""
    run, began = launcher.folder / "runs" / "straight", time.monotonic()
    launcher.spawn(
        (), "train", "demo", "--name", "straight", "--ranks", str(RANKS), *launcher.recipe()
    )
    while newest(run) < 1:
        assert not launcher.wait(0.05), (launcher.folder / "output.txt").read_text()[-3000:]
    launcher.start_s, first = time.monotonic() - began, time.monotonic()
    while not launcher.wait(0.05):
        if newest(run) < launcher.steps:
            launcher.step_s = (time.monotonic() - first) / max(1, newest(run) - 1)
    assert (run / "summary.json").is_file(), (launcher.folder / "output.txt").read_text()[-3000:]
    print(f"left alone: {launcher.start_s:.1f} s to the first step, {launcher.step_s:.2f} s a step")
    return run


def kill_all(launcher: Launcher, kills: Kills) -> str:
    """All kills, in as many runs as they take. Returns the checksum of the model."""
    straight = run_straight(launcher)
    for number in itertools.count():
        if kills.done >= kills.wanted or kills.hangs or kills.differences:
            return digest(straight / "model" / "model.safetensors")
        name = f"run-{number}"
        kill_a_run(launcher, name, straight, kills)
        if not (kills.hangs or kills.differences):
            shutil.rmtree(launcher.folder / "runs" / name)
    raise AssertionError("the loop ends by itself")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--launcher", choices=LAUNCHERS, default="local")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=40, help="of a run")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--patience", type=float, default=900.0, help="seconds")
    parser.add_argument("--folder", type=Path, help="a new one, which stays")
    parser.add_argument(
        "--out", "--json", dest="out", type=Path, help="file of JSON lines to add the row to"
    )
    options = parser.parse_args()
    settings = {key: getattr(options, key) for key in ("launcher", "kills", "steps", "seed")}
    packages = ("ray",) if options.launcher.startswith("ray") else ()
    row: dict[str, Any] = head("rank_kills", packages, settings | {"ranks": RANKS})
    began, kills = time.monotonic(), Kills(options.kills, random.Random(options.seed))
    with folder_for(options.folder) as folder:
        launcher = LAUNCHERS[options.launcher](folder, options.steps, options.patience)
        try:
            row["checksum"] = kill_all(launcher, kills)
        finally:
            launcher.close()
        if kills.hangs or kills.differences:
            print((folder / "output.txt").read_text()[-3000:])
    row |= {"kills": kills.done, "victims": kills.victims, "moments": kills.moments}
    row |= {"runs": kills.runs, "hangs": kills.hangs, "lost_steps": kills.lost_steps}
    row |= {"differences": kills.differences, "seconds": round(time.monotonic() - began)}
    for key in ("kills", "victims", "moments", "runs", "hangs", "lost_steps", "differences"):
        print(f"{key}: {dict(row[key]) if isinstance(row[key], Counter) else row[key]}")
    file_row(options.out, row)
    sys.exit(1 if kills.hangs or kills.lost_steps or kills.differences else 0)


if __name__ == "__main__":
    main()
