"""The run folder: how it is created and opened, the names of its files, and its JSON lines.

runs/NAME/
  config.json        the resolved recipe
  fingerprints.json  what the run depends on: recipe, and digests of base, data and task code
  environment.json   versions, machine, commit
  packages.txt       all installed packages, as `pip install -r` reads them
  code.diff          what differed from the commit, where something did
  prediction.json    memory, time and cost as planned before the run began
  calibration.json   the machine as measured before, where that was asked for
  run.log            what the terminal showed
  ranks/             rank_1.log ...: what the other ranks did, where there are any
  metrics.jsonl      one row per step (its keys: docs/glossary.md)
  evals.jsonl        one row per validation
  findings.jsonl     all faults that the run noticed: step, level, check, message, fix
  failed_step/       completions of a step that a fault has ended, and the fault
  completions/       step_000010.jsonl ..., eval_000010.jsonl ..., before.jsonl, after.jsonl
  checkpoints/       step_000020/ ... each a Hugging Face model folder, trainer.pt and SHA256SUMS
  model/             the trained model
  before.json        the test before training; after.json the test after it
  summary.json       before, after, cost: written when the run is done
  after_000020.json  and after_000020.jsonl, summary_000020.json: those of a finished run that went
                     on for longer; model/ stays the old one until the new end
  report.html        the report, where `aha report` was asked for it
  judge.jsonl        an LLM judge's answers, where `aha behaviors --judge` was asked for them
  rewards.json       the source of reward functions that a Python program has given
  fork.json          of a copy by `aha fork`: the run and the step that it is from
  loggers.json       for each logger the id of its run and the last step that it has
  tensorboard/       event files, where that logger was asked for
  notes.md           what people have noted
  owner.json         the process that writes to the run, while there is one; .lock is its lock
"""

import errno
import glob
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypedDict

from aha.core.errors import RunError
from aha.core.findings import Finding, finding_row
from aha.machine.host import cpu_name, loaded_gpu_name, num_cores, platform_name
from aha.store.durable import PARTIAL, check_writable, disk_errors, flush, to_json, write_text
from aha.store.guarded_files import GuardedFile, JsonLines, Row, row_of
from aha.store.provenance import commit, write_provenance
from aha.store.run_lock import RunLock

TUNING_KINDS = ("sft", "prefer")  # `kind` in the config.json of a fine-tuning


def is_tuning(config: Mapping[str, Any] | None) -> bool:
    """Whether the config.json of a run is one of fine-tuning, on examples or on pairs: its steps
    have no rewards and draw no completions; tests it has where `aha distill` or `aha prefer` made
    it. None: there is none to read."""
    return config is not None and config.get("kind") in TUNING_KINDS


def resume_command(run: Path) -> str:
    """What is typed to go on with a run; its path is one word of the shell, spaces or not."""
    return f"aha train --resume {shlex.quote(str(run))}"


def other_name(path: Path) -> str:
    """What is typed for a folder beside one that is there."""
    return shlex.join(["--name", f"{path.name}-2"])


def exists(path: Path) -> RunError:
    """The error for a new run whose path exists."""
    return RunError(
        f"{path} exists already",
        "a new run name",
        f"{other_name(path)}, or `{resume_command(path)}` to go on with it",
    )


def check_new(path: Path) -> None:
    """Raise `RunError` where no run can be made at this path, before anything is computed."""
    if path.exists() or path.is_symlink():
        raise exists(path)
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise RunError(f"{folder} is a file", "a folder of runs", f"mv {folder} {folder}.old")
    check_writable(folder)


