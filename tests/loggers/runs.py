"""Run folders as training writes them, made here: this room needs no model."""

from pathlib import Path
from typing import Any

from aha.store.run_folder import Run, append

BEFORE = {"solve_rate": 0.25, "interval": [0.1, 0.4], "behaviors": {"attempts": 1.5}}


def new_run(path: Path) -> Run:
    """A run that has just begun."""
    return Run.create(path, {"seed": 3, "steps": 4, "optim": {"lr": 1e-3}, "tokens": None})


def write_step(run: Run, step: int, group_size: int = 2, **more: Any) -> None:
    """The completions of a step and its row, in the order of training."""
    rows = [
        {
            **{"step": step, "group": group, "prompt": f"{group} + 1 ->", "tokens": 10 * group + 5},
            **{"completion": "one\ntwo ``` <b>", "reward": float(member), "correct": member == 1},
            **{"advantage": member - 0.5, "reason": "because", "finish": "stop"},
        }
        for group in range(3)
        for member in range(group_size)
    ]
    append(run.completions / f"step_{step:06d}.jsonl", rows)
    row = {"step": step, "reward": step / 10, "mean_tokens": 15.0, "truncated": 0.0, "loss": 0.5}
    append(run.metrics, [row | more])


def write_validation(run: Run, step: int) -> None:
    row = {"step": step, "split": "validation", "mean_tokens": 12.0, **BEFORE}
    append(run.path / "evals.jsonl", [row])


def cut_back(run: Run, step: int) -> None:
    """What a resume from the checkpoint of a step does to the rows after it."""
    rows = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join(rows[:step]))
