"""The trial of resuming: a short run without a stop, and the same one killed again and again.

Both are processes of their own; the second is ended by SIGKILL at random moments, which no program
can catch, and resumed each time. In the end everything that the two have written is compared bit
for bit, but for what a clock says.
"""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from aha.algo.recipe import checked
from aha.core.config import RunConfig
from aha.core.errors import RunError
from aha.store.checkpoint import checkpoints, load_state
from aha.store.checksums import digest
from aha.store.run_folder import Run, read_rows
from aha.training.experiment import Experiment
from aha.training.outcome import Listener

READY = "ready"  # what the other process prints when its model is loaded
WAIT_SECONDS = 1800.0  # for one process, against a hang
PROMPTS, COMPLETIONS, TOKENS, PROBLEMS = 8, 8, 128, 8  # at most, in the short run
CLOCKS = {
    "seconds",
    "elapsed_s",
    "peak_bytes",
    "cost_usd",
    "kwh",
    "time_to_aha_s",
    "plan",
    "memory_gb",
}
NO_RESULTS = CLOCKS | {"commit"}  # a commit may be made while the runs go on


def short_run(cfg: RunConfig) -> RunConfig:
    """The recipe with few completions, and all of its parts: checkpoints and
    evaluations lie close together, a critic's warm-up and the resets of a reference come early."""
    raw = cfg.model_dump(mode="json")
    raw |= {"tokens": 0, "checkpoint_every": 2, "show_every": 0}
    rollout, evals = raw["rollout"], raw["eval"]
    rollout["prompts"] = max(cfg.algo.updates, min(rollout["prompts"], PROMPTS))
    rollout["group_size"] = min(rollout["group_size"], COMPLETIONS)
    rollout["max_new_tokens"] = min(rollout["max_new_tokens"], TOKENS)
    rollout["expected_tokens"] = 0.0
    buffer = min(cfg.algo.overlong_buffer, rollout["max_new_tokens"] // 4)
    raw["algo"]["overlong_buffer"] = buffer
    raw["eval"] = evals | {
        "every": 3 if evals["every"] else 0,
        "problems": min(evals["problems"], PROBLEMS),
        "final": min(evals["final"], PROBLEMS),
    }
    raw["critic"]["warmup"] = min(raw["critic"]["warmup"], 1)
    raw["algo"]["reference_reset"] = min(raw["algo"]["reference_reset"], 2)
    return checked(raw)


@dataclass
class TrialReport:
    """`kills`: a line for each. `compared`: how much of what. `differences`: none where the two
    runs are bit-equal."""

    kills: list[str] = field(default_factory=list)
    compared: dict[str, int] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)


def try_resume(
    cfg: RunConfig, kills: int, seed: int, folder: Path, say: Callable[[str], None]
) -> TrialReport:
    """Run `cfg` twice below `folder`, the second time with `kills` kills, and compare.

    The moments of the kills follow from `seed` and from the time that the first run took. Raises
    `RunError` where a process ends with an error of its own.
    """
    config, report = folder / "config.json", TrialReport()
    rollout = cfg.rollout
    say(
        f"{cfg.steps} steps of {rollout.prompts} x {rollout.group_size} completions of at most "
        f"{rollout.max_new_tokens} tokens, a checkpoint every {cfg.checkpoint_every} steps"
    )
    config.write_text(cfg.model_dump_json(), encoding="utf-8")
    whole, cut = folder / "whole", folder / "killed"
    seconds = Life(config, whole).to_the_end()
    say(f"a run of {cfg.steps} steps without a stop: {seconds:.1f} s after its model was loaded")
    rng = random.Random(seed)
    for _ in range(kills):
        # Each process goes on where the last one was, so that all of them together cover the run.
        after = rng.uniform(0, 2 * seconds / (kills + 1))
        finished = Life(config, cut).killed_after(after)
        when = "after its end" if finished else f"{after:.2f} s after its model was loaded"
        report.kills.append(f"{when}, with {place_of(cut)}")
        say(f"killed {report.kills[-1]}")
    Life(config, cut).to_the_end()
    report.differences = list(differences_of(whole, cut, report.compared))
    return report


def place_of(path: Path) -> str:
    """How far a run is, by its files."""
    run = Run(path)
    rows = [row.get("step") for row in read_rows(run.metrics)]
    saved = [checkpoint.name for checkpoint in checkpoints(run.checkpoints)]
    return f"{len(rows)} steps written and {saved[-1] if saved else 'no checkpoint'}"


