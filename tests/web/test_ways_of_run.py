"""The ways of a run from its metrics, and from its completions where the metrics lack them."""

import json
from pathlib import Path

import pytest

from aha.behaviors.turn import NoTurn, Turn
from aha.web.curves import Curves
from aha.web.runs import RunFolder
from aha.web.turn_view import turn_of_curves
from aha.web.ways_of_run import count_groups, turn_of_run, way_rows

LOOK = "24+1=25\n24-1=23\n24+3=27\n24-3=21\n24*3=72\n72+1=73 yes\n</think>"
GUESS = "</think>\n<answer>24+1</answer>"


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def completion(text: str, group: int) -> dict:
    puzzle = {"numbers": [24, 1, 3], "target": 73}
    return {**puzzle, "group": group, "completion": text, "correct": text == LOOK, "tokens": 40}


@pytest.fixture
def old_run(tmp_path) -> RunFolder:
    """Twelve steps without the columns; from step 7 on all completions search with a look."""
    write(tmp_path / "metrics.jsonl", [{"step": s, "solve_rate": 0.5} for s in range(1, 13)])
    for step in range(1, 13):
        text = LOOK if step >= 7 else GUESS
        rows = [completion(text, group) for group in range(8) for _ in range(4)]
        write(tmp_path / f"completions/step_{step:06d}.jsonl", rows)
    return RunFolder(tmp_path)


def test_an_old_run_is_read_from_its_completions(old_run):
    rows = way_rows(old_run)
    assert [(row["step"], row["groups"], row["way_look"]) for row in rows] == [
        (step, 8, float(step >= 7)) for step in range(1, 13)
    ]
    assert rows[-1]["tokens_per_solve"] == 40 and "tokens_per_solve" not in rows[0]
    turn = turn_of_run(old_run)
    assert isinstance(turn, Turn) and (turn.step, turn.way, turn.before) == (7, "look", "none")


def test_the_columns_of_the_metrics_come_first(old_run):
    rows = [{**row, "way_look": 0.0, "way_none": 1.0} for row in way_rows(old_run)]
    write(old_run.path / "metrics.jsonl", rows)
    assert way_rows(old_run) == rows
    assert isinstance(turn_of_run(old_run), NoTurn)


def test_a_run_that_an_older_version_began_is_read_from_both(old_run):
    """Resumed at step 9: the steps before it have no columns."""
    whole, turn = way_rows(old_run), turn_of_run(old_run)
    rows = [row if row["step"] >= 9 else {"step": row["step"]} for row in whole]
    write(old_run.path / "metrics.jsonl", rows)
    assert way_rows(old_run) == whole
    assert isinstance(turn, Turn) and turn_of_run(old_run) == turn
    curves = Curves(old_run)
    curves.refresh()
    assert turn_of_curves(curves, running=False) == {"words": ""}


def test_a_run_without_either_has_none(tmp_path):
    write(tmp_path / "metrics.jsonl", [{"step": 1, "solve_rate": 0.5}])
    write(tmp_path / "completions/step_000001.jsonl", [{"completion": "no puzzle"}])
    assert way_rows(RunFolder(tmp_path)) == []
    assert turn_of_run(RunFolder(tmp_path)) is None
    assert turn_of_run(RunFolder(tmp_path / "none")) is None


def test_groups_are_counted():
    assert count_groups([]) == 0
    assert count_groups([{"group": 0}, {"group": 0}, {"group": 1}]) == 2
    assert count_groups([{"prompt": "a"}, {"prompt": "a"}, {"prompt": "b"}]) == 2
