"""Questions from a file: which answer counts, and when it is right."""

import json
import sys

import pytest

from aha.core.errors import ConfigError, DataError, MissingExtra
from aha.core.records import Problem
from aha.tasks.math_files import MathFiles, split_of, true_answer

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


def test_the_true_answer_is_taken_out_of_the_solution():
    assert true_answer("a #### 3") == "3" and true_answer(r"\boxed{4}") == "4"
    assert true_answer(" 5 ") == "5"


def test_every_question_is_in_one_split_and_comes_up_once(data):
    found = {}
    for split in ("train", "validation", "test"):
        found[split] = [p.given["question"] for p in MathFiles(data).problems(split, 0)]
        assert all(split_of(question) == split for question in found[split])
    assert sorted(sum(found.values(), [])) == sorted(row["question"] for row in ROWS)
    assert all(20 < len(found[split]) < 65 for split in ("validation", "test"))
    again = [p.given["question"] for p in MathFiles(data).problems("train", 1)]
    assert again != found["train"] and sorted(again) == sorted(found["train"])


def test_a_question_with_other_spaces_is_the_same(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [{"problem": "What  is 2?", "solution": "2"}, {"question": "what is 2? ", "answer": 3}]
    path.write_text("\n".join(map(json.dumps, rows)))
    task = MathFiles(path)
    found = [p.given for split in ("train", "validation", "test") for p in task.problems(split, 0)]
    assert found == [{"question": "What  is 2?", "answer": "2"}]


def test_parquet_holds_the_same(tmp_path, data):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert MathFiles(path).rows == MathFiles(data).rows


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ('{"question": "?"}', "row 1"),
        ('{"question": "", "answer": "1"}', "row 1"),
        ('{"question": "a", "answer": "1"}\n{"question": "b", "answer": null}', "row 2"),
        ('{"question": "a", "answer": true}', "row 1"),
        ("[1]", "row 1"),
        ("{", "row 1"),
    ],
)
def test_a_file_that_holds_no_questions_is_refused_by_row(tmp_path, text, words):
    path = tmp_path / "rows.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        MathFiles(path)


def test_settings_that_make_no_sense_are_refused(data):
    with pytest.raises(ConfigError, match="--task.data"):
        MathFiles()
    with pytest.raises(ConfigError, match="verifier 'tinyzero'"):
        MathFiles(data, verifier="tinyzero")
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