class Life:
    """A process that begins the run in `path`, or goes on with it."""

    def __init__(self, config: Path, path: Path):
        self.path = path
        code = "import sys; from aha.studies.resume_trial import live; live(*sys.argv[1:])"
        command = [sys.executable, "-c", code, str(config), str(path)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()  # READY, or nothing if it has ended
        self.started = time.perf_counter()

    def to_the_end(self) -> float:
        """Seconds from the loaded model to the end. Raises `RunError` where it fails."""
        try:
            _, errors = self.process.communicate(timeout=WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise RunError(
                f"a run that takes more than {WAIT_SECONDS:g} s", "minutes", "fewer --steps"
            ) from None
        if self.process.returncode:
            line = (errors.strip().splitlines() or ["no reason given"])[-1]
            raise RunError(f"the run in {self.path} failed: {line}", "a run that trains")
        return time.perf_counter() - self.started

    def killed_after(self, seconds: float) -> bool:
        """Kill the process; whether it had come to its end before."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            return False
        self.to_the_end()
        return True


def live(config: str, path: str) -> None:
    """In the other process: begin the run, or go on with it, to its end."""
    listener = Listener(stage=lambda text: print(READY, flush=True))
    if Path(path).exists():
        experiment = Experiment.resume(Path(path), listener)
    else:
        cfg = RunConfig.model_validate_json(Path(config).read_text(encoding="utf-8"))
        experiment = Experiment.start(cfg, Path(path), listener)
    experiment.run_all()


# -- the comparison -------------------------------------------------------------------------


def differences_of(one: Path, other: Path, compared: dict[str, int]) -> Iterator[str]:
    """Everything in which two runs differ, but for clocks, in words; `compared` is counted up."""
    for name in ("metrics.jsonl", "evals.jsonl"):
        rows, others = ([timeless(row) for row in read_rows(run / name)] for run in (one, other))
        compared[f"rows of {name}"] = len(rows)
        if rows != others:
            yield f"{name}: {first_difference(rows, others)}"
    for name in ("before.json", "after.json", "summary.json"):
        texts = [timeless(Run(run).read_or_none(name)) for run in (one, other)]
        compared["results"] = compared.get("results", 0) + (texts[0] is not None)
        if texts[0] != texts[1]:
            old, new = (dict(leaves(text)) for text in texts)
            keys = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
            yield f"{name} differs: {', '.join(keys)}"
    for folder, kind in (("completions", "files of completions"), ("model", "files of the model")):
        names = {run: sorted(p.name for p in (run / folder).iterdir()) for run in (one, other)}
        compared[kind] = len(names[one])
        if names[one] != names[other]:
            yield f"{folder}/ has {names[one]} and {names[other]}"
        for name in sorted({*names[one]} & {*names[other]}):
            if digest(one / folder / name) != digest(other / folder / name):
                yield f"{folder}/{name} differs"
    yield from state_differences(Run(one).checkpoints, Run(other).checkpoints, compared)


def state_differences(one: Path, other: Path, compared: dict[str, int]) -> Iterator[str]:
    """Differences of the last checkpoints: weights, optimiser and all other states."""
    ours, theirs = (checkpoints(folder)[-1] for folder in (one, other))
    if ours.name != theirs.name:
        yield f"checkpoints end with {ours.name} and {theirs.name}"
        return
    flat, others = (dict(leaves(timeless(load_state(path)))) for path in (ours, theirs))
    compared["values of the last state"] = len(flat)
    for key in sorted(flat.keys() | others.keys()):
        if key not in flat or key not in others or not same(flat[key], others[key]):
            yield f"{ours.name}, trainer.pt: {key} differs"


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of everything in a state."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            yield from leaves(inner, f"{name}.{index}")
    else:
        yield name, value


def same(one: Any, other: Any) -> bool:
    """Equal bit for bit: NaN equals NaN."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.dtype == other.dtype and one.numpy().tobytes() == other.numpy().tobytes()
    return type(one) is type(other) and repr(one) == repr(other)


def timeless(value: Any) -> Any:
    """Without everything that a clock, a price, the memory or the source tree says."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in NO_RESULTS and not str(k).endswith("_s")}
        return {key: timeless(inner) for key, inner in kept.items()}
    return value


def first_difference(rows: list[Any], others: list[Any]) -> str:
    """The first row and key in which two lists of rows differ."""
    if len(rows) != len(others):
        return f"{len(rows)} rows and {len(others)}"
    for row, other in zip(rows, others, strict=True):
        for key in sorted({*row, *other}):
            if row.get(key) != other.get(key):
                return f"step {row.get('step')}, {key}: {row.get(key)} and {other.get(key)}"
    return "the same rows in another form"
