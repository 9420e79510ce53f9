"""Records of a run as entries: names, order, tables."""

import json

from aha.loggers.run_rows import COLUMNS, TABLE_ROWS, TEXT_CHARS, RunRows, cell
from aha.store.run_folder import append

from .runs import BEFORE, new_run, write_step, write_validation


def test_entries_come_by_step_and_each_once(tmp_path):
    run = new_run(tmp_path / "first")
    rows = RunRows(run)
    assert rows.new() == []
    run.write("before.json", BEFORE)
    for step in (1, 2):
        write_step(run, step)
    write_validation(run, 2)
    write_validation(run, 1)
    kinds = [(entry.step, entry.kind) for entry in rows.new()]
    assert kinds == [
        *((0, "before"), (1, "step"), (1, "validation"), (2, "step"), (2, "validation"))
    ]
    assert rows.new() == []
    run.write("after.json", BEFORE)
    assert [(entry.step, entry.kind) for entry in rows.new()] == [(2, "after")]


def test_numbers_have_our_names_and_those_of_trl(tmp_path):
    run = new_run(tmp_path / "first")
    write_step(run, 1, lr=0.1, entropy=None, kl=float("nan"))
    write_validation(run, 1)
    run.write("before.json", BEFORE)
    before, step, validation = (entry.numbers for entry in RunRows(run).new())
    assert step == {
        **{"step": 1, "reward": 0.1, "mean_tokens": 15.0, "truncated": 0.0, "loss": 0.5, "lr": 0.1},
        "train/global_step": 1,
        "train/reward": 0.1,
        "train/completions/mean_length": 15.0,
        "train/completions/clipped_ratio": 0.0,
        "train/loss": 0.5,
        "train/learning_rate": 0.1,
    }
    assert validation == {
        "validation/step": 1,
        "validation/mean_tokens": 12.0,
        "validation/solve_rate": 0.25,
        "validation/interval_low": 0.1,
        "validation/interval_high": 0.4,
        "validation/behaviors/attempts": 1.5,
        "eval/completions/mean_length": 12.0,
    }
    assert before["test/before/solve_rate"] == 0.25 and before.keys() <= {
        *("test/before/solve_rate", "test/before/interval_low", "test/before/interval_high"),
        "test/before/behaviors/attempts",
    }


def test_histograms_have_every_completion_and_tables_whole_groups(tmp_path):
    run = new_run(tmp_path / "first")
    write_step(run, 1, group_size=30)
    (entry,) = RunRows(run).new()
    assert len(entry.histograms["completion_rewards"]) == 90
    assert sorted(set(entry.histograms["completion_tokens"])) == [5, 15, 25]
    assert len(entry.table) == 60  # two groups of 30; the third would be cut
    assert {row[COLUMNS.index("group")] for row in entry.table} == {0, 1}
    assert entry.table[1][COLUMNS.index("advantage")] == 0.5
    write_step(run, 2, group_size=TABLE_ROWS + 5)
    later = RunRows(run).new()[-1]
    assert len(later.table) == TABLE_ROWS  # one group that is too large is cut


def test_missing_completions_leave_the_numbers(tmp_path):
    run = new_run(tmp_path / "first")
    append(run.metrics, [{"step": 1, "reward": 0.5}])
    (entry,) = RunRows(run).new()
    assert entry.table == [] and entry.histograms == {} and entry.numbers["reward"] == 0.5


def test_rows_of_somebody_else_are_no_fault(tmp_path):
    run = new_run(tmp_path / "first")
    lines = ["[1]", "no JSON", json.dumps({"reward": 1}), json.dumps({"step": "x"}), '{"step": 2}']
    run.metrics.write_text("\n".join(lines) + "\n")
    assert [entry.step for entry in RunRows(run).new()] == [2]


def test_cells_are_what_a_tracker_can_write():
    assert cell("x" * TEXT_CHARS) == "x" * TEXT_CHARS
    assert len(cell("x" * (TEXT_CHARS + 1))) == TEXT_CHARS
    assert cell("\ud800") == "?" and cell([1, 2]) == "[1, 2]" and cell(float("inf")) is None
    assert cell(True) is True and cell(None) is None and cell(3) == 3
