"""A newcomer's first five minutes, timed: a new environment, the wheel, ten lines, a curve.

    python scripts/five_minutes.py                        # needs a network, as pip does
    python scripts/five_minutes.py --index https://download.pytorch.org/whl/cpu
    python scripts/five_minutes.py --offline              # the packages of this environment

It builds the wheel, makes an empty folder with a new environment, installs the wheel there, and
runs the ten lines of docs/python.md in it, without the repository. It then reads back what they
have left: rising rewards, a report that opens offline, with its curve. The seconds of each stage go
to the output with their processor seconds, which other programs on the machine hardly change, and
with commit and machine, as one JSON object. Exit code 1 where something is missing.
"""

import argparse
import json
import os
import re
import resource
import site
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "docs" / "python.md"
CURVE = """
print("CURVE", [round(row["reward"], 3) for row in run.rows])
print(run.report())
"""


def ten_lines() -> str:
    """The first block of code of the page."""
    block = re.search(r"```python\n(.*?)```", PROGRAM.read_text(encoding="utf-8"), re.DOTALL)
    assert block, f"{PROGRAM} begins with a program"
    return block[1]


def of_children() -> float:
    """Processor seconds of all programs that this one has run to their end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Stages:
    """Runs commands and keeps the seconds of each."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder, self.environment = folder, environment
        self.seconds: dict[str, float] = {}
        self.processor_seconds: dict[str, float] = {}

    def run(self, name: str, *words: object, where: Path | None = None) -> str:
        """The output of a command; ends this program where it fails."""
        started, before = time.perf_counter(), of_children()
        done = subprocess.run(
            [str(word) for word in words],
            cwd=where or self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        self.seconds[name] = round(time.perf_counter() - started, 1)
        self.processor_seconds[name] = round(of_children() - before, 1)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index", help="where pip looks for torch first")
    parser.add_argument("--offline", action="store_true")
    args = parser.parse_args()
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        stages = Stages(work, clean | {"MPLBACKEND": "Agg"})
        build = (sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", work)
        stages.run("build the wheel", *build, where=ROOT)
        (wheel,) = work.glob("aha-*.whl")
        stages.run("make the environment", sys.executable, "-m", "venv", work / "env")
        python = work / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
        if args.offline:
            install(stages, python, wheel, "--no-deps", "--no-index")
            stages.environment["PYTHONPATH"] = os.pathsep.join(site.getsitepackages())
        else:
            where = ["--extra-index-url", args.index] if args.index else []
            constraints = ("-c", ROOT / "constraints.txt")
            install(stages, python, wheel, *constraints, *where)
        (work / "mine.py").write_text(ten_lines() + CURVE, encoding="utf-8")
        (work / "empty").mkdir()
        shown = stages.run("train and report", python, work / "mine.py", where=work / "empty")
        check(shown, work / "empty", stages)


def install(stages: Stages, python: Path, wheel: Path, *options: object) -> None:
    stages.run("pip install", python, "-m", "pip", "install", "-q", *options, wheel)


def with_sum(seconds: dict[str, float]) -> dict[str, float]:
    return seconds | {"all": round(sum(seconds.values()), 1)}


def check(shown: str, folder: Path, stages: Stages) -> None:
    """Compare what the program has left with what it promises, and print the result."""
    from aha.store.run_folder import environment

    curve = json.loads(re.search(r"^CURVE (.*)$", shown, re.MULTILINE)[1])
    report = folder / shown.strip().splitlines()[-1]
    facts = {
        "program": ten_lines(),
        "rewards": curve,
        "learnt": sum(curve[-3:]) > 2 * sum(curve[:3]) and sum(curve[-3:]) > 1,
        "report": report.is_file() and "<svg" in report.read_text(encoding="utf-8"),
        "seconds": with_sum(stages.seconds),
        "processor_seconds": with_sum(stages.processor_seconds),
        "environment": environment(),
    }
    print(json.dumps(facts, indent=2))
    sys.exit(0 if facts["learnt"] and facts["report"] else 1)


if __name__ == "__main__":
    main()
