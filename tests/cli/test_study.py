"""`aha study`: plans, errors, and a whole small study."""

import json

import pytest

from ..tiny import answering_folder


@pytest.fixture
def model(tmp_path):
    return answering_folder(tmp_path / "tiny")


def test_a_whole_study_and_the_same_command_again(aha, model, tmp_path):
    words = ("study", "thinking", model, "--n", 4, "--seeds", "0", "--budgets", "0,8")
    words += ("--waits", "1", "--completions", 2, "--max-new-tokens", 40, "--out", "study")
    done = aha(*words)
    assert done.code == 0, done.err
    assert "1/6  0-tiny-free-seed0" in done.out and "no verdict: fewer than 3" in done.out
    report = json.loads((tmp_path / "study" / "study.json").read_text())
    assert report["results"]["tiny"]["metrics"]["maximum"]["control"] == 1.0
    again = aha(*words)
    assert again.code == 0 and "1/6" not in again.out and "0 of 6 cells to do" in again.out
    other = aha(*words, "--n", 5)
    assert other.code == 2


def test_a_dry_run_says_time_and_money_and_does_nothing(aha, model, tmp_path):
    done = aha("study", "thinking", model, "--n", 5, "--quick", "--dry-run", "--out", "study")
    assert done.code == 0, done.err
    assert "23 of 23 cells to do, about" in done.out
    assert "0-tiny-free-seed0: " in done.out and "cents" in done.out and "kWh" in done.out
    assert not (tmp_path / "study").exists()


def test_the_whole_study_is_not_refused_after_a_smoke_run(aha, model, tmp_path):
    """As docs/studies.md has the two commands, one after the other."""
    words = ("study", "thinking", model, "--n", 2, "--seeds", "0", "--budgets", "0,4")
    words += ("--waits", "1", "--max-new-tokens", 40)
    assert aha(*words, "--completions", 1, "--quick").code == 0
    whole = aha(*words, "--completions", 2, "--dry-run")
    assert whole.code == 0 and "6 of 6 cells to do" in whole.out
    studies = tmp_path / "runs" / "studies"
    assert [path.name for path in studies.iterdir()] == ["thinking-quick"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--budgets", "4,x"), "--budgets 16,64"),
        (("--seeds", "0,0"), "each once"),
        (("--budgets", "4,300"), "--max-new-tokens 332"),
        (("--max-new-tokens", "20"), "for the answer"),
        # What every cell would refuse: a begun one would keep it, and refuse what is right.
        (("--options", 'template = "foo"'), "one of plain, r1, instruct"),
        (("--options", "foo = 3"), "foo"),
        (("--numbers", "9"), "9"),
        (("--task", "nonsense"), "nonsense"),
        (("--split", "all"), "all"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_folder(aha, model, tmp_path, words, message):
    done = aha("study", "thinking", model, *words, "--out", "study")
    assert done.code == 2 and message in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "study").exists()


def test_no_model_is_one_line(aha):
    done = aha("study", "thinking")
    assert done.code == 2 and done.err.count("\n") == 1


def test_a_study_that_trains_is_planned_and_refuses_bad_input(aha, tmp_path):
    done = aha("study", "priming", "--dry-run")
    assert done.code == 0, done.err
    assert "28 of 28 cells to do, about" in done.out and "wrong-only-seed2: " in done.out
    assert not (tmp_path / "runs").exists()
    for words, message in ((("--seeds", "0,0"), "each once"), (("--seeds", "x"), "whole numbers")):
        done = aha("study", "data", "--dry-run", *words)
        assert done.code == 2 and message in done.err and done.err.count("\n") == 1
