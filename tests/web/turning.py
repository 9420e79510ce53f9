"""A finished run whose way of search turns: by chance in its first steps, with a glance later."""

import json
import random
from functools import cache
from pathlib import Path

from aha.web.event_spans import mean_behaviours
from aha.web.turn_view import SEARCH_COLUMNS

from .conftest import make_run, metrics, row, write_rows
from .searches import by_chance, in_order


@cache
def puzzle(problem: int) -> tuple[dict, str]:
    """Numbers and a target that a glance in order reaches, but not at once; and that search."""
    rng = random.Random(problem)
    while True:
        numbers = rng.sample(range(2, 60), 3)
        target = rng.randint(10, 99)
        text = in_order(numbers, target, glance=True)
        if " yes" in text and text.count(" no") >= 3:
            return {"numbers": numbers, "target": target}, text


def searched(problem: int, share: float, rng: random.Random, **more) -> dict:
    """One completion as a row: with a glance in this share of the cases, else by chance."""
    given, glance = puzzle(problem)
    glances = rng.random() < share
    text = glance if glances else by_chance(*given.values(), rng)
    solved = " yes" in text
    reason = f"makes {given['target']} of every number once" if solved else "0 uses no number"
    words = {"completion": text, "reason": reason, "tokens": len(text), "reward": float(solved)}
    prompt = "numbers {} target {}\n<think>\n".format(
        " ".join(map(str, given["numbers"])), given["target"]
    )
    return row(problem, solved, **words, **given, prompt=prompt, **more)


def ways_of(rows: list[dict]) -> dict[str, float]:
    """The columns of a step's metrics about its search."""
    means = mean_behaviours(rows)
    return {name: means[name] for name in SEARCH_COLUMNS if name in means} | {"groups": 8}


def share_at(step: int, turn: int) -> float:
    """Of the completions with a glance: few before the turn, nearly all after it."""
    return min(0.95, max(0.05, 0.5 + 0.15 * (step - turn)))


@cache
def rows_of(steps: int, turn: int) -> tuple[dict[str, list[dict]], list[dict[str, float]]]:
    """(completions by the name of their file, the ways of search of each step): the same for every
    test, because a thousand searches take seconds."""
    rng = random.Random(0)
    files = {}
    for step in range(1, steps + 1):
        share = share_at(step, turn)
        files[f"step_{step:06d}"] = [
            searched(8 * step + group, share, rng, step=step, group=group, advantage=0.5)
            for group in range(8)
            for _ in range(4)
        ]
    ways = [ways_of(rows) for rows in files.values()]
    for name, share in (("before", 0.05), ("after", 0.95)):
        files[name] = [searched(10_000 + n, share, rng) for n in range(60)]
    return files, ways


def make_turning_run(path: Path, steps: int = 30, turn: int = 12, columns: bool = True) -> Path:
    """A run of `steps` that turns at about step `turn`; without `columns` its metrics have no ways
    of search, as those of older runs."""
    make_run(path, steps=0)
    (path / "metrics.jsonl").unlink()
    files, ways = rows_of(steps, turn)
    for name in ("before", "after"):
        (path / "completions" / f"{name}.jsonl").unlink()
        rate = sum(one["correct"] for one in files[name]) / 60
        content = {"solve_rate": rate, "interval": [rate - 0.1, rate + 0.1], "problems": 60}
        (path / f"{name}.json").write_text(json.dumps(content))
    for name, rows in files.items():
        write_rows(path / "completions" / f"{name}.jsonl", rows)
    for step, searches in enumerate(ways, 1):
        rows = files[f"step_{step:06d}"]
        solved = sum(one["correct"] for one in rows) / len(rows)
        tokens = sum(one["tokens"] for one in rows)
        line = metrics(step, solve_rate=solved, reward=solved, tokens=tokens)
        line["mean_tokens"] = tokens / len(rows)
        write_rows(path / "metrics.jsonl", [line | (searches if columns else {})])
    return path
