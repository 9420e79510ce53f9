"""A small run folder as the training writes it, made here: this room needs no model."""

import json
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import sync_playwright

from aha.store.run_lock import this_process

from .browser import CHROMIUM, Served, Visit

RIGHT = "3+7=10\n10+25=35 no\n25*3=75\n75+7=82 yes\n</think>\n<answer>25*3+7</answer>"
WRONG = "3+7=10\n10+25=35 no\n</think>\n<answer>3+7+25</answer>"


def row(place: int, correct: bool, **more) -> dict:
    """One completion as `eval.suite.completion_row` writes it."""
    return {
        "id": f"countdown-{place}",
        "numbers": [3, 7, 25],
        "target": 82,
        "prompt": "3 7 25 -> 82\n<think>",
        "completion": RIGHT if correct else WRONG,
        "tokens": 60 if correct else 30,
        "finish": "stop",
        "reward": float(correct),
        "correct": correct,
        "reason": "makes 82 of every number once" if correct else "makes 35, not 82",
        **more,
    }


def with_tokens(row: dict) -> dict:
    """The row as a run writes it for a telling group: token 3 has log-prob -3, entropy 1.5."""
    pieces = [*row["completion"], "<|endoftext|>"]
    numbers = [float(n % 5) for n in range(len(pieces))]
    return row | {
        "pieces": pieces,
        "logprobs": [-n for n in numbers],
        "entropies": [n / 2 for n in numbers],
    }


def metrics(step: int, **more) -> dict:
    """One row of metrics.jsonl."""
    return {
        "step": step,
        "elapsed_s": 2.0 * step,
        "reward": step / 10,
        "solve_rate": min(1.0, step / 10),
        "mean_tokens": 40.0,
        "truncated": 0.0,
        "tokens": 1000,
        "tokens_per_s": 500.0,
        "entropy": 0.3,
        "grad_norm": 0.1,
        **more,
    }


def write_rows(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as out:
        out.writelines(json.dumps(one) + "\n" for one in rows)


def bytes_read() -> int:
    """Bytes that this process has read of files; 0 on a system that does not count them."""
    process = psutil.Process()
    counters = process.io_counters() if hasattr(process, "io_counters") else None
    return getattr(counters, "read_chars", 0)


def own(path: Path, host: str = "") -> None:
    """Let this process, or one of another machine, be the one that writes to the run."""
    owner = this_process() | ({"host": host} if host else {})
    (path / "owner.json").write_text(json.dumps(owner), encoding="utf-8")


def held_out(right: int, of: int) -> dict:
    """before.json or after.json."""
    rate = right / of
    return {
        "solve_rate": rate,
        "interval": [max(0, rate - 0.2), min(1, rate + 0.2)],
        "problems": of,
    }


def make_run(path: Path, steps: int = 5, right_after: int = 18, seed: int = 0) -> Path:
    """A finished run: 20 test problems, 4 right before; steps of 4 groups of 4."""
    path.mkdir(parents=True)
    config = {
        "seed": seed,
        "steps": steps,
        "usd_per_hour": 0.08,
        "watts": 30.0,
        "model": {"path": "aha-tiny"},
        "task": {"name": "countdown", "numbers": [3]},
        "optim": {"lr": 3e-4},
    }
    before, after = held_out(4, 20), held_out(right_after, 20)
    summary = {"before": before, "after": after, "cost_usd": 0.001, "kwh": 0.0005, "wall_s": 30.0}
    summary |= {"base_cost_usd": 0.1, "base_kwh": 0.04, "time_to_aha_s": 6.0}
    for name, content in {
        "config": config,
        "environment": {"python": "3.12", "packages": {"aha": "0.1.0"}},
        "summary": summary,
        "before": before,
        "after": after,
    }.items():
        (path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    write_rows(path / "metrics.jsonl", [metrics(step) for step in range(1, steps + 1)])
    texts = path / "completions"
    write_rows(texts / "before.jsonl", [row(i, i < 4) for i in range(20)])
    write_rows(texts / "after.jsonl", [row(i, i >= 20 - right_after) for i in range(20)])
    for step in range(1, steps + 1):
        write_step(path, step)
    for step in (2, 4):
        rate = {"step": step, "elapsed_s": 2.0 * step, **held_out(step, 8)}
        write_rows(path / "evals.jsonl", [rate])
        write_rows(texts / f"eval_{step:06d}.jsonl", [row(i, i < step) for i in range(8)])
    return path


def write_step(path: Path, step: int, **more) -> None:
    rows = [
        row(group, member < group, step=step, group=group, advantage=(member < group) - 0.5, **more)
        for group in range(4)
        for member in range(4)
    ]
    write_rows(path / "completions" / f"step_{step:06d}.jsonl", rows)


def make_tuning(path: Path, seed: int = 0, **more: float) -> Path:
    """A run of `aha sft` after four updates; with `more` numbers in its rows."""
    path.mkdir(parents=True)
    config = {"kind": "sft", "data": "examples.jsonl", "steps": 9, "seed": seed}
    config |= {"usd_per_hour": 0.08, "model": {"path": "aha-tiny"}}
    (path / "config.json").write_text(json.dumps(config))
    (path / "environment.json").write_text("{}")
    numbers = {"tokens": 50, "mean_tokens": 25.0, "tokens_per_s": 90.0, "train_s": 0.5, "lr": 0.1}
    for step in range(1, 5):
        row = {"step": step, "elapsed_s": float(step), "epoch": step / 4, "loss": 1 / step}
        row |= {"grad_norm": 0.3, "memory_gb": 0.4, **numbers, **more}
        write_rows(path / "metrics.jsonl", [row])
    return path


@pytest.fixture
def run(tmp_path) -> Path:
    return make_run(tmp_path / "runs" / "demo")


@pytest.fixture(scope="module")
def chromium():
    """A browser for the tests of one file."""
    with sync_playwright() as playwright:
        # The sandbox needs rights that a container lacks; every page here is our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def url(runs):
    """Of a dashboard of the `runs` of the file."""
    served = Served(runs)
    yield served.url
    served.stop()


@pytest.fixture
def visit(chromium, url):
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    visit = Visit(context.new_page(), url)
    yield visit
    context.close()
    visit.check()
