"""The same task in Aha, TRL and veRL: lines of the program, and seconds to the first reward.

    python benchmarks/first_reward_seconds.py              # the lines of all three
    python benchmarks/first_reward_seconds.py --run aha trl --rounds 5 --json rows.jsonl

The programs are in `benchmarks/first_reward/`. Counted are the lines with code, without comments
and empty lines; rows and rule are in a module that all three import, and are not counted. A program
is formatted as `ruff format` does it.

Seconds are from the start of the process to the first call of the rule: imports, the model, the
first completions. Beside them stand the processor seconds of the process, which other programs on
the machine hardly change; on one thread and a quiet machine both are nearly the same. Each round
runs every program once, in a new process and a new folder, and each is ended after its first
reward. All start from the exported aha-tiny on one thread. veRL needs a GPU. A figure from one
machine says little about another: quote it with the machine.
"""

import argparse
import ast
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import tokenize
from pathlib import Path
from statistics import median

HERE = Path(__file__).parent / "first_reward"
PROGRAMS = ("aha", "trl", "verl")
LATEST_S = 3_600.0
NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}


def program_of(name: str) -> Path:
    return HERE / f"with_{name}.py"


def count_lines(source: str) -> int:
    """Lines that hold code: no comment, no docstring, no empty line."""
    words = ast.get_docstring(ast.parse(source), clean=False)
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in NO_CODE and token.type != tokenize.ENDMARKER:
            lines |= set(range(token.start[0], token.end[0] + 1))
    return len(lines) - (len(words.splitlines()) if words else 0)


def seconds_to_first_reward(name: str, model: Path) -> tuple[float, float]:
    """Start a program in a folder of its own, wait for its first reward, and end it. Returns the
    seconds, and the processor seconds."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "first"
        own = {"FIRST_REWARD": str(note), "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path()}
        words = [sys.executable, str(program_of(name)), str(model)]
        started = time.time()
        with (Path(folder) / "log").open("w") as log:
            process = subprocess.Popen(
                words, cwd=folder, env=os.environ | own, stdout=log, stderr=subprocess.STDOUT
            )
            try:
                while not note.exists() or not note.read_text().endswith("\n"):
                    if process.poll() is not None or time.time() - started > LATEST_S:
                        tail = (Path(folder) / "log").read_text()[-2000:]
                        sys.exit(f"{name} gave no reward (exit code {process.poll()}):\n{tail}")
                    time.sleep(0.02)
                ended, processor = map(float, note.read_text().split())
                return ended - started, processor
            finally:
                process.kill()
                process.wait()


def python_path() -> str:
    return os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])])


def columns(pairs: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """All first values of pairs, and all second ones, rounded."""
    first, second = zip(*pairs, strict=True)
    return [round(value, 2) for value in first], [round(value, 2) for value in second]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", nargs="*", choices=PROGRAMS, default=[])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="file to add a row to")
    args = parser.parse_args()
    lines = {name: count_lines(program_of(name).read_text()) for name in PROGRAMS}
    for name, count in lines.items():
        print(f"{name:<6}{count:>4} lines")
    if not args.run:
        return
    from aha.export.formats import export
    from aha.store.run_folder import environment

    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in args.run}
    with tempfile.TemporaryDirectory() as folder:
        model = export("aha-tiny", Path(folder) / "model", "hf", "float32")
        for _ in range(args.rounds):
            for name in args.run:
                taken[name].append(seconds_to_first_reward(name, model))
    kinds = ("seconds", "processor_seconds")
    row = {"benchmark": "first_reward", "rounds": args.rounds, "lines": lines}
    for kind, values in zip(kinds, zip(*map(columns, taken.values()), strict=True), strict=True):
        row[kind] = {
            name: {"median": median(of), "min": min(of), "max": max(of)}
            for name, of in zip(taken, values, strict=True)
        }
        for name, of in row[kind].items():
            print(f"{name:<6}{of['median']:>7.1f} ({of['min']:.1f} to {of['max']:.1f}) {kind}")
    if args.json:
        with args.json.open("a") as out:
            out.write(json.dumps(row | {"environment": environment()}) + "\n")


if __name__ == "__main__":
    main()
