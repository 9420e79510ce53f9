"""The run folder: create it, reopen it, and say where things are.

runs/NAME/
  config.json        the resolved recipe
  environment.json   versions, machine, commit
  prediction.json    memory, time and cost as foreseen before it began
  calibration.json   the machine as measured before, where that was asked for
  metrics.jsonl      one row a step
  evals.jsonl        one row an evaluation on the way
  completions/       step_000010.jsonl ..., eval_000010.jsonl ..., before.jsonl, after.jsonl
  checkpoints/       step_000020/ ... each a Hugging Face model folder and trainer.pt
  model/             the trained model
  summary.json       before, after, cost: written when the run is done
"""

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from aha.core.errors import RunError
from aha.machine.host import cpu_name, loaded_gpu_name, num_cores, platform_name


class Run:
    """A run folder. `create` refuses a name that is taken; `open` one that is missing."""

    def __init__(self, path: Path):
        self.path = path
        self.name = path.name
        self.metrics = path / "metrics.jsonl"
        self.completions = path / "completions"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"

    @classmethod
    def create(cls, path: Path, config: dict) -> "Run":
        if path.exists():
            raise RunError(
                f"{path} exists already",
                "a new run name",
                f"--name {path.name}-2, or `aha train --resume {path}` to go on with it",
            )
        run = cls(path)
        run.completions.mkdir(parents=True)
        run.checkpoints.mkdir()
        run.write("config.json", config)
        run.write("environment.json", environment())
        return run

    @classmethod
    def open(cls, path: Path) -> "Run":
        if not (path / "config.json").is_file():
            raise RunError(f"no run in {path}", "a folder with config.json", "see `ls runs`")
        return cls(path)

    def write(self, name: str, content: dict) -> None:
        """Replace a JSON file as a whole: a reader sees the old one or the new one."""
        target = self.path / name
        partial = target.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, target)

    def read(self, name: str) -> dict:
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"cannot read {self.path / name}: {error}", "a JSON file") from error


def environment() -> dict:
    """What a result must be filed with: versions, machine and commit."""
    names = ("aha", "torch", "numpy", "tokenizers", "safetensors")
    return {
        "python": platform.python_version(),
        "platform": platform_name(),
        "machine": cpu_name(),
        "cores": num_cores(),
        "gpu": loaded_gpu_name(),
        "commit": commit(),
        "packages": {name: _version(name) for name in names},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit of the source tree that runs, with "+" where files differ; None when installed."""
    here = Path(__file__).resolve().parent
    try:
        ask = ["git", "-C", str(here)]
        options = {"capture_output": True, "text": True, "check": True, "timeout": 10}
        head = subprocess.run([*ask, "rev-parse", "HEAD"], **options).stdout.strip()
        dirty = subprocess.run([*ask, "status", "--porcelain"], **options).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if dirty else "")
