"""A training step by one process with threads against ranks, alone and beside a busy program.

    python benchmarks/step_ranks.py [--recipe demo] [--steps 12] [--rounds 5] [--threads 2]
        [--section.key value]

| side | what runs |
|---|---|
| threads | one process with `--threads` threads |
| ranks | as many ranks, one thread each |
| crowd | twice as many ranks as threads, one thread each |

Each round runs `aha train RECIPE` once for each side, in fresh processes, with all further options
and no evaluation: first with the machine left alone, then beside one process of another program
that computes all the time. A run's step time is the median of its steps after the second. `crowd`
runs alone only.

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

from _common import file_row, head, show, spread

SOURCES = Path(__file__).resolve().parents[1] / "src"
WARM_UP = 2  # steps in which libraries set themselves up
BUSY = "while True: sum(range(100_000))"


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


def step_rows(options: argparse.Namespace, more: list[str], ranks: int, busy: bool) -> list[dict]:
    """The rows of a run's metrics after the first steps."""
    with tempfile.TemporaryDirectory() as folder, other_program(busy):
        command = [sys.executable, "-m", "aha", "train", options.recipe, "--name", "run"]
        command += ["--steps", str(options.steps), "--ranks", str(ranks)]
        command += ["--eval.every", "0", "--eval.final", "0", *more]
        settings = {"PYTHONPATH": str(SOURCES), "OMP_NUM_THREADS": str(options.threads)}
        quiet = {"stdout": subprocess.DEVNULL, "check": True}
        subprocess.run(command, cwd=folder, env=os.environ | settings, **quiet)
        lines = (Path(folder) / "runs" / "run" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines][WARM_UP:]


def median_seconds(rows: list[dict]) -> float:
    """The median time of a step, with all that happens between it and the next."""
    elapsed = [row["elapsed_s"] for row in rows]
    return statistics.median(after - before for before, after in pairwise(elapsed))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--steps", type=int, default=12, help="at least 4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="cores to use, at least 2")
    parser.add_argument(
        "--out", "--json", dest="out", type=Path, help="file of JSON lines to add the row to"
    )
    options, more = parser.parse_known_args()
    settings = {key: getattr(options, key) for key in ("recipe", "steps", "rounds", "threads")}
    row = head("step_ranks", (), settings | {"more": " ".join(more)})
    ranks = {"threads": 1, "ranks": options.threads, "crowd": 2 * options.threads}
    cases = [("threads", False), ("ranks", False), ("crowd", False)]
    cases += [("threads", True), ("ranks", True)]
    seconds: dict[str, list[float]] = {name_of(*case): [] for case in cases}
    for turn in range(options.rounds):
        # The other way round in every second round: a machine's speed drifts.
        for side, busy in cases if turn % 2 == 0 else cases[::-1]:
            rows = step_rows(options, more, ranks[side], busy)
            seconds[name_of(side, busy)].append(median_seconds(rows))
        last = {name: f"{values[-1]:.3f}" for name, values in seconds.items()}
        print(f"round {turn + 1}: {last} s", flush=True)
    row["seconds"] = {name: spread(values) for name, values in seconds.items()}
    pairs = {
        "ranks / threads": ("ranks", "threads"),
        "threads, busy / alone": ("threads busy", "threads"),
        "ranks, busy / alone": ("ranks busy", "ranks"),
        "crowd / ranks": ("crowd", "ranks"),
    }
    row["ratios"] = {
        name: spread([a / b for a, b in zip(seconds[one], seconds[other], strict=True)])
        for name, (one, other) in pairs.items()
    }
    for name, ratio in row["ratios"].items():
        print(f"{name}: {show(ratio, '.2f')}")
    file_row(options.out, row)


def name_of(side: str, busy: bool) -> str:
    return f"{side} busy" if busy else side


if __name__ == "__main__":
    main()
