"""The script that files a study: what it copies, and what it refuses."""

import importlib.util
import json
import sys

import pytest

from aha.studies import cell_files

from ..pages import ROOT
from .test_study_frame import Sums, run


@pytest.fixture(scope="module")
def script():
    """scripts/file_study.py as a module."""
    spec = importlib.util.spec_from_file_location("file_study", ROOT / "scripts/file_study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_finished_study_is_filed_with_the_times_of_its_cells(script, tmp_path):
    run(Sums(1, 2), tmp_path / "out")
    script.file_study("sums", tmp_path / "out", tmp_path / "filed")
    rows = [json.loads(line) for line in (tmp_path / "filed" / "cells.jsonl").open()]
    assert [row["cell"] for row in rows] == ["n1", "n2"] and rows[1]["result"] == {"sum": 12}
    assert all(row["planned_seconds"] == 2.0 and len(row["tries"]) == 1 for row in rows)
    assert (tmp_path / "filed" / "study.html").is_file()


def test_a_page_that_is_written_again_has_the_commits_of_its_cells(tmp_path, monkeypatch):
    for name, study in (("first", Sums(1)), ("second", Sums(1, 2))):
        monkeypatch.setattr(cell_files, "commit", lambda name=name: name)
        run(study, tmp_path)
    monkeypatch.setattr(cell_files, "commit", lambda: "third")
    run(Sums(1, 2), tmp_path)  # nothing to do
    content = json.loads((tmp_path / "study.json").read_text())
    assert content["commits"] == ["first", "second"]
    assert "commit first and second" in (tmp_path / "study.html").read_text()


def test_what_is_not_done_and_a_smoke_run_are_not_filed(script, tmp_path, monkeypatch):
    run(Sums(1, 2, broken=(2,)), tmp_path / "out")
    with pytest.raises(SystemExit, match="is not done: n2"):
        script.file_study("sums", tmp_path / "out", tmp_path / "filed")
    assert not (tmp_path / "filed").exists()
    monkeypatch.setattr(sys, "argv", ["file_study.py", "priming", "--quick"])
    with pytest.raises(SystemExit, match="smoke run"):
        script.main()


def test_what_a_cell_has_of_every_problem_is_named_and_not_filed(script):
    many = [True] * (script.LONGEST + 1)
    record = {"cell": "n1", "seconds": 2.0, "result": {"right": many, "few": many[1:], "rate": 0.5}}
    filed = script.shortened(record)
    assert filed == {
        "cell": "n1",
        "seconds": 2.0,
        "result": {"few": many[1:], "rate": 0.5},
        "left_in_cells": ["right"],
    }
    assert "right" in record["result"]
    whole = {"cell": "n2", "result": {"rate": 0.5}}
    assert script.shortened(whole) == whole
