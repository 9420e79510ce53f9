"""A folder of runs, and the contents of one run folder. Links out of the folder are not
followed."""

import os
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import aha
from aha.core.control_characters import visible
from aha.core.errors import RunError
from aha.store.guarded_files import (
    GuardedFile,
    JsonLines,
    Row,
    is_guarded_folder,
    number,
)
from aha.store.run_folder import is_tuning
from aha.store.run_notes import NOTES
from aha.web.file_reader import last_row, spread_rows
from aha.web.run_owner import owner_lives

QUIET_AFTER_S = 45.0  # a run that has written nothing for so long is displayed as quiet
SPARKLINE_POINTS = 40
COMPLETIONS = re.compile(r"before|after|(?:step|eval)_(?:[0-9]{6}|[1-9][0-9]{6,11})")
NEEDED, OPTIONAL = ("config", "environment"), ("summary", "before", "after", "prediction")
MAX_FINDINGS, MAX_FINDINGS_BYTES = 200, 1_000_000
MAX_NOTES = 4_000  # bytes of them that are shown
RUN_FILES = ("metrics.jsonl", "completions", "config.json", "environment.json")
TUNING_WORDS = {"sft": "fine-tuning on", "prefer": "preference pairs of"}  # by kind
SHOWN_CHARS = 300  # of a text from a run's JSON files


class RunFolder:
    """One run, read from its files; every file may be missing, damaged or no file at all."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        self.metrics, self.evals, self.findings_file = (
            GuardedFile(path, f"{name}.jsonl") for name in ("metrics", "evals", "findings")
        )
        self.completions = path / "completions"
        self._objects: dict[str, tuple[object, Row, str]] = {}

    def read(self, name: str) -> Row:
        """A JSON file of the run by its name without suffix; {} where it cannot be read."""
        return self._read(name)[0]

    def fault_of(self, name: str) -> str:
        """Why a JSON file of the run cannot be read; empty for one that can be, or is missing."""
        return self._read(name)[1]

    def _read(self, name: str) -> tuple[Row, str]:
        """(content, fault); read again when the file has changed."""
        file = GuardedFile(self.path, f"{name}.json")
        status = file.stat()
        version = status and (status.st_mtime_ns, status.st_size, status.st_ino)
        kept = self._objects.get(name)
        if kept is None or kept[0] != version or version is None:
            kept = (version, *self._read_object(file))
            self._objects[name] = kept
        return kept[1:]

    @staticmethod
    def _read_object(file: GuardedFile) -> tuple[Row, str]:
        try:
            return file.read_object(), ""
        except FileNotFoundError:
            return {}, ""
        except OSError as error:
            return {}, str(error)

    def completion_files(self) -> list[str]:
        """Names without suffix, sorted: after, before, eval_000010, step_000010."""
        return self._listed[0]

    def refused_completions(self) -> list[str]:
        """Names of files of completions that are not read: links out of the run, FIFOs."""
        return self._listed[1]

    @property
    def _listed(self) -> tuple[list[str], list[str]]:
        usable: list[str] = []
        refused: list[str] = []
        if not is_guarded_folder(self.completions, self.path):
            return usable, refused
        try:
            for entry in os.scandir(self.completions):
                name, suffix = entry.name[:-6], entry.name[-6:]
                if suffix == ".jsonl" and COMPLETIONS.fullmatch(name):
                    regular = entry.is_file(follow_symlinks=False)
                    # Named only where it is needed: a run of 10,000 steps has as many files.
                    if regular or GuardedFile(self.path, f"completions/{entry.name}").stat():
                        usable.append(name)
                    else:
                        refused.append(name)
        except OSError:
            pass
        return sorted(usable), sorted(refused)

    def completion_file(self, name: str) -> GuardedFile | None:
        """A file of completions; None for another name, a missing file and one that is refused."""
        if not COMPLETIONS.fullmatch(name):
            return None
        file = GuardedFile(self.path, f"completions/{name}.jsonl")
        return file if file.stat() else None

    def findings(self) -> tuple[list[Row], list[str]]:
        """(what the run noticed: {step, level, check, message, fix}, what could not be read)."""
        return newest_findings(JsonLines(self.findings_file, max_bytes=MAX_FINDINGS_BYTES))

    def status(self) -> str:
        """done, stopped, running, interrupted or quiet.

        A stopped run was ended by a fault. An interrupted one has no process any more: a signal, a
        kill or a spent budget ended it. A quiet run belongs to a process of another machine and has
        written nothing for a while: it is interrupted or slow.
        """
        if GuardedFile(self.path, "summary.json").exists():
            return "done"
        lives = owner_lives(self.read("owner"))
        if lives:  # a resume keeps the fault of the step that it goes on from
            return "running"
        fault, last = last_row(self.findings_file, level="fail"), last_row(self.metrics) or {}
        if fault and (number(fault.get("step")) or 0) >= (number(last.get("step")) or 0):
            return "stopped"
        if lives is False:
            return "interrupted"
        newest = 0.0
        for path in (self.metrics.path, self.evals.path, self.completions, self.path):
            try:
                newest = max(newest, os.lstat(path).st_mtime)
            except OSError:
                continue
        return "running" if time.time() - newest < QUIET_AFTER_S else "quiet"

    def faults(self) -> list[str]:
        """The files of the run that are damaged or no files, with the reason; [] for a good run.

        Rows are not read here: who reads them knows which are damaged.
        """
        faults = [fault for name in (*NEEDED, *OPTIONAL) if (fault := self.fault_of(name))]
        for file in (self.metrics, self.evals, self.findings_file):
            if file.exists() and file.stat() is None:
                faults.append(reason_of(file))
        if os.path.lexists(self.completions) and not is_guarded_folder(self.completions, self.path):
            faults.append("completions/ leads out of the run folder or is no folder")
        refused = self.refused_completions()
        if refused:
            shown = ", ".join(refused[:3]) + (" ..." if len(refused) > 3 else "")
            faults.append(f"{len(refused)} files of completions are no files of this run: {shown}")
        return [visible(fault)[: 2 * SHOWN_CHARS] for fault in faults]

    def notes(self) -> list[str]:
        """What is damaged, missing or unusual, as sentences for the page."""
        notes = self.faults()
        for name in NEEDED:
            if not GuardedFile(self.path, f"{name}.json").exists():
                notes.append(f"{name}.json is missing")
        if not self.metrics.exists():
            notes.append("metrics.jsonl is missing: no step has been written yet")
        if not (os.path.lexists(self.completions) or is_tuning(self.read("config"))):
            notes.append("completions/ is missing: there is no text to display")
        packages = self.read("environment").get("packages")
        written_by = packages.get("aha") if isinstance(packages, dict) else None
        if isinstance(written_by, str) and _release(written_by) > _release(aha.__version__):
            notes.append(
                f"written by aha {clipped(written_by)}, newer than this {aha.__version__}: "
                "what is not known here is left out"
            )
        return notes

    def card(self) -> Row:
        """The run's row in the list of runs, without reading all of its metrics."""
        config, summary = self.read("config"), self.read("summary")
        last = last_row(self.metrics) or {}
        rows = spread_rows(self.metrics, SPARKLINE_POINTS)
        return {
            "name": self.name,
            "status": self.status(),
            "task": describe_task(config),
            "model": clipped(section(config, "model").get("path", "?")),
            "step": number(last.get("step")),
            "steps": number(config.get("steps")),
            "solve_rate": number(last.get("solve_rate")),
            "sparkline": [number(row.get("solve_rate")) for row in rows],
            "elapsed_s": number(last.get("elapsed_s")),
            "cost_usd": cost_of(config, summary, number(last.get("elapsed_s"))),
            "before": rate_of(summary.get("before") or self.read("before")),
            "after": rate_of(summary.get("after") or self.read("after")),
            "modified": self.modified(),
            "notes": self.notes_of_people(),
            "marks": marks_of(self.findings()[0], self.faults()),
        }

    def notes_of_people(self) -> str:
        """notes.md, which `aha note` or an editor writes; empty where there is none."""
        try:
            with GuardedFile(self.path, NOTES).open() as file:
                return visible(file.read(MAX_NOTES).decode("utf-8", "replace"))
        except OSError:
            return ""

    def modified(self) -> float:
        """When the run was last written to, in seconds since 1970; 0 where that is not known."""
        newest = 0.0
        for path in (self.path, self.metrics.path):
            try:
                newest = max(newest, os.lstat(path).st_mtime)
            except (OSError, ValueError):
                continue
        return newest


