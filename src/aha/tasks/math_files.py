r"""Questions with answers from a file, as in GSM8K and MATH: JSON lines or Parquet.

    {"question": "Ann has 3 apples ...", "answer": "She has 3+4=7. #### 7"}
    {"problem": "Find $x$ ...", "solution": "... so $x=\boxed{\frac12}$"}

Names of columns and rows that cannot be used: `question_rows`. Where the answer stands in a column
and in a completion, and which two are the same: `answers`. Two numbers are compared exactly; two
other answers as text without spaces and decoration. With `verifier = "math-verify"` (extra [math])
such other answers are compared as mathematics instead.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aha.core.errors import ConfigError, DataError, MissingExtra
from aha.core.records import Graded, Problem
from aha.tasks.answers import answer_of, compare, true_answer
from aha.tasks.file_splits import ALL, FileSplits, check_test_data
from aha.tasks.question_rows import (
    EXPECTED,
    Question,
    load_questions,
    question_id,
    question_key,
)
from aha.tasks.splits import check_split, split_by_hash
from aha.tasks.tags import answer_ending, check_template, framed
from aha.tasks.units import counted_things
from aha.tasks.worker import CallFailed, Worker

HELD_OUT_PERCENT = 10  # of the questions, in test and in validation each
VERIFIERS = ("strict", "math-verify")
SYMBOLIC_SECONDS = 10.0


class MathFiles:
    """Questions of a file; a reward of 1 for the right answer and 0 for anything else.

    `test_data` is a file of other questions, all of them tests; without it `data` is parted.
    `bad_rows` says what becomes of rows that cannot be used, and `notes` what became of them.
    Raises `ConfigError` without a file and for settings that do not exist, `DataError` for a file
    that cannot be read.
    """

    name = "math"

    def __init__(
        self,
        data: str | Path | None = None,
        template: str = "plain",
        verifier: str = "strict",
        test_data: str | Path | None = None,
        bad_rows: str = "refuse",
    ):
        check_test_data(data, test_data)
        if data is None:
            raise ConfigError("the task 'math' without a file", EXPECTED, "--task.data FILE")
        if verifier not in VERIFIERS:
            raise ConfigError(f"verifier {verifier!r}", f"one of {', '.join(VERIFIERS)}")
        self.template = check_template(template)
        rows, self.notes = load_questions(Path(data), bad_rows)
        tests: list[Question] | None = None
        if test_data is not None:
            tests, notes = load_questions(Path(test_data), bad_rows)
            self.notes += notes
        self.splits = FileSplits(
            rows, tests, lambda row: question_key(row[0]), lambda row: split_of(row[0])
        )
        self.notes += self.splits.notes
        # In a process of its own: math-verify limits its time by signals, which work in the main
        # thread alone, and some expressions take it minutes.
        self.symbolic: Worker | None = None
        if verifier == "math-verify":
            require_math_verify()
            self.symbolic = Worker("aha.tasks.math_files:same_mathematics", (), SYMBOLIC_SECONDS)

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """The questions of one split, each once, in the seed's order; "all" is the whole file."""
        if split != ALL:
            check_split(split)
        for question, answer in self.splits.shuffled(split, seed, "math"):
            given = {"question": question, "answer": answer}
            yield Problem(f"math/{question_id(question)}", "math", given)

    def num_problems(self, split: str) -> int:
        """How many questions a split has."""
        return len(self.splits.of(split))

    def ask(self, problem: Problem) -> str:
        """The prompt, in the frame of the template."""
        question = problem.given["question"]
        return framed(self.template, question, REQUEST.format(question=question))

    def solve(self, problem: Problem) -> str:
        """A completion that is right."""
        return f"The answer is known.\n{answer_ending(truth_of(problem))}"

    def grade(self, problem: Problem, text: str) -> Graded:
        """1 for the right answer, else 0, with the reason. Raises `DataError` for a problem that
        has no answer."""
        truth = truth_of(problem)
        graded, open_answer = grade_solution(text, truth, str(problem.given.get("question", "")))
        if open_answer is None or self.symbolic is None:
            return graded
        return self.grade_as_mathematics(truth, open_answer)

    def grade_as_mathematics(self, truth: str, answer: str) -> Graded:
        """The grade of an answer that is not clearly a number, by math-verify."""
        assert self.symbolic is not None, "only where it was chosen"
        try:
            correct = bool(self.symbolic(truth, answer))
        except CallFailed as fault:
            return Graded(0.0, False, f"math-verify {fault}", {"grade_error": 1.0})
        relation = "the same as" if correct else "not the same as"
        return Graded(float(correct), correct, f"{answer[:60]!r} is {relation} {truth[:60]!r}")


def grade_solution(text: object, truth: str, question: str) -> tuple[Graded, str | None]:
    """(the grade by the strict rules, the answer).

    The answer is None where nothing is left to interpret: it was right, or truth and answer are
    numbers, or there is no answer."""
    if not isinstance(text, str):
        return Graded(0.0, False, "the completion is not text"), None
    answer = answer_of(text)
    if answer is None:
        return Graded(0.0, False, "no <answer>...</answer> block and no \\boxed{}"), None
    correct, reason, sure = compare(truth, answer, counted_things(question))
    return Graded(float(correct), correct, reason), None if sure or correct else answer


def truth_of(problem: Problem) -> str:
    """The true answer of a problem. Raises `DataError` where it has none."""
    column = problem.given.get("answer")
    truth = true_answer(column) if isinstance(column, str) else None
    if truth is None:
        shown = repr(column)[:60]
        raise DataError(f"a problem with the answer {shown}", EXPECTED, "give it an answer")
    return truth


def split_of(question: str) -> str:
    """The split of a question, by its key alone."""
    return split_by_hash(question_key(question), HELD_OUT_PERCENT)


# -- the prompt -----------------------------------------------------------------------------


REQUEST = (
    "{question}\nWork it out inside <think> </think> tags, then give the final answer alone inside "
    "<answer> </answer> tags, as in <answer> 42 </answer>."
)


# -- math-verify ----------------------------------------------------------------------------


def require_math_verify() -> None:
    """Raises `MissingExtra` where math-verify is not installed."""
    from importlib.util import find_spec

    if find_spec("math_verify") is None:
        raise MissingExtra("math-verify", "math")


def same_mathematics() -> Callable[[str, str], bool]:
    """In the worker's process: `compare(truth, answer)` by math-verify. Its own time limits are
    off, because they need signals; ours ends the whole process."""
    from math_verify import parse, verify

    def read(text: str) -> Any:
        return parse(f"${text}$", parsing_timeout=None)

    def compare(truth: str, answer: str) -> bool:
        return bool(verify(read(truth), read(answer), timeout_seconds=None))

    return compare
