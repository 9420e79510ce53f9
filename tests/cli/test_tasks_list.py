"""`aha tasks`: packaged tasks, and those of installed packages with version and licence."""

import json
import sys

import pytest

METADATA = """\
Metadata-Version: 2.4
Name: my-puzzles
Version: 1.2
Summary: Puzzles of mine
License-Expression: MIT
"""


@pytest.fixture
def other_package(tmp_path, monkeypatch):
    """A package of somebody else, as pip leaves it."""
    folder = tmp_path / "site" / "my_puzzles-1.2.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(METADATA)
    (folder / "entry_points.txt").write_text("[aha.tasks]\nmine = my_puzzles:Task\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])


def test_tasks_are_listed_with_a_sentence_version_and_licence(aha, other_package):
    rows = [json.loads(line) for line in aha("tasks", "--json").out.splitlines()]
    by_name = {row["task"]: row for row in rows}
    assert by_name.keys() >= {"countdown", "multiply", "math", "gym:NAME", "mine"}
    assert by_name["mine"] == {
        "task": "mine",
        "what": "Puzzles of mine",
        "package": "my-puzzles",
        "version": "1.2",
        "licence": "MIT",
    }
    assert by_name["countdown"]["what"].startswith("Countdown: reach a target")
    text = aha("tasks").out
    assert "my-puzzles 1.2 MIT" in text and "aha new-task NAME" in text