def reason_of(file: GuardedFile) -> str:
    """Why a file cannot be opened; empty where it can."""
    try:
        file.open().close()
    except OSError as error:
        return str(error)
    return ""


def newest_findings(lines: JsonLines) -> tuple[list[Row], list[str]]:
    """(the newest MAX_FINDINGS findings of a file, what was left out or could not be read)."""
    rows = lines.read_all()
    older, faults = len(rows) - MAX_FINDINGS, lines.faults
    if older > 0:
        faults.append(f"{lines.file.name}: {older} older rows are left out")
    return [finding_view(row) for row in rows[-MAX_FINDINGS:]], faults


def finding_view(row: Row) -> Row:
    """A row of findings.jsonl for a page: texts that can be seen, a step that is a number."""
    texts = {key: clipped(row.get(key) or "") for key in ("check", "message", "fix")}
    level = "fail" if row.get("level") == "fail" else "warn"
    return {"step": number(row.get("step")), "level": level, **texts}


def marks_of(findings: list[Row], faults: list[str]) -> list[str]:
    """What the list says of a run besides its status: faults, warnings, damaged files."""
    levels = Counter(row["level"] for row in findings)
    marks = [("✗", levels["fail"], "fault"), ("!", levels["warn"], "warning")]
    counts = [f"{sign} {n} {noun}{'s' * (n > 1)}" for sign, n, noun in marks if n]
    return counts + [f"damaged: {fault}" for fault in faults[:1]]


