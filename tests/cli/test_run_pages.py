"""`aha report`, `aha compare`, `aha behaviors`, `aha dash`: what they print and refuse."""

import json
import subprocess
import sys
from itertools import count
from types import SimpleNamespace

import pytest

from aha.web.runs import RunFolder
from aha.web.ways_of_run import turn_of_run

from ..web.conftest import make_run, row, write_rows
from ..web.turning import make_turning_run


@pytest.fixture
def runs(tmp_path):
    make_run(tmp_path / "runs" / "good")
    make_run(tmp_path / "runs" / "flat", right_after=4, seed=1)
    return tmp_path / "runs"


def test_report_is_written_into_the_run(aha, runs):
    done = aha("report", "runs/good")
    assert done.code == 0 and "opens offline" in done.out
    assert (runs / "good" / "report.html").read_text().startswith("<!doctype html>")
    assert aha("report", "runs/good", "--out", "mine.html").code == 0
    assert aha("report", "runs/good", "--pin", "after:0", "--pin", "before:1").code == 0
    assert "before:1" in (runs / "good" / "report.html").read_text()


def test_compare_tells_the_interval_the_config_and_who_wins(aha, runs):
    text = aha("compare", "runs/flat", "runs/good").out
    assert all(len(line) <= 80 for line in text.splitlines()), text
    out = " ".join(text.split())
    assert "good minus flat: +70.0 points" in out and "Better" in out
    assert "seed 1 0" in out
    assert "right in good alone: 14" in out and "right in flat alone: 0" in out
    assert "3 7 25 -> 82" in out


def test_compare_without_shared_problems_says_why(aha, runs):
    (runs / "good" / "completions" / "after.jsonl").unlink()
    assert "share no held-out problem" in aha("compare", "runs/flat", "runs/good").out


def test_behaviours_of_a_run_and_of_a_file(aha, runs, tmp_path):
    out = aha("behaviors", "runs/good").out
    assert "before" in out and "step 3" in out and "after" in out
    write_rows(tmp_path / "texts.jsonl", [row(0, True), row(1, False)])
    done = aha("behaviors", "texts.jsonl", "--json")
    (line,) = [json.loads(line) for line in done.out.splitlines()]
    assert line["completions"] == 2 and line["attempts"] == 1.5 and line["backtracks_root"] == 0.5


def test_behaviours_of_a_run_tell_its_ways_of_search_and_where_they_turn(aha, tmp_path):
    run = make_turning_run(tmp_path / "runs" / "turns")
    turn = turn_of_run(RunFolder(run))
    done = aha("behaviors", "runs/turns")
    assert done.out.splitlines()[-1] == turn.sentence()
    assert max(map(len, done.out.splitlines()[:-1])) <= 80
    assert "glance" in done.out and "solve" in done.out
    rows = [json.loads(line) for line in aha("behaviors", "runs/turns", "--json").out.splitlines()]
    assert rows[-1] == {"part": "turn", "step": turn.step, "sentence": turn.sentence()}
    before, after = rows[0], rows[-2]
    assert (before["part"], after["part"]) == ("before", "after")
    assert before["way_glance"] < 0.3 < 0.7 < after["way_glance"]
    # Of a step the shares are those of its metrics, over all completions.
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    (step,) = [one for one in metrics if f"step {one['step']}" == rows[1]["part"]]
    assert rows[1]["way_by_chance"] == step["way_by_chance"]
    # A table that is too wide is cut at 80, and with it the digits of its last numbers.
    known = [row["tokens_per_solve"] for row in rows if row.get("tokens_per_solve") is not None]
    assert known and all(f"{tokens:.2f}\n" in done.out for tokens in known)


def test_behaviours_are_counted_in_all_steps_on_a_busy_machine_too(aha, runs, monkeypatch):
    late = SimpleNamespace(monotonic=count(0, 100).__next__)
    monkeypatch.setattr("aha.web.curves.time", late)
    rows = [json.loads(line) for line in aha("behaviors", "runs/good", "--json").out.splitlines()]
    steps = [row["part"] for row in rows if row["part"].startswith("step")]
    assert steps == [f"step {step}" for step in range(1, 6)]


def test_behaviours_of_completions_without_a_puzzle_have_no_ways(aha, runs):
    out = aha("behaviors", "runs/good").out
    assert out.splitlines()[-1].startswith("no turn: 5 steps")


def test_behaviours_of_a_run_whose_completions_have_gone_is_no_empty_table(aha, runs):
    for file in (runs / "good" / "completions").iterdir():
        file.unlink()
    done = aha("behaviors", "runs/good")
    assert done.code == 2 and not done.out
    assert "no completion of a puzzle in" in done.err and "completions anew" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ("report", "none"),
        ("report", "runs/good", "--out", "none/report.html"),
        ("report", "runs/good", "--pin", "after:999"),
        ("compare", "runs/good", "none"),
        ("behaviors", "none"),
        ("behaviors", "empty.jsonl"),
        ("dash", "none"),
        ("dash", "runs", "--port", "99999"),
        ("dash", "runs", "--host", "no.such.host.invalid"),
    ],
)
def test_what_cannot_be_is_one_line_and_code_2(aha, runs, tmp_path, words):
    (tmp_path / "empty.jsonl").write_text("{}\n")
    done = aha(*words)
    assert done.code == 2 and done.err.startswith("aha: ") and len(done.err.splitlines()) == 1


def test_a_run_without_its_folder_is_named_with_it(aha, runs):
    done = aha("report", "good")
    assert done.code == 2 and "no run in good" in done.err and "fix: use runs/good" in done.err
    assert "see `ls runs`" in aha("report", "none").err


def test_watching_loads_no_torch():
    rooms = "aha.cli.dash, aha.cli.chat, aha.cli.compare, aha.cli.report, aha.cli.behaviors"
    rooms += ", aha.cli.serve, aha.web.server"
    code = f"import {rooms}, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