def remove_unfinished(path: Path, older_than_s: float = 60.0) -> None:
    """Remove what processes left that died while they made a run of this name."""
    for left in path.parent.glob(f"{PARTIAL}{glob.escape(path.name)}_*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > older_than_s:
                shutil.rmtree(left)


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
        self.lock: RunLock | None = None  # while this process writes to the run

    @classmethod
    def create(
        cls,
        path: Path,
        config: Mapping[str, Any],
        records: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> "Run":
        """Make the folder of a new run with its config, its environment and further `records`, JSON
        files by name. The folder appears with all of them or not at all.

        Raises `RunError` where the path exists or cannot be made.
        """
        check_new(path)
        # A name of its own: two processes may begin a run of one name, and one of them comes first.
        partial = cls(path.with_name(f"{PARTIAL}{path.name}_{os.getpid()}"))
        with disk_errors(f"make the run {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            remove_unfinished(path)
            try:
                partial.completions.mkdir(parents=True)
                partial.checkpoints.mkdir()
                files = {"config.json": config, "environment.json": environment()}
                for name, content in (files | dict(records or {})).items():
                    partial.write(name, content)
                write_provenance(partial.path)
                try:
                    os.rename(partial.path, path)
                except OSError as error:
                    if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                        raise exists(path) from None
                    raise
            finally:
                shutil.rmtree(partial.path, ignore_errors=True)
            flush(path.parent)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "Run":
        """An existing run. Raises `RunError` for a folder without a config."""
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file", "a run folder", "see `ls runs`")
        if not (path / "config.json").is_file():
            named = Path("runs") / path
            hint = f"use {named}" if (named / "config.json").is_file() else "see `ls runs`"
            raise RunError(f"no run in {path}", "a folder with config.json", hint)
        return cls(path)

    def refuse_links_out(self) -> None:
        """Raises `RunError` for a link that leads out of the folder: who goes on with the run would
        read and write there, and remove older checkpoints there."""
        root = os.path.realpath(self.path)
        for folder, folders, files in os.walk(self.path):
            for name in (*folders, *files):
                path = os.path.join(folder, name)
                if os.path.islink(path) and not Path(os.path.realpath(path)).is_relative_to(root):
                    raise RunError(
                        f"{path} is a link that leads out of the run",
                        "a run whose files are its own",
                        "put what it links to in its place",
                    )

    @contextmanager
    def taken(self, say: Callable[[str], None]) -> Iterator[None]:
        """Take the run's lock. It is held afterwards, until `release`, unless an error comes.

        Raises `RunError` while another process has it; see `RunLock` for `say`.
        """
        self.lock = RunLock(self.path, say)
        try:
            yield
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Give the run to other processes, where this one has it."""
        if self.lock is not None:
            self.lock.release()

    def write(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace a JSON file as a whole: a reader sees the old content or the new content, also
        after a power cut. A number that JSON does not have becomes null."""
        write_text(self.path / name, to_json(content, indent=2) + "\n")

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

    def read_or_none(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the run; None for one that `read` refuses."""
        try:
            return self.read(name)
        except RunError:
            return None


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
        "packages": {name: version_of(name) for name in names},
    }


def version_of(package: str) -> str | None:
    """The version of an installed package; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Append rows in one write, so that a reader sees whole lines, and wait until they are on the
    disk. Raises `RunError` where the disk does not take all of them; then none of them stays.
    """
    content = "".join(to_json(row) + "\n" for row in rows).encode()
    with disk_errors(f"write {path}"):
        is_new = not path.exists()
        with path.open("ab", buffering=0) as out:
            size = out.tell()
            try:
                written = out.write(content) or 0
                if written < len(content):  # a disk that fills up takes a part, then none
                    out.write(content[written:])
                os.fsync(out.fileno())
            except BaseException:
                with suppress(OSError):
                    out.truncate(size)
                raise
        if is_new:
            flush(path.parent)


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file of a run; none where it does not exist. A last line that is still being
    written and lines that are no JSON objects are left out; `JsonLines` counts those.

    Raises `RunError` where the path leads out of the run, or to what is no file, and where the file
    goes on with what are no lines.
    """
    in_subfolder = path.parent.name == "completions"
    folder = path.parent.parent if in_subfolder else path.parent
    # No limit: rows that were left out would be made, and perhaps paid for, again.
    lines = JsonLines(GuardedFile(folder, str(path.relative_to(folder))), max_bytes=sys.maxsize)
    while True:
        before = lines.offset
        yield from lines.read_new()[0]
        if lines.refused:
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


def truncate_after(path: Path, key: str, last: int, several: bool = False) -> None:
    """Remove the rows that a crashed run wrote after its checkpoint, whose `key` is larger than
    `last`, and lines that are no rows, such as an unfinished last one. The others stay as they were
    written. Of rows with the same `key` the last one stays, or with `several` all."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as content:
        lines = list(content)
    kept: dict[Any, str] = {}
    for number, line in enumerate(lines):
        row = (row_of(line.encode()) if line.endswith("\n") else None) or {}
        value = row.get(key, 0)
        if row and isinstance(value, int | float) and value <= last:
            kept[number if several else value] = line
    if list(kept.values()) != lines:
        write_text(path, "".join(kept.values()))
