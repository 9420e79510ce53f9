"""Hours of training with the dashboard open in a browser: do memory and open files stay flat?

    python benchmarks/soak.py [--hours 3] [--recipe demo] [--every 30]

One process trains, one serves the dashboard, and a Chromium of the system watches the run's page.
Every `--every` seconds the resident memory, the open descriptors and the threads of the trainer,
its grading process and the dashboard are noted. What a library sets up in the beginning is not
growth: the slope is that of a straight line through the second half. Ctrl-C ends it early, with the
row of what was measured.
"""

import argparse
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
from _common import file_row, head
from playwright.sync_api import sync_playwright

MIB = 2**20


def sample(process: psutil.Process) -> dict[str, float]:
    """Resident MiB, descriptors and threads of a process."""
    with process.oneshot():
        return {
            "mib": process.memory_info().rss / MIB,
            "descriptors": process.num_fds(),
            "threads": process.num_threads(),
        }


def processes(train: int, dash: int) -> dict[str, psutil.Process]:
    """What is watched, by name. The grading process is the trainer's child."""
    trainer = psutil.Process(train)
    watched = {"trainer": trainer, "dashboard": psutil.Process(dash)}
    graders = [child for child in trainer.children() if "aha.tasks" in " ".join(child.cmdline())]
    return watched | ({"grader": graders[0]} if graders else {})


def slope(hours: list[float], values: list[float]) -> float:
    """Of a straight line through the second half, in units an hour."""
    half = len(values) // 2
    return statistics.linear_regression(hours[half:], values[half:]).slope


def summary_of(samples: list[dict]) -> dict:
    """By process and quantity: in the second tenth of the time, in the last one, and the slope."""
    hours = [row["hours"] for row in samples]
    result: dict = {"hours": round(hours[-1], 3), "samples": len(samples)}
    for name in samples[-1]["processes"]:
        rows = [
            (row["hours"], row["processes"][name]) for row in samples if name in row["processes"]
        ]
        for key in {key: None for _, row in rows for key in row}:  # a quantity may come later
            clock = [hours for hours, row in rows if key in row]
            values = [row[key] for _, row in rows if key in row]
            edge = max(1, len(values) // 10)
            result.setdefault(name, {})[key] = {
                "early": round(statistics.median(values[edge : 2 * edge]), 1),
                "late": round(statistics.median(values[-edge:]), 1),
                "max": round(max(values), 1),
                "per_hour": round(slope(clock, values), 2),
            }
    return result


def serves(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def aha(*words: str, folder: Path, log: str) -> Iterator[subprocess.Popen]:
    """An `aha` command in the background, asked to end at the end."""
    with (folder / log).open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "aha", *words], cwd=folder, stdout=out, stderr=out
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)


def watch(options: argparse.Namespace, folder: Path) -> tuple[list[dict], dict]:
    """The samples, and what the run and the page say at the end."""
    chromium = os.environ.get("AHA_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("This needs a Chromium: apt-get install -y chromium, or set AHA_CHROMIUM")
    port, faults, samples = free_port(), [], []
    run = ["train", options.recipe, "--name", "soak", "--steps", "1000000", "--no-dash"]
    metrics = folder / "runs" / "soak" / "metrics.jsonl"
    with ExitStack() as stack:
        train = stack.enter_context(aha(*run, folder=folder, log="train.log"))
        while not metrics.exists():
            if train.poll() is not None:
                sys.exit((folder / "train.log").read_text())
            time.sleep(1)
        serve = aha("dash", "runs", "--port", str(port), folder=folder, log="dash.log")
        dash = stack.enter_context(serve)
        playwright = stack.enter_context(sync_playwright())
        while not serves(port):
            time.sleep(0.2)
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/#/run/soak")
        started = time.time()
        try:
            while (hours := (time.time() - started) / 3600) < options.hours:
                watched = processes(train.pid, dash.pid)
                values = {name: sample(process) for name, process in watched.items()}
                samples.append({"hours": hours, "processes": values})
                file_row(options.samples, samples[-1], quiet=True)
                page.wait_for_timeout(options.every * 1000)
        except KeyboardInterrupt:
            print("stopped early", flush=True)
        browser.close()
        steps = sum(1 for _ in metrics.open())
    return samples, {"steps": steps, "page_errors": len(faults), "train_exit": train.returncode}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=float, default=3.0)
    parser.add_argument("--recipe", default="demo")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two samples")
    parser.add_argument("--samples", type=Path, help="file of JSON lines for every sample")
    parser.add_argument("--out", type=Path, help="file of JSON lines to add the row to")
    options = parser.parse_args()
    row = head("soak", (), {key: getattr(options, key) for key in ("hours", "recipe", "every")})
    with tempfile.TemporaryDirectory() as folder:
        samples, end = watch(options, Path(folder))
    row |= summary_of(samples) | end
    for name in samples[-1]["processes"]:
        mib, files = row[name]["mib"], row[name]["descriptors"]
        print(
            f"{name}: {mib['early']} -> {mib['late']} MiB ({mib['per_hour']:+} an hour), "
            f"{files['early']:.0f} -> {files['late']:.0f} descriptors"
        )
    file_row(options.out, row)


if __name__ == "__main__":
    main()
