"""docs/commands.md and docs/config.md say what the code says: scripts/reference_pages.py."""

import subprocess
import sys
from pathlib import Path

from aha.core.config import known_keys

ROOT = Path(__file__).resolve().parents[1]


def test_the_pages_are_those_that_the_script_writes():
    """In a process of its own: other tests register algorithms in this one."""
    script = ROOT / "scripts" / "reference_pages.py"
    done = subprocess.run([sys.executable, script, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, (
        f"run: python scripts/reference_pages.py\n{done.stdout}{done.stderr}"
    )


def test_every_command_and_every_parameter_is_explained():
    page = (ROOT / "docs" / "commands.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert len(rows) > 100 and not [row for row in rows if row.split(" | ")[1].strip() == ""]


def test_every_key_is_on_its_page_with_a_meaning():
    page = (ROOT / "docs" / "config.md").read_text()
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert list(rows) and set(rows) == set(known_keys())
    assert all(row.split(" | ")[-1].strip(" |") for row in rows.values())
