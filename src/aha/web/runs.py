"""A folder of runs, and the contents of one run folder. Links out of the folder are not
followed."""

import os
import re
import time
from pathlib import Path
from typing import Any

import aha
from aha.core.errors import RunError
from aha.web.file_reader import last_row, number, read_object, spread_rows

QUIET_AFTER_S = 45.0  # a run that has written nothing for so long is displayed as quiet
SPARKLINE_POINTS = 40
COMPLETIONS = re.compile(r"(?:before|after|(?:step|eval)_(\d{1,12}))\.jsonl")


class RunFolder:
    """One run, read from its files; every file may be missing."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        self.metrics, self.evals = path / "metrics.jsonl", path / "evals.jsonl"
        self.completions = path / "completions"

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file of the run by its name without suffix; {} where it cannot be read."""
        return read_object(self.path / f"{name}.json") or {}

    def completion_files(self) -> list[str]:
        """Names without suffix, sorted: after, before, eval_000010, step_000010."""
        try:
            names = os.listdir(self.completions)
        except OSError:
            return []
        return sorted(name[:-6] for name in names if COMPLETIONS.fullmatch(name))

    def completion_file(self, name: str) -> Path | None:
        """The path of a file of completions; None for another name and for a missing file."""
        path = self.completions / f"{name}.jsonl"
        if not COMPLETIONS.fullmatch(path.name) or not within(path, self.path):
            return None
        return path if path.is_file() else None

    def status(self) -> str:
        """done, running or quiet. A quiet run is stopped, crashed or slow; its files do not show
        which."""
        if (self.path / "summary.json").is_file():
            return "done"
        newest = 0.0
        for path in (self.metrics, self.evals, self.completions, self.path):
            try:
                newest = max(newest, path.stat().st_mtime)
            except OSError:
                continue
        return "running" if time.time() - newest < QUIET_AFTER_S else "quiet"

    def notes(self) -> list[str]:
        """What is missing or unusual, as sentences for the page."""
        notes = []
        for name in ("config.json", "environment.json"):
            if read_object(self.path / name) is None:
                notes.append(f"{name} is missing or cannot be read")
        if not self.metrics.is_file():
            notes.append("metrics.jsonl is missing: no step has been written yet")
        if not self.completions.is_dir():
            notes.append("completions/ is missing: there is no text to display")
        packages = self.read("environment").get("packages")
        written_by = packages.get("aha") if isinstance(packages, dict) else None
        if isinstance(written_by, str) and _release(written_by) > _release(aha.__version__):
            notes.append(
                f"written by aha {written_by}, newer than this {aha.__version__}: "
                "what is not known here is left out"
            )
        return notes

    def card(self) -> dict[str, Any]:
        """The run's row in the list of runs, without reading all of its metrics."""
        config, summary = self.read("config"), self.read("summary")
        last = last_row(self.metrics) or {}
        rows = spread_rows(self.metrics, SPARKLINE_POINTS)
        return {
            "name": self.name,
            "status": self.status(),
            "task": describe_task(config),
            "model": str(section(config, "model").get("path", "?")),
            "step": number(last.get("step")),
            "steps": number(config.get("steps")),
            "solve_rate": number(last.get("solve_rate")),
            "sparkline": [number(row.get("solve_rate")) for row in rows],
            "elapsed_s": number(last.get("elapsed_s")),
            "cost_usd": cost_of(config, summary, number(last.get("elapsed_s"))),
            "before": rate_of(summary.get("before") or self.read("before")),
            "after": rate_of(summary.get("after") or self.read("after")),
            "modified": self.modified(),
        }

    def modified(self) -> float:
        """When the run was last written to, in seconds since 1970; 0 where that is not known."""
        try:
            return max(p.stat().st_mtime for p in (self.path, self.metrics) if p.exists())
        except (OSError, ValueError):
            return 0.0


class RunsFolder:
    """The runs in a folder. If the folder is itself a run, that run alone."""

    def __init__(self, root: Path):
        self.only: str | None = None
        if is_run(root):
            root, self.only = root.absolute().parent, root.absolute().name
        self.root = root

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
            if is_run(self.root / name) and not within(self.root / name, self.root)
        ]

    def folders(self) -> list[str]:
        """The names of all folders in the folder."""
        try:
            return [entry.name for entry in os.scandir(self.root) if entry.is_dir()]
        except OSError:
            return []

    def find(self, name: str) -> RunFolder | None:
        """A run by name; None for a name with a slash or a leading dot and for a link outwards."""
        if not name or name.startswith(".") or any(c in name for c in "/\\\0"):
            return None
        if self.only is not None and name != self.only:
            return None
        path = self.root / name
        return RunFolder(path) if is_run(path) and within(path, self.root) else None


def open_run(path: Path) -> RunFolder:
    """A run by its path. Raises RunError where there is no run."""
    if not is_run(path):
        raise RunError(f"no run in {path}", "a folder with config.json or metrics.jsonl")
    return RunFolder(path.absolute())


def is_run(path: Path) -> bool:
    """Whether a folder has the files of a run."""
    try:
        if (path / "metrics.jsonl").is_file() or (path / "completions").is_dir():
            return True
        # A model folder has a config.json too, but no environment.json.
        return (path / "config.json").is_file() and (path / "environment.json").is_file()
    except (OSError, ValueError):
        return False


def within(path: Path, folder: Path) -> bool:
    """Whether a path stays inside a folder once every link is followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def section(config: dict[str, Any], name: str) -> dict[str, Any]:
    """A section of a config; {} where it is missing or no section."""
    value = config.get(name)
    return value if isinstance(value, dict) else {}


def describe_task(config: dict[str, Any]) -> str:
    """The task's name, for Countdown with how many numbers a puzzle has; ? where unknown."""
    task = section(config, "task")
    if task.get("name") != "countdown":
        return str(task.get("name", "?"))
    sizes = task.get("numbers")
    text = " or ".join(map(str, sizes)) if isinstance(sizes, list) else "?"
    return f"{task.get('name', '?')}, {text} numbers"


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
    return {"solve_rate": rate, "interval": interval_of(report), "problems": report.get("problems")}


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
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
