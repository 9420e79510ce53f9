"""A Chromium of this machine, where there is one, and a dashboard in a process of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


def find_chromium() -> str | None:
    """AHA_CHROMIUM, or the first one that is installed."""
    found = [os.environ.get("AHA_CHROMIUM"), *map(shutil.which, NAMES), *PLACES]
    return next((path for path in found if path and Path(path).is_file()), None)


class Served:
    """`aha dash` on a free port."""

    def __init__(self, runs: Path):
        command = [sys.executable, "-m", "aha", "dash", str(runs), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.url = line.split()[2].rstrip("/")

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(20)
