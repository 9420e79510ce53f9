"""A folder of runs, and what one run folder says about itself. No path leads out of it."""

import os
import re
import time
from pathlib import Path

import aha
from aha.core.errors import RunError
from aha.web.file_reader import last_row, number, read_object, spread_rows

LIVE_S = 45.0  # a run that has written nothing for so long is shown as quiet
SPARK_POINTS = 40
COMPLETIONS = re.compile(r"(?:before|after|(?:step|eval)_(\d{1,12}))\.jsonl")


class RunFolder:
    """One run, as its files say; every part may be missing."""

    def __init__(self, path: Path):
        self.path, self.name = path, path.name
        self.metrics, self.evals = path / "metrics.jsonl", path / "evals.jsonl"
        self.completions = path / "completions"

    def read(self, name: str) -> dict:
        """A JSON file of the run; empty where it cannot be read."""
        return read_object(self.path / f"{name}.json") or {}

    def completion_files(self) -> list[str]:
        """Names without suffix: before, after, step_000010, eval_000010, in order."""
        try:
            names = os.listdir(self.completions)
        except OSError:
            return []
        return sorted(name[:-6] for name in names if COMPLETIONS.fullmatch(name))

    def completion_file(self, name: str) -> Path | None:
        """The path of a file of completions; None for any other name, or where there is none."""
        path = self.completions / f"{name}.jsonl"
        if not COMPLETIONS.fullmatch(path.name) or not within(path, self.path):
            return None
        return path if path.is_file() else None

    def status(self) -> str:
        """done, running, or quiet: stopped, crashed or slow, which no file tells apart."""
        if (self.path / "summary.json").is_file():
            return "done"
        newest = 0.0
        for path in (self.metrics, self.evals, self.completions, self.path):
            try:
                newest = max(newest, path.stat().st_mtime)
            except OSError:
                continue
        return "running" if time.time() - newest < LIVE_S else "quiet"

    def notes(self) -> list[str]:
        """What is missing or strange, in words for whoever looks."""
        found = []
        for name in ("config.json", "environment.json"):
            if read_object(self.path / name) is None:
                found.append(f"{name} is missing or cannot be read")
        if not self.metrics.is_file():
            found.append("metrics.jsonl is missing: no step has been written yet")
        if not self.completions.is_dir():
            found.append("completions/ is missing: there is no text to look at")
        packages = self.read("environment").get("packages")
        written_by = packages.get("aha") if isinstance(packages, dict) else None
        if isinstance(written_by, str) and _release(written_by) > _release(aha.__version__):
            found.append(
                f"written by aha {written_by}, newer than this {aha.__version__}: "
                "what is not known here is left out"
            )
        return found

    def card(self) -> dict:
        """One row of the list of runs, without reading its metrics whole."""
        config, summary = self.read("config"), self.read("summary")
        last = last_row(self.metrics) or {}
        rates = [number(row.get("solve_rate")) for row in spread_rows(self.metrics, SPARK_POINTS)]
        return {
            "name": self.name,
            "status": self.status(),
            "task": describe_task(config),
            "model": str(section(config, "model").get("path", "?")),
            "step": number(last.get("step")),
            "steps": number(config.get("steps")),
            "solve_rate": number(last.get("solve_rate")),
            "spark": rates,
            "elapsed_s": number(last.get("elapsed_s")),
            "cost_usd": cost_of(config, summary, number(last.get("elapsed_s"))),
            "before": rate_of(summary.get("before") or self.read("before")),
            "after": rate_of(summary.get("after") or self.read("after")),
            "modified": self.modified(),
        }

    def modified(self) -> float:
        try:
            return max(p.stat().st_mtime for p in (self.path, self.metrics) if p.exists())
        except (OSError, ValueError):
            return 0.0


class RunsFolder:
    """The runs below a folder. Given a run folder itself, shows that run alone."""

    def __init__(self, root: Path):
        self.only = None
        if is_run(root):
            root, self.only = root.absolute().parent, root.absolute().name
        self.root = root

    def names(self) -> list[str]:
        """Every folder that looks like a run, newest first."""
        found = [run for run in map(self.find, self.folders()) if run is not None]
        return [run.name for run in sorted(found, key=lambda run: -run.modified())]

    def left_out(self) -> list[str]:
        """Runs that are links to somewhere outside the folder: they are not shown, for no path
        leaves the folder, and whoever made the links should read why."""
        if self.only is not None:
            return []
        return [
            name
            for name in sorted(self.folders())
            if is_run(self.root / name) and not within(self.root / name, self.root)
        ]

    def folders(self) -> list[str]:
        try:
            return [entry.name for entry in os.scandir(self.root) if entry.is_dir()]
        except OSError:
            return []

    def find(self, name: str) -> RunFolder | None:
        """A run by name; one with a slash, a dot in front or a link out of the folder is none."""
        if not name or name.startswith(".") or any(c in name for c in "/\\\0"):
            return None
        if self.only is not None and name != self.only:
            return None
        path = self.root / name
        return RunFolder(path) if is_run(path) and within(path, self.root) else None


def open_run(path: Path) -> RunFolder:
    """A run folder that a person has named; what is no run is an error."""
    if not is_run(path):
        raise RunError(f"no run in {path}", "a folder with config.json or metrics.jsonl")
    return RunFolder(path.absolute())


def is_run(path: Path) -> bool:
    try:
        if (path / "metrics.jsonl").is_file() or (path / "completions").is_dir():
            return True
        # A model folder has a config.json too, but no environment.
        return (path / "config.json").is_file() and (path / "environment.json").is_file()
    except (OSError, ValueError):
        return False


def within(path: Path, folder: Path) -> bool:
    """Whether a path stays inside a folder once every link is followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def section(config: dict, name: str) -> dict:
    found = config.get(name)
    return found if isinstance(found, dict) else {}


def describe_task(config: dict) -> str:
    task = section(config, "task")
    if task.get("name") != "countdown":
        return str(task.get("name", "?"))
    sizes = task.get("numbers")
    sizes = " or ".join(map(str, sizes)) if isinstance(sizes, list) else "?"
    return f"{task.get('name', '?')}, {sizes} numbers"


def cost_of(config: dict, summary: dict, elapsed_s: float | None) -> float | None:
    """Dollars of the run so far: what the summary says, else the training's machine time."""
    said = number(summary.get("cost_usd"))
    price = number(config.get("usd_per_hour"))
    if said is not None or price is None or elapsed_s is None:
        return said
    return elapsed_s / 3600 * price


def rate_of(report: object) -> dict | None:
    """Solve rate and interval of a held-out test; None where there was none."""
    rate = number(report.get("solve_rate")) if isinstance(report, dict) else None
    if rate is None:
        return None
    return {"solve_rate": rate, "interval": interval_of(report), "problems": report.get("problems")}


def rate_text(rate: dict | None, missing: str) -> str:
    """What `rate_of` found, for a reader: `84.2% [81.8%, 86.3%]`."""
    if rate is None:
        return missing
    ends = rate["interval"]
    interval = f" [{ends[0]:.1%}, {ends[1]:.1%}]" if ends else ""
    return f"{rate['solve_rate']:.1%}{interval}"


def interval_of(report: dict) -> list[float] | None:
    ends = report.get("interval")
    ends = [number(end) for end in ends] if isinstance(ends, list) else []
    return ends if len(ends) == 2 and None not in ends else None


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
