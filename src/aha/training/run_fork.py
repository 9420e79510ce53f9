"""A new run that begins with a checkpoint of another: the other one stays as it is."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from aha.core.errors import ConfigError, RunError
from aha.store.checkpoint import checkpoints, no_checkpoint, step_of
from aha.store.checksums import damage_of
from aha.store.durable import PARTIAL, disk_errors, flush
from aha.store.run_folder import Run, check_new
from aha.training.resume import cut_back

AT_STEP = re.compile(r"(.+)@(\d{1,12})")
# Of the end of a run, of its process, or of loggers, which would take the fork for the run itself.
LEFT_OUT: tuple[str, ...] = (
    "model",
    "failed_step",
    "summary*.json",
    "after*.json",
    "after*.jsonl",
    "report.html",
)
LEFT_OUT += ("loggers.json", "tensorboard", "owner.json", ".lock", f"{PARTIAL}*")
RECORD = "fork.json"


def run_and_step(path: Path) -> tuple[Path, int | None]:
    """`runs/demo@20` as (runs/demo, 20); a path without a step, or a folder of that very name, as
    (path, None)."""
    match = AT_STEP.fullmatch(str(path))
    if match is None or path.exists():
        return path, None
    return Path(match[1]), int(match[2])


def checkpoint_of(run: Run, step: int | None) -> Path:
    """The run's checkpoint of that step, or its newest. Raises `RunError` where there is none, and
    for a damaged one."""
    saved = {step_of(path): path for path in checkpoints(run.checkpoints)}
    if not saved:
        raise no_checkpoint(run.checkpoints)
    if step is not None and step not in saved:
        steps = ", ".join(map(str, saved))
        fix = f"{run.path}@{min(saved, key=lambda one: abs(one - step))}"
        raise RunError(f"{run.path} has no checkpoint of step {step}", f"one of {steps}", fix)
    chosen = saved[max(saved) if step is None else step]
    if damage := damage_of(chosen):
        raise RunError(f"{chosen}: {damage}", "a whole checkpoint", "another step")
    return chosen


def is_newest(run: Run, step: int) -> bool:
    """Whether a resume of the run would begin with this step anyway."""
    saved = checkpoints(run.checkpoints)
    return bool(saved) and step_of(saved[-1]) == step


def fork_run(source: Path, step: int | None, target: Path, say: Callable[[str], None]) -> int:
    """Make the run `target` of everything in the run `source` up to `step` (None: its newest
    checkpoint), with that checkpoint. It appears as a whole or not at all. Returns the step.

    `fork.json` keeps where it comes from. Raises `RunError` for a step without a whole checkpoint,
    and where `target` exists or cannot be made.
    """
    run = Run.open(source)
    run.refuse_links_out()
    check_new(target)
    if target.resolve().is_relative_to(source.resolve()):
        raise ConfigError(f"{target} within {source}", "a folder beside it", "--name another")
    chosen = checkpoint_of(run, step)
    partial = Run(target.with_name(f"{PARTIAL}{target.name}_{os.getpid()}"))
    with disk_errors(f"make the run {target}"):
        try:
            ignored = shutil.ignore_patterns(*LEFT_OUT, "checkpoints")
            shutil.copytree(source, partial.path, ignore=ignored)
            shutil.copytree(chosen, partial.checkpoints / chosen.name)
            partial.completions.mkdir(exist_ok=True)
            cut_back(partial, step_of(chosen), say)
            partial.write(RECORD, {"run": str(source.resolve()), "step": step_of(chosen)})
            os.rename(partial.path, target)
        finally:
            shutil.rmtree(partial.path, ignore_errors=True)
        flush(target.parent)
    return step_of(chosen)
