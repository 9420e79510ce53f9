"""The lessons: what each has to say, its first half as it stands, and all of it (slow)."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from aha.cli.training_studies import study_of
from aha.core.errors import RunError
from aha.studies.lesson_view import run_lesson, table_text
from aha.studies.study_page import StudyTable
from aha.studies.training_results import Outcomes
from aha.studies.training_study import claims_table

from .test_study_frame import Sums

ROOT = Path(__file__).parent.parent.parent
BREAKS = sorted((ROOT / "docs" / "lessons").glob("*-break-*.py"))
LESSONS = sorted({*(ROOT / "docs" / "lessons").glob("[0-9]*.py")} - {*BREAKS})
STUDIES = ("priming", "corpus", "size", "search", "sharpen", "data", "task-mix", "thinking")


def test_every_study_has_a_lesson():
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
    assert names["QUICK"] and len(names["study"].cells) >= 3
    assert len(capsys.readouterr().out) > 200, "it shows what the cells differ in"


def test_a_table_in_a_terminal_says_what_differs_between_its_lines():
    """The claims of all studies stand there whole; what is cut says so."""
    for name in STUDIES[:-1]:
        study = study_of(name, "0", True)
        shown = table_text(claims_table(study.claims(Outcomes(study.conditions, (0,), {}))))
        assert "..." not in shown, name
    point = "pass@k of short ones, 16 of at most 16"
    table = StudyTable("Points", ("setting",), [(point,), ("x" * 60,)])
    assert table_text(table).splitlines()[2:] == [point, "x" * 45 + "..."]


def test_a_lesson_whose_folder_is_of_other_settings_names_a_fix_that_works(tmp_path):
    """As after another version: a lesson has no `--out`."""
    out = tmp_path / "a lesson"
    run_lesson(Sums(1), str(out))
    with pytest.raises(RunError, match="made with shared 10, and not 11") as raised:
        run_lesson(Sums(1, shared=11), str(out))
    subprocess.run(raised.value.fix, shell=True, check=True)
    assert run_lesson(Sums(1, shared=11), str(out)).failed == {}


def test_the_words_of_a_notebook_are_no_models(monkeypatch):
    path = ROOT / "docs" / "lessons" / "11-thinking.py"
    settings, _, _ = path.read_text(encoding="utf-8").partition("# ## 1. The claim")
    for words, models in (
        (["ipykernel_launcher.py", "-f", "kernel-1.json"], ["aha-tiny"]),
        ([str(path), "--quick", "aha-tiny", "runs/demo"], ["aha-tiny", "runs/demo"]),
    ):
        monkeypatch.setattr(sys, "argv", words)
        names: dict = {}
        exec(compile(settings, str(path), "exec"), names)
        assert names["MODELS"] == models and names["QUICK"] == ("--quick" in words)


def run_quickly(path: Path, folder: Path) -> str:
    """What a lesson prints."""
    own = {"PYTHONPATH": str(ROOT / "src")}
    words = [sys.executable, path, "--quick"]
    done = subprocess.run(
        words, cwd=folder, env=os.environ | own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_whole_lesson_runs(path, tmp_path):
    out = run_quickly(path, tmp_path)
    assert ("Claims" in out or "control, scaling" in out) and " failed: " not in out
    assert list(tmp_path.glob("runs/lessons/*/study.html"))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("path", BREAKS, ids=lambda path: path.stem)
def test_the_doctor_names_what_an_exercise_breaks(path, tmp_path):
    """The exercise itself asserts it."""
    named = re.search(r'NAMED_BY = "(\w+)"', path.read_text(encoding="utf-8"))[1]
    assert re.search(rf"^(warn|fail) {named}: ", run_quickly(path, tmp_path), re.MULTILINE)
