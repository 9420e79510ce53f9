import pytest

from aha.web.completions import IndexCache
from aha.web.run_comparison import (
    compare_before_after,
    compare_files,
    compare_runs,
    config_differences,
    flatten,
    history_page,
)
from aha.web.runs import RunFolder

from .conftest import row, write_rows


def test_before_and_after_are_paired_by_problem(run):
    found = compare_before_after(RunFolder(run))
    assert found.rates() == (0.2, 0.9) and found.gain == pytest.approx(0.7)
    assert (len(found.won), len(found.lost), found.unmatched) == (16, 2, 0)
    low, high = found.interval
    assert 0 < low < found.gain < high and found.verdict == "better"
    assert all(new["correct"] and not old["correct"] for old, new in found.won)


def test_no_difference_is_no_evidence(run):
    found = compare_runs(RunFolder(run), RunFolder(run))
    assert found.gain == 0 and found.verdict == "no evidence"


def test_problems_of_one_side_only_are_counted_and_left_out(tmp_path):
    write_rows(tmp_path / "a.jsonl", [row(i, True) for i in range(5)])
    write_rows(tmp_path / "b.jsonl", [row(i, False) for i in range(3, 9)])
    found = compare_files(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    assert (found.problems, found.unmatched, found.verdict) == (2, 7, "worse")


def test_without_shared_problems_there_is_no_comparison(tmp_path):
    write_rows(tmp_path / "a.jsonl", [row(0, True)])
    write_rows(tmp_path / "b.jsonl", [row(1, True), {"id": None}])
    assert compare_files(tmp_path / "a.jsonl", tmp_path / "b.jsonl") is None
    assert compare_files(None, tmp_path / "b.jsonl") is None


def test_the_history_has_the_problems_of_the_gain(tmp_path):
    """Long ids that begin alike are different problems; rows without an id are none."""
    run = RunFolder(tmp_path)
    for name, correct in (("before", False), ("after", True)):
        rows = [row(i, correct, id="q" * 250 + str(i)) for i in range(10)]
        rows += [row(20, correct, id=None), row(21, correct, id="\ud800")]
        write_rows(tmp_path / "completions" / f"{name}.jsonl", rows)
    history = history_page(run, IndexCache(), "test", "learnt", 0)
    assert history["problems"] == history["matching"] == compare_before_after(run).problems == 11
    assert history["faults"][0] == "completions/before.jsonl: 1 rows without a problem's id"


def test_config_differences_name_the_key_and_both_values():
    first = {"seed": 0, "optim": {"lr": 3e-4}, "show_every": 1, "old": True}
    second = {"seed": 0, "optim": {"lr": 1e-4, "warmup": 5}, "show_every": 9}
    assert config_differences(first, second) == [
        ("optim.lr", 3e-4, 1e-4),
        ("old", True, None),
        ("optim.warmup", None, 5),
    ]
    assert flatten({"a": {"b": {"c": [1]}}}) == {"a.b.c": [1]}
