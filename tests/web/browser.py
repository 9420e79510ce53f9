"""A Chromium of this machine, where there is one, and a dashboard in a process of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import expect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)


def find_chromium() -> str | None:
    """AHA_CHROMIUM, or the first one that is installed."""
    found = [os.environ.get("AHA_CHROMIUM"), *map(shutil.which, NAMES), *PLACES]
    return next((path for path in found if path and Path(path).is_file()), None)


CHROMIUM = find_chromium()
NO_CHROMIUM = "no Chromium found: apt-get install -y chromium, or set AHA_CHROMIUM"
PATIENCE_MS = 60_000
expect.set_options(timeout=PATIENCE_MS)  # a model has to be opened first, torch before it


class Visit:
    """A page that remembers what it asked for and what went wrong."""

    def __init__(self, page, url: str):
        self.page, self.url = page, url
        self.asked: list[str] = []
        self.faults: list[str] = []
        page.set_default_timeout(PATIENCE_MS)
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._console)

    def _console(self, message) -> None:
        if message.type == "error":
            self.faults.append(message.text)

    def go(self, path: str):
        self.page.goto(f"{self.url}/{path}")
        return self.page

    def check(self) -> None:
        """Nothing went wrong, and no request left the machine."""
        assert not self.faults, self.faults
        ours = (self.url, "data:", "file:")
        strangers = [one for one in self.asked if not one.startswith(ours)]
        assert not strangers, f"left the machine: {strangers}"


class Served:
    """`aha dash` on a free port."""

    def __init__(self, runs: Path):
        command = [sys.executable, "-m", "aha", "dash", str(runs), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        self.url = line.split()[2].rstrip("/")

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(60)
