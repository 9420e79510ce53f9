"""Run a study of `aha study`, go on with it where it was stopped, and file it under results/.

    python scripts/file_study.py priming
    python scripts/file_study.py priming --processes 4 --out runs/studies/priming

results/studies/NAME/ gets study.json (settings, results, verdicts, command, commit, machine),
study.html, and cells.jsonl with the settings, times and result of every cell.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "results" / "studies"


def run_study(name: str, out: Path, more: list[str]) -> None:
    """The command itself; it ends this program where it was stopped or failed."""
    words = [sys.executable, "-m", "aha", "study", name, "--out", str(out), *more]
    code = subprocess.run(words).returncode
    if code:
        sys.exit(code)


def file_study(name: str, out: Path, target: Path) -> None:
    """Copy the results of a finished study."""
    study = json.loads((out / "study.json").read_text())
    left = [cell["name"] for cell in study["cells"] if cell["name"] not in study["done"]]
    if left or study["study"] != name:
        sys.exit(f"{out} is not done: {', '.join(left) or study['study']}")
    target.mkdir(parents=True, exist_ok=True)
    for file in ("study.json", "study.html"):
        shutil.copyfile(out / file, target / file)
    with (target / "cells.jsonl").open("w") as rows:
        for cell in study["cells"]:
            record = json.loads((out / "cells" / f"{cell['name']}.json").read_text())
            rows.write(json.dumps({"cell": cell["name"], **record}) + "\n")
    print(
        f"filed in {target}: {len(study['cells'])} cells, commit {study['environment']['commit']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--out", type=Path)
    arguments, more = parser.parse_known_args()
    out = arguments.out or Path("runs/studies") / arguments.name
    run_study(arguments.name, out, more)
    file_study(arguments.name, out, RESULTS / arguments.name)


if __name__ == "__main__":
    main()
