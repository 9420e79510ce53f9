import json
import os

import pytest

from aha.core.errors import DataError, RunError
from aha.store.run_notes import add_note
from aha.web.runs import RunFolder, RunsFolder, cost_of, open_run

from .conftest import make_run, own


def test_runs_are_listed_newest_first_and_other_folders_are_not(run):
    newer = make_run(run.parent / "newer")
    os.utime(run, (1, 1)), os.utime(run / "metrics.jsonl", (1, 1))
    (run.parent / "notes").mkdir()
    (run.parent / ".hidden").mkdir()
    model = run.parent / "model-folder"
    model.mkdir()
    (model / "config.json").write_text("{}")
    assert RunsFolder(run.parent).names() == [newer.name, run.name]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../demo", "demo/..", "/etc", ".hidden", "a\0b", "a\\b", "x" * 5000]
)
def test_no_name_leads_out_of_the_folder(run, name):
    assert RunsFolder(run.parent).find(name) is None


def test_a_link_out_of_the_folder_is_no_run(run, tmp_path):
    outside = make_run(tmp_path / "outside")
    (run.parent / "link").symlink_to(outside)
    assert RunsFolder(run.parent).find("link") is None
    assert RunsFolder(run.parent).names() == ["demo"]
    assert RunsFolder(run.parent).left_out() == ["link"]
    assert RunsFolder(run).left_out() == []


def test_a_link_out_of_a_run_is_no_file_of_completions(run, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text('{"completion": "secret"}\n')
    (run / "completions" / "step_000099.jsonl").symlink_to(secret)
    assert RunFolder(run).completion_file("step_000099") is None


@pytest.mark.parametrize("name", ["../config", "step_1/../../x", "config", "step_", "", "step_٣"])
def test_only_files_of_completions_are_opened(run, name):
    assert RunFolder(run).completion_file(name) is None


def test_a_run_folder_itself_shows_that_run_alone(run):
    make_run(run.parent / "other")
    runs = RunsFolder(run)
    assert runs.names() == ["demo"] and runs.find("other") is None


def test_a_card_tells_how_far_and_how_good(run):
    card = RunFolder(run).card()
    assert card["status"] == "done" and card["step"] == 5 and card["solve_rate"] == 0.5
    assert card["before"]["solve_rate"] == 0.2 and card["after"]["solve_rate"] == 0.9
    assert card["task"] == "countdown, 3 numbers" and card["cost_usd"] == 0.001


def test_a_run_without_a_summary_runs_while_its_process_lives(run):
    (run / "summary.json").unlink()
    assert RunFolder(run).status() == "interrupted"
    own(run)
    assert RunFolder(run).status() == "running"
    for path in (run, run / "metrics.jsonl", run / "evals.jsonl", run / "completions"):
        os.utime(path, (1, 1))
    assert RunFolder(run).status() == "running", "a long step is no end"


def test_a_process_of_another_machine_is_quiet_when_it_writes_nothing(run):
    (run / "summary.json").unlink()
    own(run, host="elsewhere")
    assert RunFolder(run).status() == "running"
    for path in (run, run / "metrics.jsonl", run / "evals.jsonl", run / "completions"):
        os.utime(path, (1, 1))
    assert RunFolder(run).status() == "quiet"


def test_notes_of_people_are_on_the_card_as_far_as_they_can_be_seen(run):
    assert RunFolder(run).card()["notes"] == ""
    add_note(run, "a higher  rate,\nsee \u202eabove")
    add_note(run, "no better")
    first, second = RunFolder(run).card()["notes"].splitlines()
    assert first.endswith(": a higher rate, see \ufffdabove") and second.endswith(": no better")
    with pytest.raises(DataError, match="0 characters"):
        add_note(run, " \n")
    (run / "notes.md").unlink()
    (run / "notes.md").symlink_to(run.parent.parent / "secret")
    with pytest.raises(RunError, match="is a link"):
        add_note(run, "no")
    assert RunFolder(run).card()["notes"] == ""


def test_notes_say_what_is_missing_and_what_is_newer(run):
    assert RunFolder(run).notes() == []
    (run / "environment.json").write_text(json.dumps({"packages": {"aha": "99.0"}}))
    (run / "config.json").write_text("{half")
    (run / "metrics.jsonl").unlink()
    notes = " | ".join(RunFolder(run).notes())
    assert "config.json is damaged: no JSON" in notes
    assert "no step has been written" in notes and "aha 99.0, newer than this" in notes


def test_cost_of_a_running_run_is_its_machine_time():
    assert cost_of({"usd_per_hour": 0.08}, {}, 1800.0) == 0.04
    assert cost_of({}, {}, 1800.0) is None


def test_open_run_says_what_it_wanted(tmp_path):
    with pytest.raises(RunError, match="wanted a folder with config.json"):
        open_run(tmp_path)
