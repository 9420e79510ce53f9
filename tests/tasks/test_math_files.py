"""Questions from a file: which answer counts, and when it is right."""

import json
import sys

import pytest

from aha.core.errors import ConfigError, DataError, MissingExtra
from aha.core.records import Problem
from aha.tasks.math_files import MathFiles, split_of

ROWS = [
    {"question": f"What is {n} and {n}?", "answer": f"{n}+{n}={2 * n}\n#### {2 * n}"}
    for n in range(400)
]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def problem(answer: str) -> Problem:
    return Problem("math/1", "math", {"question": "?", "answer": answer})


@pytest.mark.parametrize(
    ("answer", "text", "reward", "reason"),
    [
        ("7+65=72 #### 72", "<answer>72</answer>", 1.0, "is 72"),
        ("#### 1,072", "<answer>$1072.00</answer>", 1.0, "is 1072"),
        ("#### 72", "<answer>72 clips</answer>", 1.0, "is 72"),
        ("#### 72", "<answer>\\boxed{72}</answer>", 1.0, "is 72"),
        ("#### 72", "so \\boxed{72}", 1.0, "is 72"),
        ("#### 72", "so #### 72", 1.0, "is 72"),
        ("#### 72", "<answer>72 dozens</answer>", 0.0, "is not"),
        ("#### 72 km", "<answer>72 m</answer>", 0.0, "another unit"),
        ("#### 72", "\\boxed{72} <answer>71</answer>", 0.0, "is 71, not 72"),
        ("#### 72", "<answer>71</answer> <answer>72</answer>", 1.0, "is 72"),
        ("#### 72", "<answer>72 or 73</answer>", 0.0, "'72 or 73' is not '72'"),
        ("#### 72", "72", 0.0, "no <answer>"),
        ("#### 72", None, 0.0, "not text"),
        (r"so \boxed{\frac{1}{3}}", "<answer>1/3</answer>", 1.0, "is 1/3"),
        (r"so \boxed{\frac{1}{3}}", "<answer>0.3333333333</answer>", 0.0, "not 1/3"),
        (r"so \boxed{(1,2)}", "<answer>$(1, 2)$</answer>", 1.0, "is"),
        (r"so \boxed{x+1}", "<answer>1+x</answer>", 0.0, "is not"),
        ("0.5", "<answer>\\dfrac12</answer>", 1.0, "is 1/2"),
        ("#### 72", "<answer></answer>", 0.0, "is not"),
    ],
)
def test_the_verdict_says_why(data, answer, text, reward, reason):
    found = MathFiles(data).grade(problem(answer), text)
    assert (found.reward, found.correct) == (reward, reward == 1.0) and reason in found.reason


def test_every_question_is_in_one_split_and_comes_up_once(data):
    found = {}
    for split in ("train", "validation", "test"):
        found[split] = [p.given["question"] for p in MathFiles(data).problems(split, 0)]
        assert all(split_of(question) == split for question in found[split])
    assert sorted(sum(found.values(), [])) == sorted(row["question"] for row in ROWS)
    assert all(20 < len(found[split]) < 65 for split in ("validation", "test"))
    again = [p.given["question"] for p in MathFiles(data).problems("train", 1)]
    assert again != found["train"] and sorted(again) == sorted(found["train"])


def test_a_whole_file_is_one_test_set(data):
    task = MathFiles(data)
    found = [p.given["question"] for p in task.problems("all", 0)]
    assert sorted(found) == sorted(row["question"] for row in ROWS)
    assert task.num_problems("all") == 400 and 20 < task.num_problems("test") < 65


def test_a_file_of_tests_is_never_trained_on(tmp_path, data):
    tests = tmp_path / "tests.jsonl"
    other = [{"question": f"And {n} less {n}?", "answer": 0} for n in range(30)]
    tests.write_text("".join(json.dumps(row) + "\n" for row in [*other, *ROWS[:5]]))
    task = MathFiles(data, test_data=tests)
    counts = {split: task.num_problems(split) for split in ("train", "validation", "test", "all")}
    assert counts["test"] == 35 and counts["train"] + counts["validation"] == 395
    assert 20 < counts["validation"] < 65 and counts["all"] == 430
    trained = {p.id for split in ("train", "validation") for p in task.problems(split, 0)}
    assert not trained & {p.id for p in task.problems("test", 0)}
    assert "5 problems of task.data are in task.test_data" in task.notes[-1].message
    with pytest.raises(ConfigError, match="--task.data"):
        MathFiles(test_data=tests)
    with pytest.raises(DataError, match="every problem"):
        MathFiles(data, test_data=data)