def clipped(value: object) -> str:
    """A value from a run's files as text that can be seen, at most SHOWN_CHARS characters."""
    text = visible(value if isinstance(value, str) else str(value))
    return text if len(text) <= SHOWN_CHARS else text[: SHOWN_CHARS - 4] + " ..."


def damaged_card(name: str, reason: str) -> Row:
    """The row of a run that cannot be described at all."""
    unknown = ("step", "steps", "solve_rate", "elapsed_s", "cost_usd", "before", "after")
    return {
        "name": name,
        "status": "damaged",
        "task": "?",
        "model": "?",
        "sparkline": [],
        "modified": 0.0,
        "notes": "",
        "marks": marks_of([], [clipped(reason)]),
        **dict.fromkeys(unknown),
    }


class RunsFolder:
    """The runs in a folder. If the folder is itself a run, that run alone."""

    def __init__(self, root: Path):
        self.only: str | None = None
        if is_run(root):
            root, self.only = root.absolute().parent, root.absolute().name
        self.root = root

    def path_from_here(self) -> Path:
        """The folder as it is typed where this program was started."""
        root = self.root.absolute()
        return root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root

    def names(self) -> list[str]:
        """The names of all runs, newest first."""
        runs = [run for run in map(self.find, self.folders()) if run is not None]
        return [run.name for run in sorted(runs, key=lambda run: -run.modified())]

    def left_out(self) -> list[str]:
        """Runs that are links to a place outside the folder.

        They are not displayed; the page names them and says why.
        """
        if self.only is not None:
            return []
        return [
            name
            for name in sorted(self.folders())
            if is_run(self.root / name) and not is_guarded_folder(self.root / name, self.root)
        ]

    def folders(self) -> list[str]:
        """The names of all folders in the folder."""
        try:
            return [name for name in os.listdir(self.root) if os.path.isdir(self.root / name)]
        except OSError:
            return []

    def find(self, name: str) -> RunFolder | None:
        """A run by name; None for a name with a slash or a leading dot and for a link outwards."""
        if not name or name.startswith(".") or any(c in name for c in "/\\\0"):
            return None
        if self.only is not None and name != self.only:
            return None
        path = self.root / name
        return RunFolder(path) if is_run(path) and is_guarded_folder(path, self.root) else None


def open_run(path: Path) -> RunFolder:
    """A run by its path. Raises RunError where there is no run."""
    if not is_run(path):
        named = Path("runs") / path
        hint = f"use {named}" if is_run(named) else "see `ls runs`"
        raise RunError(f"no run in {path}", "a folder with config.json or metrics.jsonl", hint)
    return RunFolder(path.absolute())


def is_run(path: Path) -> bool:
    """Whether a folder has the files of a run."""
    try:
        there = {name: os.path.lexists(path / name) for name in RUN_FILES} if path.is_dir() else {}
    except (OSError, ValueError):
        return False
    # A model folder has a config.json too, but no environment.json.
    both = there.get("config.json") and there.get("environment.json")
    return bool(there.get("metrics.jsonl") or there.get("completions") or both)


def section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of a config; {} where it is missing or no section."""
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def describe_task(config: dict[str, Any]) -> str:
    """The task's name, for Countdown with how many numbers a puzzle has; ? where unknown."""
    if is_tuning(config):
        return clipped(f"{TUNING_WORDS[config['kind']]} {config.get('data', '?')}")
    task = section(config, "task")
    if task.get("name") != "countdown":
        return clipped(task.get("name", "?"))
    sizes = task.get("numbers")
    text = " or ".join(map(str, sizes[:9])) if isinstance(sizes, list) else "?"
    return clipped(f"countdown, {text} numbers")


def cost_of(
    config: dict[str, Any], summary: dict[str, Any], elapsed_s: float | None
) -> float | None:
    """USD of the run so far: from the summary, else the price of the training's seconds."""
    recorded = number(summary.get("cost_usd"))
    price = number(config.get("usd_per_hour"))
    if recorded is not None or price is None or elapsed_s is None:
        return recorded
    return elapsed_s / 3600 * price


def rate_of(report: object) -> dict[str, Any] | None:
    """{solve_rate, interval, problems} of a held-out test; None where there was none."""
    if not isinstance(report, dict):
        return None
    rate = number(report.get("solve_rate"))
    if rate is None:
        return None
    problems = number(report.get("problems"))
    return {"solve_rate": rate, "interval": interval_of(report), "problems": problems}


def rate_text(rate: dict[str, Any] | None, missing: str) -> str:
    """The result of `rate_of` as text, `84.2% [81.8%, 86.3%]`; `missing` for None."""
    if rate is None:
        return missing
    ends = rate["interval"]
    interval = f" [{ends[0]:.1%}, {ends[1]:.1%}]" if ends else ""
    return f"{rate['solve_rate']:.1%}{interval}"


def interval_of(report: dict[str, Any]) -> list[float] | None:
    """[low, high] of a report's interval; None where it is missing or not two numbers."""
    interval = report.get("interval")
    ends = [number(end) for end in interval] if isinstance(interval, list) else []
    known = [end for end in ends if end is not None]
    return known if len(ends) == len(known) == 2 else None


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", version)[:3])
