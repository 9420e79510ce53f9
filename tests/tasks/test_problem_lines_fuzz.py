"""Hostile completions and lines by the hundred thousand: no exception, no hang, no false verdict.

Opt-in: pytest -m fuzz.
"""

import json
import time
from fractions import Fraction
from itertools import islice

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aha.core.errors import DataError
from aha.core.records import Graded, Problem
from aha.tasks.catalog import make_task
from aha.tasks.countdown import as_problem
from aha.tasks.expression import Unreadable, read_expression
from aha.tasks.problem_lines import grade_lines
from aha.tasks.tags import read_answer

EXAMPLES = 100_000
pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(0)]
many = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)

# Pieces of what models write around an answer, and of what breaks readers of it.
PIECES = st.sampled_from(
    "<answer> </answer> <think> </think> \\boxed{ } \\boxed \\fbox{ #### \\text{ \\frac{ \\frac "
    "\\sqrt{ \\left( \\right) $ \\$ $$ \\( \\) ( ) [ ] { } * ** / + - − – = == < > ± ~ ^ ^2 ² _ ! ? "
    ". , ; : ... % ° € ¥ USD km cm^2 per of and or not dozen dozens thirds million k K M squared "
    "factorial pairs less more answer is: The nan inf e e5 1e-05 \\times 10^ x= y π ∞ ½ ٥ ７ \\pi \n "
    "\t \u200b \u2028 \ud800 \x00 \\ \\\\ ` apples dollars hours minutes feet inches".split(" ")
)
NUMBERS = st.one_of(
    st.integers(-(10**6), 10**6).map(str),
    st.integers(0, 10**9).map("{:,}".format),
    st.fractions(max_denominator=100).map(str),
    st.floats(allow_nan=True, allow_infinity=True).map(str),
    st.just("9" * 5000),
)
TEXTS = st.one_of(
    st.text(max_size=80),
    st.lists(st.one_of(PIECES, NUMBERS, st.text(max_size=3)), max_size=30).map("".join),
    st.lists(st.one_of(PIECES, NUMBERS), max_size=30).map(" ".join),
    st.tuples(PIECES, st.integers(1, 3000)).map(lambda pair: pair[0] * pair[1]),
)
ANSWERS = TEXTS.map(lambda text: f"<answer>{text}</answer>")
COMPLETIONS = st.one_of(TEXTS, ANSWERS, st.none(), st.integers(), st.lists(st.text(max_size=3)))


def graded(task, problem: Problem, text: object) -> Graded:
    """The grade, after checks of its form and of its time."""
    started = time.thread_time()
    grade = task.grade(problem, text)
    assert time.thread_time() - started < 1.0
    assert grade.reward in (0.0, 0.1, 1.0) and isinstance(grade.reason, str)
    assert grade.correct is (grade.reward == 1.0)
    return grade


