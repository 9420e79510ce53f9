"""The run folder: how it is created and reopened, the names of its files, and its JSON lines.

runs/NAME/
  config.json        the resolved recipe
  environment.json   versions, machine, commit
  prediction.json    memory, time and cost as planned before the run began
  calibration.json   the machine as measured before, where that was asked for
  metrics.jsonl      one row per step (its keys: docs/glossary.md)
  evals.jsonl        one row per validation
  findings.jsonl     all faults that the run noticed: step, level, check, message, fix
  completions/       step_000010.jsonl ..., eval_000010.jsonl ..., before.jsonl, after.jsonl
  checkpoints/       step_000020/ ... each a Hugging Face model folder and trainer.pt
  model/             the trained model
  before.json        the test before training; after.json the test after it
  summary.json       before, after, cost: written when the run is done
  report.html        the report, where `aha report` was asked for it
"""

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

from aha.core.errors import RunError
from aha.core.findings import Finding, finding_row
from aha.machine.host import cpu_name, loaded_gpu_name, num_cores, platform_name
from aha.store.guarded_files import GuardedFile, JsonLines


class Run:
    """A run folder and the paths in it."""

    def __init__(self, path: Path):
        self.path = path
        self.name = path.name
        self.metrics = path / "metrics.jsonl"
        self.findings = path / "findings.jsonl"
        self.completions = path / "completions"
        self.checkpoints = path / "checkpoints"
        self.model = path / "model"

    @classmethod
    def create(cls, path: Path, config: dict[str, Any]) -> "Run":
        """Make the folder of a new run and write its config and environment. Raises `RunError`
        where the path exists."""
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
        """An existing run. Raises `RunError` for a folder without a config."""
        if not (path / "config.json").is_file():
            raise RunError(f"no run in {path}", "a folder with config.json", "see `ls runs`")
        return cls(path)

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace a JSON file as a whole: a reader sees the old content or the new content."""
        target = self.path / name
        partial = target.with_suffix(".partial")
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, target)

    def tell(self, step: int, finding: Finding) -> None:
        """Add a fault to findings.jsonl, where pages, reports and the doctor read it."""
        append(self.findings, [{"step": step, **finding_row(finding)}])

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the run. Raises `RunError` for one that is missing, damaged or no file of
        the folder."""
        try:
            return GuardedFile(self.path, name).read_object()
        except RunError as error:
            got = f"cannot read {self.path / name}: {error.got}"
            raise RunError(got, error.wanted, error.fix) from error
        except OSError as error:
            raise RunError(f"cannot read {self.path / name}: {error}", "a JSON file") from error


class Environment(TypedDict):
    """The versions, the machine and the commit that a result was made with."""

    python: str
    platform: str
    machine: str
    cores: int | None
    gpu: str | None
    commit: str | None
    packages: dict[str, str | None]


def environment() -> Environment:
    """The environment of this process."""
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
    try:
        head, dirty = git("rev-parse", "HEAD"), git("status", "--porcelain")
    except (OSError, subprocess.SubprocessError):
        return None
    return head + ("+" if dirty else "")


def git(*arguments: str) -> str:
    """The output of a git command in the folder of this file."""
    folder = Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


Row = dict[str, Any]


def append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows in one write, so that a reader sees whole lines."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    with path.open("a", encoding="utf-8") as out:
        out.write(text)


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file of a run; none where it does not exist. A last line that is still being
    written and lines that are no JSON objects are left out; `JsonLines` counts those.

    Raises `RunError` where the path leads out of the run, or to what is no file.
    """
    in_subfolder = path.parent.name == "completions"
    folder = path.parent.parent if in_subfolder else path.parent
    lines = JsonLines(GuardedFile(folder, str(path.relative_to(folder))))
    while True:
        before = lines.offset
        yield from lines.read_new()[0]
        if lines.refused and not lines.offset:
            raise RunError(lines.refused)
        if lines.offset == before:
            return


def drop_half_line(path: Path) -> None:
    """Remove an unfinished last line: the next row would become part of it and be lost."""
    if not path.exists():
        return
    with path.open("rb+") as lines:
        content = lines.read()
        lines.truncate(content.rfind(b"\n") + 1)


def truncate_after(path: Path, key: str, last: int) -> None:
    """Remove the rows that a crashed run wrote after its checkpoint, whose `key` is larger than
    `last`, and an unfinished last line, which the next row would become part of."""
    if not path.exists():
        return
    kept = [row for row in read_rows(path) if row.get(key, 0) <= last]
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    os.replace(partial, path)