def test_a_solution_is_right_and_another_number_wrong(data):
    task = MathFiles(data)
    for one in task.problems("all", 0):
        assert task.grade(one, task.solve(one)).reward == 1.0
        assert task.grade(one, "<answer>801</answer>").reward == 0.0


def test_a_problem_without_an_answer_is_an_error_and_no_grade(data):
    for answer in (None, "", float("nan"), "It is about three. Or four."):
        with pytest.raises(DataError, match="answer"):
            MathFiles(data).grade(problem(answer), "<answer>3</answer>")


def test_what_the_question_counts_may_stand_behind_the_number(data):
    asked = Problem("math/1", "math", {"question": "How many gizmos?", "answer": "#### 7"})
    assert MathFiles(data).grade(asked, "<answer>7 gizmos</answer>").correct
    assert not MathFiles(data).grade(problem("#### 7"), "<answer>7 gizmos</answer>").correct
    assert not MathFiles(data).grade(asked, "<answer>7 dozens</answer>").correct


def test_settings_that_make_no_sense_are_refused(data):
    with pytest.raises(ConfigError, match="--task.data"):
        MathFiles()
    with pytest.raises(ConfigError, match="verifier 'tinyzero'"):
        MathFiles(data, verifier="tinyzero")
    with pytest.raises(ConfigError, match="bad_rows 'skip'"):
        MathFiles(data, bad_rows="skip")
    with pytest.raises(DataError, match="no file"):
        MathFiles("nowhere.jsonl")


# -- math-verify ----------------------------------------------------------------------------

FAKE = """
import time

def parse(text, parsing_timeout=5):
    assert parsing_timeout is None, "its own limit wants a signal"
    if "hang" in text:
        time.sleep(60)
    if "raise" in text:
        raise RuntimeError("no such thing")
    return sorted(text)

def verify(gold, target, timeout_seconds=5):
    assert timeout_seconds is None
    return gold == target
"""


@pytest.fixture
def verifying(tmp_path, data, monkeypatch):
    """A math-verify of the same interface, which takes the same letters for the same thing."""
    (tmp_path / "math_verify.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "math_verify", raising=False)
    monkeypatch.setattr("aha.tasks.math_files.SYMBOLIC_SECONDS", 2.0)
    return MathFiles(data, verifier="math-verify")


def test_other_answers_go_to_math_verify(verifying):
    assert verifying.grade(problem(r"\boxed{x+1}"), "<answer>1+x</answer>").reward == 1.0
    assert verifying.grade(problem(r"\boxed{x+1}"), "<answer>2+x</answer>").reward == 0.0
    # Two numbers are ours to compare: the fake would take 12 for 21.
    assert verifying.grade(problem("#### 12"), "<answer>21</answer>").reward == 0.0


@pytest.mark.parametrize(("text", "words"), [("hang", "took more"), ("raise", "RuntimeError")])
def test_math_verify_may_hang_or_raise(verifying, text, words):
    found = verifying.grade(problem(r"\boxed{x}"), f"<answer>{text}</answer>")
    assert found.reward == 0.0 and words in found.reason and found.parts == {"grade_error": 1.0}
    assert verifying.grade(problem(r"\boxed{x+1}"), "<answer>1+x</answer>").correct


def test_without_math_verify_its_install_line_is_printed(data):
    try:
        import math_verify  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtra, match="aha\\[math\\]"):
            MathFiles(data, verifier="math-verify")
    else:
        task = MathFiles(data, verifier="math-verify")
        assert task.grade(problem(r"\boxed{(x+1)^2}"), "<answer>x^2+2x+1</answer>").correct