@pytest.fixture(scope="module")
def math_task(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text('{"question": "a", "answer": "1"}\n')
    return make_task("math", {"data": path})


def asked(answer: str, question: str = "How many red gizmos are left?") -> Problem:
    return Problem("math/1", "math", {"question": question, "answer": answer})


TRUTHS = [
    "#### 7",
    "$\\boxed{\\frac{1}{2}}$",
    "#### 1,234",
    "\\boxed{(0,1)}",
    "\\boxed{2\\pi}",
    "A",
]


@many
@given(st.sampled_from(TRUTHS), COMPLETIONS)
def test_mathematics_grades_any_text(math_task, truth, text):
    graded(math_task, asked(truth), text)


@many
@given(st.integers(-999, 999), TEXTS)
def test_mathematics_pays_no_text_without_the_number(math_task, value, text):
    """Every digit of the answer is taken out of the text, so that no reading of it can be right."""
    wrong = text.translate({ord(digit): None for digit in str(abs(value))})
    if wrong.isascii():  # the digits of other scripts, and ½, are numbers of their own
        grade = graded(math_task, asked(f"#### {value}"), f"<answer>{wrong}</answer>")
        assert not grade.correct or exactly(wrong, value), wrong


def exactly(text: str, value: int) -> bool:
    """Whether a text is, letter by letter, a fraction or a power of ten with that value: 14/2."""
    plain = "".join(text.split()).strip("$(){}.*`+-=xyUSD\\€")
    try:
        return abs(Fraction(plain)) == abs(value)
    except (ValueError, ZeroDivisionError):
        return any(mark in text for mark in ("/", "frac", "e", "10^"))


@many
@given(st.integers(1, 999), st.integers(1, 999), TEXTS, st.booleans())
def test_mathematics_pays_no_other_number(math_task, value, other, ending, frame):
    """Another number, whatever stands behind it."""
    if other == value or any(char.isdigit() or char in "./½eE^" for char in ending):
        return
    ending = ending.replace("<", "").replace("frac", "").replace("boxed", "")
    text = f"\\boxed{{{other}{ending}" if frame else f"<answer>{other}{ending}</answer>"
    assert not graded(math_task, asked(f"#### {value}"), text).correct, text


@many
@given(
    st.integers(2, 999), st.text(alphabet="abcdefghijklmnopqrstuvwxyzABKMXπ²³!?^'_&|~", max_size=8)
)
def test_mathematics_pays_no_word_that_it_does_not_know(math_task, value, word):
    from aha.tasks.units import read_unit

    for space in ("", " "):
        text = f"<answer>{value}{space}{word}</answer>"
        known = read_unit(word, frozenset({"gizmo", "red"})) is not None
        grade = graded(math_task, asked(f"#### {value}"), text)
        assert not grade.correct or known, text


@many
@given(st.lists(st.integers(1, 20), min_size=2, max_size=4), st.integers(1, 60), COMPLETIONS)
def test_countdown_grades_any_text(numbers, target, text):
    task = make_task("countdown")
    grade = graded(task, as_problem(tuple(numbers), target), text)
    if grade.correct:
        answer = read_expression(read_answer(text).text)
        assert sorted(answer.numbers) == sorted(numbers) and answer.value == target


@many
@given(st.lists(st.sampled_from("1 2 3 + - * / ( ) 12 4 = ** // . ,".split()), max_size=12))
def test_countdown_is_right_only_by_its_own_arithmetic(tokens):
    task = make_task("countdown")
    text = " ".join(tokens)
    grade = graded(task, as_problem((1, 2, 3), 6), f"<answer>{text}</answer>")
    try:
        value = Fraction(eval(text, {"__builtins__": {}})).limit_denominator(10**6)
        numbers = sorted(read_expression(text).numbers)
    except (Unreadable, SyntaxError, ArithmeticError, TypeError, ValueError):
        value, numbers = None, []
    assert grade.correct == (value == 6 and numbers == [1, 2, 3])


@many
@given(st.integers(10, 99), st.integers(10, 99), COMPLETIONS)
def test_multiply_grades_any_text(a, b, text):
    task = make_task("multiply")
    grade = graded(task, Problem("x", "multiply", {"a": a, "b": b}), text)
    assert not grade.correct or int(read_answer(text).text) == a * b


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from("numbers nums target completion id question answer a b x".split()),
            inner,
        )
    ),
    max_leaves=12,
)
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "numbers": JSON | st.lists(st.integers(1, 9), max_size=5),
        "target": JSON | st.integers(1, 99),
        "completion": COMPLETIONS | JSON,
        "question": JSON | st.just("How many?"),
        "answer": JSON | st.sampled_from(TRUTHS),
        "a": JSON | st.integers(1, 9),
        "b": JSON | st.integers(1, 9),
    },
)
LINES = st.one_of(
    ROWS.map(lambda row: json.dumps(row).encode()),
    ROWS.map(lambda row: json.dumps(row).encode()[:-3]),
    st.binary(max_size=60),
)


@many
@given(st.sampled_from(["countdown", "multiply", "math"]), st.lists(LINES, max_size=3))
def test_lines_are_graded_or_named(math_task, name, lines):
    """A verdict for each line, or an error that names it."""
    task = math_task if name == "math" else make_task(name)
    full = [number for number, line in enumerate(lines, 1) if line.strip()]
    count = 0
    try:
        for grade in grade_lines(task, name, lines):
            count += 1
            assert isinstance(grade, Graded)
            json.dumps({"reward": grade.reward, "reason": grade.reason})
        assert count == len(full)
    except DataError as error:
        assert f"line {full[count]}" in error.got


def test_what_a_task_solves_it_pays():
    """The positive control: a right completion for each of many problems."""
    for name in ("countdown", "multiply"):
        task = make_task(name)
        if hasattr(task, "solve"):
            for problem in islice(task.problems("train", 0), 200):
                assert task.grade(problem, task.solve(problem)).correct
