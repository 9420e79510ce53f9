"""TinyZero's scores, fault by fault, beside what the strict verifier says of the same text.

The expected scores were taken from TinyZero's own function (`verl.utils.reward_score.countdown`,
format score 0.1), run once on these completions; they are data here.
"""

import gc
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.tasks.countdown import Countdown, as_problem, grade_countdown
from aha.tasks.tinyzero_compat import grade_as_tinyzero as grade
from aha.tasks.tinyzero_compat import last_answer


def tagged(answer: str) -> str:
    return f"so that is it</think>\n<answer>{answer}</answer>"


# completion, numbers, target, TinyZero's score, the strict reward
VECTORS = [
    (tagged("3*4*2"), (2, 3, 4), 24, 1.0, 1.0),
    (tagged("3**2"), (2, 3), 9, 1.0, 0.0),  # power
    (tagged("7//2"), (2, 7), 3, 1.0, 0.0),  # floor division
    (tagged("1.5"), (1, 5), 1.5, 1.0, 0.0),  # a point joins 1 and 5
    (tagged("2.5*4"), (2, 4, 5), 10, 1.0, 0.0),
    (tagged("-(3-5)"), (3, 5), 2, 1.0, 0.0),  # unary minus
    (tagged("3*4*2 = 24"), (2, 3, 4), 24, 0.1, 0.0),
    (tagged("03*8"), (3, 8), 24, 0.1, 0.0),
    (tagged("(3,8)[1]"), (3, 8), 8, 0.1, 0.0),
    (tagged("24"), (2, 3, 4), 24, 0.1, 0.0),
    (tagged("3*4*2") + "\n", (2, 3, 4), 24, 0.0, 1.0),  # only the last line is searched
    (tagged("2+3") + "<answer>3*4*2</answer>", (2, 3, 4), 24, 1.0, 1.0),
]

# The table of its behaviours, over 1 2 3 to 6.
TABLE = [
    (tagged("1+2+3"), 1.0, 1.0),
    (tagged("1+2+3") + "\n", 0.0, 1.0),
    (tagged("1+2+3") + "\nThat is it.", 0.0, 1.0),
    ("<answer>\n1+2+3\n</answer>", 0.0, 1.0),
    (tagged("1+2+3 = 6"), 0.1, 0.0),
    (tagged("1×2×3"), 0.1, 0.0),
    (tagged(r"\frac{1}{2}+3"), 0.1, 0.0),
    (tagged("hello"), 0.1, 0.0),
    (tagged(""), 0.1, 0.0),
    (tagged("3*2"), 0.1, 0.0),  # a subset
    (tagged("3*2**1"), 1.0, 0.0),
    (tagged("3*2//1"), 1.0, 0.0),
    (tagged("01+2+3"), 0.1, 0.0),
    (tagged("1+2+3."), 1.0, 0.0),
    (tagged("1/(3-2-1)"), 0.1, 0.0),
    ("<answer>1+2+3</answer>", 1.0, 1.0),  # no </think> is asked for
    (tagged("3") + "<answer>1+2+3</answer>", 1.0, 1.0),
    (tagged("1+2+3") + "<answer>3</answer>", 0.1, 0.0),
    ("1+2+3", 0.0, 0.0),
    (tagged("1/49*49+2*3"), 0.1, 0.0),
]


@pytest.mark.parametrize(("text", "numbers", "target", "score", "strict"), VECTORS)
def test_vectors(text, numbers, target, score, strict):
    assert grade(text, numbers, target).reward == score
    assert grade_countdown(text, numbers, target).reward == strict


@pytest.mark.parametrize(("text", "score", "strict"), TABLE)
def test_the_table(text, score, strict):
    graded = grade(text, (1, 2, 3), 6)
    assert graded.reward == score
    assert graded.correct == (score == 1.0)
    assert graded.reason.startswith("TinyZero")
    assert grade_countdown(text, (1, 2, 3), 6).reward == strict


def test_assistant_in_the_completion_cuts_it_in_the_instruct_template_alone():
    text = tagged("1+2+3") + " Assistant: bye"
    assert grade(text, (1, 2, 3), 6, "instruct").reward == 0.0
    assert grade(text, (1, 2, 3), 6, "r1").reward == 1.0
    assert grade_countdown(text, (1, 2, 3), 6).reward == 1.0
    before = f"Assistant: {tagged('1+2+3')}"
    assert grade(before, (1, 2, 3), 6, "instruct").reward == 1.0


def test_a_float_may_miss_by_a_hundred_thousandth():
    assert grade(tagged("1/49*49"), (1, 49, 49), 1).reward == 1.0
    assert grade(tagged("1/3"), (1, 3), 0.33333).reward == 1.0
    assert grade(tagged("1/3"), (1, 3), 0.3333).reward == 0.1


@pytest.mark.parametrize(
    "answer",
    ["9**9**9**9", "9**9**9*9", "((9**64)**64)", "9" * 999, "(" * 499 + "9" + ")" * 499]
    + ["-" * 990 + "9", "9*" * 499 + "9", "9.0**64*" * 99 + "9", "(0-9)**.5", "0**-9"],
)
def test_answered_at_once(answer):
    """TinyZero's eval hangs on the first, and has no time-out."""
    gc.collect()  # of a long test session it takes half a second, which is not the grader's
    start = time.thread_time()
    graded = grade(tagged(answer), tuple(map(int, re.findall(r"\d+", answer))), 10)
    assert time.thread_time() - start < 5.0  # of a millisecond or two
    assert graded.reward == 0.1


PIECES = st.sampled_from(["<answer>", "</answer>", "1+2", " ", "<", "x"])


@given(st.lists(PIECES, max_size=14).map("".join))
def test_the_answer_is_what_the_pattern_finds(line):
    found = re.findall(r"<answer>(.*?)</answer>", line)
    assert last_answer(line, "r1") == (found[-1].strip() if found else None)


def test_tags_that_are_never_closed_are_read_in_linear_time():
    start = time.thread_time()
    assert last_answer("<answer>" * 1_000_000, "r1") is None
    assert time.thread_time() - start < 20.0  # the pattern above would need hours


@given(st.text(max_size=200) | st.text(alphabet="0123456789+-*/(). ", max_size=60).map(tagged))
def test_no_text_is_an_error(text):
    assert grade(text, (1, 2, 3), 6).reward in (0.0, 0.1, 1.0)


def test_the_task_grades_with_it_when_asked():
    problem = as_problem((2, 3), 9)
    power = tagged("3**2")
    assert Countdown((2,), verifier="tinyzero").grade(problem, power).reward == 1.0
    assert Countdown((2,)).grade(problem, power).reward == 0.0


def test_a_grade_does_not_depend_on_how_deep_the_caller_is():
    """In veRL's threads the stack is another one than in a trainer's."""
    text = tagged("-" * 980 + "3+8")

    def deeper(levels: int) -> float:
        return deeper(levels - 1) if levels else grade(text, (3, 8), 11).reward

    assert [deeper(levels) for levels in (0, 300)] == [1.0, 1.0]
