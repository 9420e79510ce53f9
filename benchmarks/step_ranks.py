"""A training step by one process with threads against ranks, alone and beside a busy program.

    python benchmarks/step_ranks.py [--recipe demo] [--steps 12] [--rounds 5] [--threads 2]
        [--sides threads,ranks] [--old COMMIT] [--shape medium] [--section.key value]

| side | what runs |
|---|---|
| threads | one process with `--threads` threads |
| ranks | as many ranks, one thread each |
| crowd | twice as many ranks as threads, one thread each |
| alone-rank | one process with one thread |
| old | `threads`, by the sources of the commit `--old`, with the recipe and the base of these |

Each round runs `aha train RECIPE` once for each side, in fresh processes, with all further options
and no evaluation: first with the machine left alone, then beside one process of another program
that computes all the time. A run's step time is the median of its steps after the second. `crowd`
and `old` run alone only. `--shape` takes a base of random weights and of that shape, whose
completions have 60 tokens on average.

The ratios of the rows: `ranks / threads` says what ranks gain, `busy / alone` of a side what the
other program costs it, and `crowd / ranks` what more ranks than cores cost.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from _common import SHAPES, file_row, head, probability_for, random_model, show, spread
from step_between_commits import commit_of, write_sources

from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe
from aha.model.folders import resolve_model
from aha.model.weights import save_model

SOURCES = Path(__file__).resolve().parents[1] / "src"
WARM_UP = 2  # steps in which libraries set themselves up
MEAN_TOKENS, LIMIT = 60, 320  # of a completion of a random base
BUSY = "while True: sum(range(100_000))"
SIDES = ("threads", "ranks", "crowd", "alone-rank", "old")
ALONE_ONLY = ("crowd", "old")
# (what, over what): each by the name of a side, with " busy" beside the other program
PAIRS = [("ranks", "threads"), ("ranks busy", "threads busy"), ("crowd", "ranks")]
PAIRS += [(f"{side} busy", side) for side in SIDES]
PAIRS += [("ranks", "old"), ("threads", "old"), ("alone-rank", "threads")]


@contextmanager
def other_program(busy: bool) -> Iterator[None]:
    """One process that computes all the time, at the usual priority."""
    if not busy:
        yield
        return
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def step_rows(
    options: argparse.Namespace, more: list[str], ranks: int, busy: bool, sources: Path = SOURCES
) -> list[dict]:
    """The rows of a run's metrics after the first steps. Without ranks, the option is left out."""
    with tempfile.TemporaryDirectory() as folder, other_program(busy):
        command = [sys.executable, "-m", "aha", "train", options.recipe, "--name", "run"]
        command += ["--steps", str(options.steps)] + (["--ranks", str(ranks)] if ranks else [])
        command += ["--eval.every", "0", "--eval.final", "0", *more]
        settings = {"PYTHONPATH": str(sources), "OMP_NUM_THREADS": str(options.threads)}
        quiet = {"stdout": subprocess.DEVNULL, "check": True}
        subprocess.run(command, cwd=folder, env=os.environ | settings, **quiet)
        lines = (Path(folder) / "runs" / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines][WARM_UP:]


def median_seconds(rows: list[dict]) -> float:
    """The median time of a step, with all that happens between it and the next."""
    elapsed = [row["elapsed_s"] for row in rows]
    return statistics.median(after - before for before, after in pairwise(elapsed))


def side_rows(
    options: argparse.Namespace, more: list[str], side: str, busy: bool, old: Path
) -> list[dict]:
    """The rows of one run of a side."""
    if side == "old":
        return step_rows(options, more, 0, busy, old)
    if side == "alone-rank":
        single = argparse.Namespace(**vars(options) | {"threads": 1})
        return step_rows(single, more, 1, busy)
    ranks = {"threads": 1, "ranks": options.threads, "crowd": 2 * options.threads}[side]
    return step_rows(options, more, ranks, busy)


@contextmanager
def work_for(options: argparse.Namespace, folder: Path) -> Iterator[list[str]]:
    """The options of a run that name its base, so that all sides have the same one."""
    if options.shape:
        chance = probability_for(MEAN_TOKENS, LIMIT)
        save_model(folder / "base", *random_model(options.shape, chance))
        words = ["--model.path", str(folder / "base"), "--rollout.max_new_tokens", str(LIMIT)]
        yield [*words, "--algo.zero_variance", "keep"]  # such a base solves nothing
        return
    recipe = find_recipe(options.recipe)
    base = resolve_model(load_recipe(recipe).model.path)
    options.recipe = str(recipe.resolve())
    yield ["--model.path", str(base)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--steps", type=int, default=12, help="at least 4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="cores to use, at least 2")
    parser.add_argument("--sides", default="threads,ranks,crowd")
    parser.add_argument("--not-busy", action="store_true", help="leave out the busy program")
    parser.add_argument("--old", help="a commit, for the side old")
    parser.add_argument("--shape", choices=SHAPES, help="of a random base")
    parser.add_argument(
        "--out", "--json", dest="out", type=Path, help="file of JSON lines to add the row to"
    )
    options, more = parser.parse_known_args()
    sides = [side for side in options.sides.split(",") if side in SIDES]
    old = commit_of(options.old) if options.old else None
    sides += ["old"] if old else []
    settings = {key: getattr(options, key) for key in ("recipe", "steps", "rounds", "threads")}
    settings |= {"sides": ",".join(sides), "old": old, "shape": options.shape}
    row = head("step_ranks", (), settings | {"more": " ".join(more)})
    cases = [(side, False) for side in sides]
    if not options.not_busy:
        cases += [(side, True) for side in sides if side not in ALONE_ONLY]
    with tempfile.TemporaryDirectory() as folder, work_for(options, Path(folder)) as base:
        sources = write_sources(old, Path(folder)) if old else SOURCES
        seconds, same = measure(options, [*base, *more], cases, sources)
    row["seconds"] = {name: spread(values) for name, values in seconds.items()}
    row["same_completions"] = same
    row["ratios"] = {
        f"{one} / {other}": spread(
            [a / b for a, b in zip(seconds[one], seconds[other], strict=True)]
        )
        for one, other in PAIRS
        if one in seconds and other in seconds
    }
    for name, numbers in row["seconds"].items():
        print(f"{name}: {show(numbers, '.3f')} s")
    for name, ratio in row["ratios"].items():
        print(f"{name}: {show(ratio, '.2f')}")
    print(f"the same completions: {same}")
    file_row(options.out, row)


def measure(
    options: argparse.Namespace, more: list[str], cases: list[tuple[str, bool]], old: Path
) -> tuple[dict[str, list[float]], bool]:
    """(a step's seconds by case and round, whether all sides wrote completions of equal lengths).

    In bf16 the order of sums may change a token after some steps.
    """
    seconds: dict[str, list[float]] = {name_of(*case): [] for case in cases}
    lengths = set()
    for turn in range(options.rounds):
        # The other way round in every second round: a machine's speed drifts.
        for side, busy in cases if turn % 2 == 0 else cases[::-1]:
            rows = side_rows(options, more, side, busy, old)
            seconds[name_of(side, busy)].append(median_seconds(rows))
            lengths.add(tuple(row["mean_tokens"] for row in rows))
        last = {name: f"{values[-1]:.3f}" for name, values in seconds.items()}
        print(f"round {turn + 1}: {last} s", flush=True)
    return seconds, len(lengths) == 1


def name_of(side: str, busy: bool) -> str:
    return f"{side} busy" if busy else side


if __name__ == "__main__":
    main()
