"""Problems as JSON lines: written, read again, and graded in order."""

import json

import pytest

from aha.core.errors import DataError
from aha.tasks.catalog import make_task
from aha.tasks.countdown import Countdown, as_problem
from aha.tasks.problem_lines import (
    grade_lines,
    problem_row,
    read_problem,
)


def line(**row) -> bytes:
    return json.dumps(row).encode()


def test_a_problem_is_read_as_it_was_written():
    task = make_task("multiply", {"digits": 2})
    problem = next(iter(task.problems("test", 0)))
    again, row = read_problem(line(**problem_row(problem)), "multiply", "line 1", 1)
    assert dict(again.given) == dict(problem.given) and again.id == problem.id
    assert row == problem_row(problem)


def test_countdown_shows_numbers_and_target_alone():
    row = problem_row(as_problem((3, 7, 25), 82, ways=4))
    assert row == {"id": "countdown/3-7-25=82", "numbers": [3, 7, 25], "target": 82}


def test_empty_lines_count_in_the_numbers_and_get_no_verdict():
    right = line(numbers=[3, 7, 25], target=82, completion="<answer>3*25+7</answer>")
    verdicts = grade_lines(Countdown(), "countdown", [right, b"\n", right, b"{"])
    assert [next(verdicts).correct, next(verdicts).correct] == [True, True]
    with pytest.raises(DataError, match="line 4"):
        next(verdicts)


def test_a_line_that_is_no_problem_of_the_task_names_the_command_that_prints_one():
    task = make_task("multiply", {})
    with pytest.raises(DataError, match="aha problems --task multiply"):
        list(grade_lines(task, "multiply", [line(completion="<answer>1</answer>")]))


def test_a_line_without_a_completion_is_an_error_for_every_task(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(line(question="a", answer="1"))
    for name, settings in (("countdown", {}), ("multiply", {}), ("math", {"data": path})):
        task = make_task(name, settings)
        split = "all" if name == "math" else "train"
        row = problem_row(next(iter(task.problems(split, 0))))
        with pytest.raises(DataError, match="line 1 without a completion"):
            list(grade_lines(task, name, [line(**row)]))


def test_a_line_without_a_true_answer_is_an_error(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(line(question="a", answer="1"))
    task = make_task("math", {"data": path})
    for answer in (float("nan"), None, "", "nan"):
        with pytest.raises(DataError, match="line 1: a problem with the answer"):
            list(grade_lines(task, "math", [line(question="?", answer=answer, completion="x")]))
