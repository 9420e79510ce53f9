"""From answers to examples: graded, chosen, mixed, kept apart from tests."""

import json

import pytest

from aha.core.errors import ConfigError, DataError
from aha.distill.contamination import HeldOutQuestions
from aha.distill.problem_rows import problem_of, problem_row
from aha.distill.rejection import check_share, choose, grade_all, keep_from_tests, mix
from aha.tasks.countdown import Countdown
from aha.tasks.math_files import MathFiles

TASK = Countdown()
PROBLEMS = [problem for _, problem in zip(range(3), TASK.problems("train", 0), strict=False)]


def answer(place: int, text: str | None = None, finish: str = "stop", member: int = 0) -> dict:
    problem = PROBLEMS[place]
    text = TASK.solve(problem) if text is None else text
    row = {"problem": json.loads(json.dumps(problem_row(problem))), "text": text}
    return row | {"finish": finish, "member": member, "tokens": len(text), "teacher": "t"}


def test_right_answers_are_examples_and_the_others_are_counted():
    wrong = "</think>\n<answer>1+1</answer>"
    rows = [answer(0), answer(1, wrong), answer(2, finish="length"), answer(2, " ")]
    stage = grade_all(rows, TASK, True, {})
    assert stage.dropped == {"wrong": 1, "truncated": 1, "empty": 1}
    assert "1" in stage.first["wrong"]
    (example,) = stage.rows
    assert example["prompt"] == TASK.ask(PROBLEMS[0]) and example["correct"] is True
    # Through JSON and back it is the same problem.
    again = problem_of(json.loads(json.dumps(example)), "countdown")
    assert problem_row(again) == json.loads(json.dumps(problem_row(PROBLEMS[0])))
    assert TASK.ask(again) == example["prompt"] and TASK.grade(again, example["completion"]).correct
    kept = grade_all(rows, TASK, False, {one.id: one for one in PROBLEMS})
    assert [row["correct"] for row in kept.rows] == [True, False]


def test_nothing_left_is_an_error_with_the_reasons():
    with pytest.raises(DataError, match=r"none of 1 answers .* 1 wrong .*--rewrite rule"):
        grade_all([answer(0, "no")], TASK, True, {})


def examples(*texts: tuple[int, str]) -> list[dict]:
    return [
        {"id": "a", "completion": text, "tokens": tokens, "member": n, "correct": True}
        for n, (tokens, text) in enumerate(texts)
    ]


def test_the_shortest_of_a_problem_and_none_twice():
    rows = examples((9, "long"), (3, "short"), (9, "long "), (5, "middle"))
    stage = choose(rows, "shortest", 1)
    assert [row["completion"] for row in stage.rows] == ["short"]
    assert stage.dropped == {
        "that repeat an answer": 1,
        "more than enough for their problem": 2,
    }
    assert [row["completion"] for row in choose(rows, "first", 0).rows] == [
        "long",
        "short",
        "middle",
    ]
    rows[1]["correct"] = False
    assert choose(rows, "shortest", 1).rows[0]["completion"] == "middle"


def test_other_examples_are_mixed_in(tmp_path):
    path = tmp_path / "others.jsonl"
    others = [{"prompt": f"{n}", "completion": "x"} for n in range(10)] + [{"prompt": "none"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in others))
    rows = examples(*((1, str(n)) for n in range(6)))
    whole = mix(rows, [path], None, 0)
    assert len(whole.rows) == 16 and whole.added == 10
    assert whole.dropped == {"without an answer": 1} and whole.rows != rows + others[:10]
    part = mix(rows, [path], 0.25, 0)
    assert part.added == 2 and part.rows == mix(rows, [path], 0.25, 0).rows
    with pytest.raises(DataError, match="10 rows to mix in, for a share of 0.9"):
        mix(rows, [path], 0.9, 0)
    for share, files in ((0.0, [path]), (1.0, [path]), (0.5, [])):
        with pytest.raises(ConfigError, match="--mix-share"):
            check_share(share, files)


def test_tests_are_kept_out_whatever_the_file(tmp_path):
    test = TASK.ask(next(TASK.problems("test", 0)))
    rows = [
        {"prompt": test, "completion": "x"},
        {"messages": [{"role": "user", "content": test}, {"role": "assistant", "content": "x"}]},
        {"prompt": "something else", "completion": "x"},
        *grade_all([answer(0)], TASK, True, {}).rows,
    ]
    stage = keep_from_tests(rows, HeldOutQuestions.of(TASK, 0, 3), TASK)
    assert len(stage.rows) == 2 and stage.dropped == {"with a held-out problem": 2}
    with pytest.raises(DataError, match="2 with a held-out problem"):
        keep_from_tests(rows[:2], HeldOutQuestions.of(TASK, 0, 3), TASK)


def test_a_test_of_a_file_among_the_examples(tmp_path):
    path = tmp_path / "questions.jsonl"
    questions = [
        {
            "question": f"How much is {n} apples and {n * n} pears together in the end?",
            "answer": "1",
        }
        for n in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in questions))
    task = MathFiles(path)
    test = next(task.problems("test", 0))
    rows = [{"prompt": f"Q: {test.given['question']}", "completion": "x"}]
    rows += [{"prompt": "another question altogether", "completion": "x"}]
    stage = keep_from_tests(rows, HeldOutQuestions.of(task, 0, 5), task)
    assert len(stage.rows) == 1 and stage.dropped.total() == 1
