"""The lessons: what each has to say, its first half as it stands, and all of it (slow)."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

LESSONS = sorted((Path(__file__).parent.parent.parent / "docs" / "lessons").glob("0*.py"))
STUDIES = ("priming", "corpus", "size", "search", "sharpen", "data", "task-mix")


def test_every_study_that_trains_has_a_lesson():
    assert [path.stem.split("-", 1)[1] for path in LESSONS] == list(STUDIES)


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_says_what_it_claims_and_its_first_half_runs(path, capsys, monkeypatch):
    text = path.read_text(encoding="utf-8")
    for heading in ("The claim", "What differs", "The smallest experiment", "prove it wrong"):
        assert re.search(rf"^# ## \d\. .*{heading}", text, re.MULTILINE) or heading in text
    monkeypatch.setattr(sys, "argv", [str(path), "--quick"])
    before, _, _ = text.partition("view = run_lesson(")
    names: dict = {}
    exec(compile(before, str(path), "exec"), names)
    assert names["QUICK"] and len(names["study"].cells) > 3
    assert len(capsys.readouterr().out) > 200, "it shows what the cells differ in"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_whole_lesson_runs(path, tmp_path):
    own = {"PYTHONPATH": str(path.parent.parent.parent / "src")}
    done = subprocess.run(
        [sys.executable, path, "--quick"],
        cwd=tmp_path,
        env=os.environ | own,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Claims" in done.stdout and "failed" not in done.stdout
    assert list(tmp_path.glob("runs/lessons/*/study.html"))
