"""Run a study of `aha study`, go on with it where it was stopped, and file it under results/.

    python scripts/file_study.py priming
    python scripts/file_study.py priming --processes 4 --out runs/studies/priming

results/studies/NAME/ gets study.json (settings, results, verdicts, command, commit, machine),
study.html, and cells.jsonl with the settings, times and result of every cell. What a cell holds of
every single problem stays in OUT/cells; the row names it.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "results" / "studies"
LONGEST = 200  # entries of a list that is filed


def run_study(name: str, out: Path, more: list[str]) -> None:
    """The command itself; it ends this program where it was stopped or failed."""
    words = [sys.executable, "-m", "aha", "study", name, "--out", str(out), *more]
    code = subprocess.run(words).returncode
    if code:
        sys.exit(code)


def shortened(record: dict[str, Any]) -> dict[str, Any]:
    """A cell without the parts of its result that have a value for every problem."""
    result = record.get("result")
    if not isinstance(result, dict):
        return record
    left = [
        key
        for key, value in result.items()
        if isinstance(value, list | dict) and len(value) > LONGEST
    ]
    kept = {key: value for key, value in result.items() if key not in left}
    return record | {"result": kept} | ({"left_in_cells": left} if left else {})


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
            rows.write(json.dumps({"cell": cell["name"], **shortened(record)}) + "\n")
    print(f"filed in {target}: {len(study['cells'])} cells, commit {' '.join(study['commits'])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name")
    parser.add_argument("--out", type=Path)
    arguments, more = parser.parse_known_args()
    if "--quick" in more:
        sys.exit("--quick is a smoke run, too small for any claim: nothing to file; leave it out")
    out = arguments.out or Path("runs/studies") / arguments.name
    run_study(arguments.name, out, more)
    file_study(arguments.name, out, RESULTS / arguments.name)


if __name__ == "__main__":
    main()
