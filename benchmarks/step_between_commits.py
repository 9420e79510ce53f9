"""The same training steps by two commits of this project, in turns: did a change cost time?

    python benchmarks/step_between_commits.py [OLD] [--recipe demo] [--steps 12] [--rounds 5]

Each round runs `aha train RECIPE` once with the sources of the commit OLD (HEAD~1 unless given) and
once with those of this checkout, in fresh processes, with no evaluation. A run's step time is the
median of its steps after the second. Both sides should write the same metrics: other numbers would
be other work.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

from _common import file_row, head, show, spread

HERE = Path(__file__).resolve().parents[1]
WARM_UP = 2  # steps in which libraries set themselves up


def run(sources: Path, recipe: str, steps: int) -> list[dict]:
    """The rows of metrics.jsonl of one run with these sources."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "aha", "train", recipe, "--name", "run"]
        command += ["--steps", str(steps), "--eval.every", "0", "--eval.final", "0"]
        path = os.environ | {"PYTHONPATH": str(sources)}
        subprocess.run(command, cwd=folder, env=path, check=True, stdout=subprocess.DEVNULL)
        lines = (Path(folder) / "runs" / "run" / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


def seconds(rows: list[dict]) -> float:
    """Of a step, with all that happens between it and the next: what is recorded, and the heap."""
    elapsed = [row["elapsed_s"] for row in rows[WARM_UP:]]
    return statistics.median(after - before for before, after in pairwise(elapsed))


def numbers(rows: list[dict]) -> list[dict]:
    """What a step computed, without its times."""
    return [{k: v for k, v in row.items() if not k.endswith("_s")} for row in rows]


def git(*words: str) -> bytes:
    return subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, check=True).stdout


def commit_of(revision: str) -> str:
    return git("rev-parse", f"{revision}^{{commit}}").decode().strip()


def write_sources(revision: str, folder: Path) -> Path:
    """The `src` folder of a commit, as it was."""
    archive = git("archive", revision, "src")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return folder / "src"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old", nargs="?", default="HEAD~1", help="a commit")
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--out", "--json", dest="out", type=Path, help="file of JSON lines to add the row to"
    )
    options = parser.parse_args()
    settings = {key: getattr(options, key) for key in ("recipe", "steps", "rounds")}
    settings |= {"old": commit_of(options.old)}
    row = head("step_between_commits", (), settings)
    old, new = [], []
    with tempfile.TemporaryDirectory() as folder:
        sides = [(old, write_sources(settings["old"], Path(folder))), (new, HERE / "src")]
        for turn in range(options.rounds):
            # The other side first in every second round: a machine's speed drifts.
            for results, sources in sides if turn % 2 == 0 else sides[::-1]:
                results.append(run(sources, options.recipe, options.steps))
            print(f"round {turn + 1}: {seconds(old[-1]):.3f}, {seconds(new[-1]):.3f} s", flush=True)
    row["same_numbers"] = all(numbers(a) == numbers(b) for a, b in zip(old, new, strict=True))
    row["old_s"], row["new_s"] = spread(list(map(seconds, old))), spread(list(map(seconds, new)))
    row["ratio"] = spread([seconds(b) / seconds(a) for a, b in zip(old, new, strict=True)])
    print(f"old {show(row['old_s'], '.3f')} s, new {show(row['new_s'], '.3f')} s a step")
    print(f"new / old {show(row['ratio'], '.3f')}; the same numbers: {row['same_numbers']}")
    file_row(options.out, row)


if __name__ == "__main__":
    main()
