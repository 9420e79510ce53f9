"""Windows gets one line, and no import that fails there."""

import subprocess
import sys

LINES = """
import sys
sys.platform = "win32"
sys.modules["resource"] = None  # Windows has none, and an import of it would be an error
from aha.cli.entry import main
main()
"""


def test_windows_is_one_clear_line():
    done = subprocess.run([sys.executable, "-c", LINES], capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "fix: WSL" in done.stderr


def test_elsewhere_it_is_the_command_line():
    words = [sys.executable, "-c", "from aha.cli.entry import main; main()", "--version"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip()[0].isdigit(), done.stderr
