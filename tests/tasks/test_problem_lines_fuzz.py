"""Hostile completions and lines by the hundred thousand: no exception, no hang, no false verdict.

Opt-in: pytest -m fuzz. Hypothesis draws seeds, and each seed writes many inputs: a hundred times as
fast as to draw every piece of a text.
"""

import json
import time
from collections.abc import Callable
from fractions import Fraction
from random import Random
from string import ascii_lowercase

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
from aha.tasks.units import read_unit

from ..fuzz import tries

SEEDS, EACH = tries(1_000), 100
pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(0)]
many = settings(
    max_examples=SEEDS, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
seeds = given(st.integers(0, 2**32))

# Pieces of what models write around an answer, and of what breaks readers of it.
PIECES = (
    "<answer> </answer> <think> </think> \\boxed{ } \\boxed \\fbox{ #### \\text{ \\frac{ \\frac "
    "\\sqrt{ \\left( \\right) $ \\$ $$ \\( \\) ( ) [ ] { } * ** / + - − – = == < > ± ~ ^ ^2 ² _ ! "
    "? . , ; : ... % ° € ¥ USD km cm^2 per of and or not dozen dozens thirds million k K M squared "
    "factorial pairs less more answer is: The nan inf e e5 1e-05 \\times 10^ x= y π ∞ ½ ٥ ７ \\pi "
    "\\ \\\\ ` apples dollars hours minutes feet inches gizmos a an to in % °C \\circ ' \""
).split()
PIECES += [" ", "\n", "\t", "\u200b", "\u2028", "\ud800", "\x00", ""]
TRUTHS = [
    "#### 7",
    "$\\boxed{\\frac{1}{2}}$",
    "#### 1,234",
    "\\boxed{(0,1)}",
    "\\boxed{2\\pi}",
    "A",
]
KEYS = "numbers nums target completion id question answer a b x".split()


class Writer:
    """Writes inputs of every kind from one seed."""

    def __init__(self, seed: int):
        self.rng = Random(seed)

    def number(self) -> str:
        n = self.rng.randint(-(10 ** self.rng.randint(1, 9)), 10 ** self.rng.randint(1, 9))
        kinds: list[Callable[[], str]] = [
            lambda: str(n),
            lambda: f"{n:,}",
            lambda: str(Fraction(n, self.rng.randint(1, 99))),
            lambda: str(self.rng.choice([n / 7, 1e300 * n, float("nan"), float("inf")])),
            lambda: "9" * self.rng.choice([50, 199, 201, 5000]),
        ]
        return self.rng.choices(kinds, [5, 3, 3, 2, 1])[0]()

    def piece(self) -> str:
        kind = self.rng.random()
        if kind < 0.65:
            return self.rng.choice(PIECES)
        if kind < 0.9:
            return self.number()
        return chr(self.rng.choice([self.rng.randrange(128), self.rng.randrange(0x11000)]))

    def text(self) -> str:
        if self.rng.random() < 0.02:
            return (self.piece() * self.rng.randint(1, 3000))[:200_000]
        space = self.rng.choice(["", " "])
        return space.join(self.piece() for _ in range(self.rng.randint(0, 20)))

    def completion(self) -> object:
        kind = self.rng.random()
        if kind < 0.05:
            return self.value()
        return self.text() if kind < 0.4 else f"<answer>{self.text()}</answer>"

    def value(self, depth: int = 3) -> object:
        kinds: list[Callable[[], object]] = [
            lambda: None,
            lambda: self.rng.random() < 0.5,
            lambda: self.rng.randint(-9, 99),
            lambda: self.rng.choice([0.5, float("nan"), float("inf"), 1e300]),
            self.text,
        ]
        if depth:
            kinds += [
                lambda: [self.value(depth - 1) for _ in range(self.rng.randint(0, 3))],
                lambda: {self.rng.choice(KEYS): self.value(depth - 1) for _ in range(2)},
            ]
        return self.rng.choice(kinds)()

    def line(self) -> bytes:
        """A line for `aha grade`: most are whole, some lack or twist a field, some are no JSON."""
        row = {
            "numbers": [self.rng.randint(1, 9) for _ in range(self.rng.randint(1, 5))],
            "target": self.rng.randint(1, 99),
            "completion": self.completion(),
            "question": "How many?",
            "answer": self.rng.choice(TRUTHS),
            "a": self.rng.randint(1, 99),
            "b": self.rng.randint(1, 99),
        }
        for key in list(row):
            twist = self.rng.random()
            if twist < 0.05:
                del row[key]
            elif twist < 0.12:
                row[key] = self.value()
        line = json.dumps(row).encode()
        twist = self.rng.random()
        if twist < 0.05:
            return line[: self.rng.randint(0, len(line))]
        return self.rng.randbytes(self.rng.randint(0, 60)) if twist < 0.08 else line


def graded(task, problem: Problem, text: object) -> Graded:
    """The grade, after checks of its form and of its time."""
    started = time.thread_time()
    grade = task.grade(problem, text)
    assert time.thread_time() - started < 1.0
    assert grade.reward in (0.0, 1.0) and isinstance(grade.reason, str)
    assert grade.correct is (grade.reward == 1.0)
    return grade


@pytest.fixture(scope="module")
def math_task(tmp_path_factory):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text('{"question": "a", "answer": "1"}\n')
    return make_task("math", {"data": path})


def question(answer: str) -> Problem:
    given = {"question": "How many red gizmos are left?", "answer": answer}
    return Problem("math/1", "math", given)


@many
@seeds
def test_mathematics_grades_any_text(math_task, seed):
    write = Writer(seed)
    for _ in range(EACH):
        graded(math_task, question(write.rng.choice(TRUTHS)), write.completion())


@many
@seeds
def test_mathematics_pays_no_text_without_the_number(math_task, seed):
    """The truth is a prime that no fraction or power in the texts makes, and each text that has its
    digits is left out: no reading of what remains can be right."""
    write = Writer(seed)
    for _ in range(EACH):
        value = write.rng.choice([1_000_003, 7_654_321, 99_991])
        text = write.text()
        if str(value) not in "".join(char for char in text if char not in ", {}!\\$"):
            grade = graded(math_task, question(f"#### {value}"), f"<answer>{text}</answer>")
            assert not grade.correct, text


@many
@seeds
def test_mathematics_pays_no_other_number(math_task, seed):
    """Another number, whatever stands behind it that is no part of a number."""
    write = Writer(seed)
    for _ in range(EACH):
        value, other = write.rng.sample(range(1, 999), 2)
        ending = "".join(write.piece() for _ in range(4))
        if any(char.isdigit() or char in "./½eE^<" for char in ending) or "boxed" in ending:
            continue
        text = write.rng.choice(
            [f"so \\boxed{{{other}{ending}}}", f"<answer>{other}{ending}</answer>"]
        )
        assert not graded(math_task, question(f"#### {value}"), text).correct, text


@many
@seeds
def test_mathematics_pays_no_word_that_it_does_not_know(math_task, seed):
    write = Writer(seed)
    for _ in range(EACH):
        letters = ascii_lowercase + "ABKMX" * 2 + "π²³!?^'_&|+-"
        word = "".join(write.rng.choices(letters, k=write.rng.randint(1, 6)))
        known = read_unit(word, frozenset({"gizmo", "red"})) is not None
        for space in ("", " "):
            text = f"<answer>17{space}{word}</answer>"
            assert known or not graded(math_task, question("#### 17"), text).correct, text


@many
@seeds
def test_countdown_grades_any_text_and_pays_only_a_solution(seed):
    task, write = make_task("countdown"), Writer(seed)
    for _ in range(EACH):
        numbers = tuple(write.rng.randint(1, 20) for _ in range(write.rng.randint(2, 4)))
        target, text = write.rng.randint(1, 60), write.completion()
        if graded(task, as_problem(numbers, target), text).correct:
            answer = read_expression(read_answer(text).text)
            assert sorted(answer.numbers) == sorted(numbers) and answer.value == target


@many
@seeds
def test_countdown_agrees_with_python_on_expressions(seed):
    task, write = make_task("countdown"), Writer(seed)
    for _ in range(EACH):
        tokens = write.rng.choices("1 2 3 + - * / ( ) 12 4 = ** // .".split(), k=5)
        text = "".join(write.rng.choice(tokens) for _ in range(write.rng.randint(1, 9)))
        if write.rng.random() < 0.5:
            text = write.rng.choice("1+2+3 3*2*1 1+2*3 3/(2-1) (1+2)+3 3*(1*2) 2*3/1 6".split())
        try:
            numbers = sorted(read_expression(text).numbers)  # before Python: 12**4**12 never ends
            value = eval(text, {"__builtins__": {}})
        except (Unreadable, SyntaxError, ArithmeticError, TypeError, ValueError):
            value, numbers = None, []
        right = numbers == [1, 2, 3] and value == 6
        assert graded(task, as_problem((1, 2, 3), 6), f"<answer>{text}</answer>").correct is right


@many
@seeds
def test_multiply_grades_any_text_and_pays_only_the_product(seed):
    task, write = make_task("multiply"), Writer(seed)
    for _ in range(EACH):
        a, b, text = write.rng.randint(1, 99), write.rng.randint(1, 99), write.completion()
        if graded(task, Problem("x", "multiply", {"a": a, "b": b}), text).correct:
            assert int(read_answer(text).text) == a * b


@pytest.mark.parametrize("name", ["countdown", "multiply", "math"])
@many
@seeds
def test_lines_are_graded_or_named(math_task, name, seed):
    """A verdict for each line, or an error that names it."""
    task = math_task if name == "math" else make_task(name)
    write = Writer(seed)
    for _ in range(EACH):
        line = write.line()
        try:
            grades = list(grade_lines(task, name, [line]))
        except DataError as error:
            assert "line 1" in error.got and "\n" not in str(error)
            continue
        assert len(grades) == bool(line.strip())
        json.dumps([{"reward": grade.reward, "reason": grade.reason} for grade in grades])
