"""What a newcomer meets: `aha` alone, and the commands that it prints."""

import json
import os
import sys
from pathlib import Path

from cyclopts import CycloptsError

from aha.cli.first_steps import next_commands
from aha.cli.main import app
from aha.distill.distill_job import JOB


def make_run(path: Path, finished: bool, time: float) -> None:
    path.mkdir(parents=True)
    names = ["config.json", *(["summary.json"] if finished else [])]
    for name in names:
        (path / name).write_text("{}")
        os.utime(path / name, (time, time))


def printed_commands(text: str) -> list[list[str]]:
    return [line.split("  ")[1].split()[1:] for line in text.splitlines() if line[:6] == "  aha "]


def test_aha_alone_says_what_it_is_and_where_to_begin(aha, tmp_path):
    done = aha()
    assert done.code == 0 and done.err == "" and list(tmp_path.iterdir()) == []
    assert done.out.startswith("Trains a language model") and "newest run" not in done.out
    commands = printed_commands(done.out)
    assert [words[0] for words in commands][:4] == ["demo", "train", "recipes", "tasks"]
    assert all(len(line) <= 80 for line in done.out.splitlines()[1:])
    for words in commands[:-1]:  # the last one is --help, which cyclopts prints by itself
        try:
            app.parse_args(words, exit_on_error=False, print_error=False)
        except CycloptsError as error:
            raise AssertionError(words) from error


def test_it_goes_on_with_the_newest_run(aha, tmp_path):
    make_run(tmp_path / "runs" / "old", finished=False, time=1000)
    make_run(tmp_path / "runs" / "new", finished=True, time=2000)
    (tmp_path / "runs" / "notes").mkdir()
    assert "aha chat runs/new" in aha().out
    os.utime(tmp_path / "runs" / "old" / "config.json", (3000, 3000))
    text = aha().out
    assert "Your newest run is runs/old" in text and "aha train --resume runs/old" in text


def test_a_stopped_distillation_goes_on_with_its_own_command(aha, tmp_path):
    """`aha train --resume` would leave out the test after the training."""
    make_run(tmp_path / "runs" / "student", finished=False, time=1000)
    (tmp_path / "data" / "student").mkdir(parents=True)
    (tmp_path / "data" / "student" / JOB).write_text("{}")
    last = aha().out.splitlines()[-1]
    assert last.strip() == "the command that began it, with --name student"


def test_runs_that_is_a_file_is_no_run(aha, tmp_path):
    (tmp_path / "runs").write_text("")
    assert aha().code == 0


def test_what_comes_next_depends_on_whether_the_run_is_finished(tmp_path, monkeypatch):
    make_run(tmp_path / "done", finished=True, time=0)
    make_run(tmp_path / "stopped", finished=False, time=0)
    monkeypatch.setattr(sys, "argv", ["aha"])
    commands = [f"aha chat {tmp_path}/done", f"aha report {tmp_path}/done", "aha dash"]
    assert next_commands(tmp_path / "done") == commands
    assert next_commands(tmp_path / "stopped") == [f"aha train --resume {tmp_path}/stopped"]


def test_the_recipes_are_listed_each_with_a_sentence(aha):
    rows = [json.loads(line) for line in aha("recipes", "--json").out.splitlines()]
    by_name = {row["recipe"]: row for row in rows}
    assert len(rows) > 30 and all(len(row["what"]) > 20 for row in rows)
    assert by_name["demo"]["measured"] and not by_name["laptop-8gb"]["measured"]
    # A full stop within a name or a number ends no sentence.
    assert by_name["tinyzero-0.5b"]["what"].endswith("on Qwen2.5-0.5B (base)")
    assert by_name["grpo"]["method"] and not by_name["demo"]["method"]
    text = aha("recipes").out
    assert all(f"\n{name} " in text for name in by_name)
    assert all(len(line.rstrip()) <= 80 for line in text.splitlines())
