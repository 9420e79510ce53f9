r"""Questions with answers from a file, as in GSM8K and MATH: JSON lines or Parquet.

    {"question": "Ann has 3 apples ...", "answer": "She has 3+4=7. #### 7"}
    {"problem": "Find $x$ ...", "solution": "... so $x=\boxed{\frac12}$"}

The true answer is the text after the last ####, else the last \boxed{}, else the whole column. A
completion's is its last <answer> block, else its last \boxed{}, else the text after its last ####.
Two numbers are compared exactly; two other answers as text without spaces and decoration. With
`verifier = "math-verify"` (extra [math]) such other answers are compared as mathematics instead.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

from aha.core.errors import ConfigError, DataError, MissingExtra
from aha.core.records import Graded, Problem
from aha.core.seeds import seed_for
from aha.tasks.files import read_rows
from aha.tasks.numeric import after_hashes, last_boxed, plain, read_number
from aha.tasks.splits import check_split, split_by_hash
from aha.tasks.tags import check_template, framed, read_answer
from aha.tasks.worker import CallFailed, Worker

HELD_OUT_PERCENT = 10  # of the questions, in test and in validation each
QUESTIONS, ANSWERS = ("question", "problem", "prompt"), ("answer", "solution", "target")
VERIFIERS = ("strict", "math-verify")
EXPECTED = "JSON lines or Parquet with 'question' and 'answer' (or 'problem' and 'solution')"
SYMBOLIC_SECONDS = 10.0


class MathFiles:
    """Questions of a file; a reward of 1 for the right answer and 0 for anything else.

    Raises `ConfigError` without a file and for settings that do not exist, `DataError` for a file
    that cannot be read.
    """

    name = "math"

    def __init__(
        self, data: str | Path | None = None, template: str = "plain", verifier: str = "strict"
    ):
        if data is None:
            raise ConfigError("the task 'math' without a file", EXPECTED, "--task.data FILE")
        if verifier not in VERIFIERS:
            raise ConfigError(f"verifier {verifier!r}", f"one of {', '.join(VERIFIERS)}")
        self.template = check_template(template)
        self.rows = load_questions(Path(data))
        # In a process of its own: math-verify limits its time by signals, which work in the main
        # thread alone, and some expressions take it minutes.
        self.symbolic: Worker | None = None
        if verifier == "math-verify":
            require_math_verify()
            self.symbolic = Worker("aha.tasks.math_files:same_mathematics", (), SYMBOLIC_SECONDS)

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """The questions of one split, each once, in the seed's order."""
        check_split(split)
        mine = [row for row in self.rows if split_of(row[0]) == split]
        Random(seed_for("math", split, seed)).shuffle(mine)
        for question, answer in mine:
            given = {"question": question, "answer": answer}
            yield Problem(f"math/{question_id(question)}", "math", given)

    def ask(self, problem: Problem) -> str:
        """The prompt, in the frame of the template."""
        question = problem.given["question"]
        return framed(self.template, question, REQUEST.format(question=question))

    def grade(self, problem: Problem, text: str) -> Graded:
        """1 for the right answer, else 0, with the reason."""
        if not isinstance(text, str):
            return Graded(0.0, False, "the completion is not text")
        answer = answer_of(text)
        if answer is None:
            return Graded(0.0, False, "no <answer>...</answer> block and no \\boxed{}")
        return self.compare(true_answer(problem.given["answer"]), answer)

    def compare(self, truth: str, answer: str) -> Graded:
        """The grade of an answer; math-verify decides where that was chosen and no number does."""
        correct, reason, sure = check(truth, answer)
        if sure or correct or self.symbolic is None:
            return Graded(float(correct), correct, reason)
        try:
            correct = bool(self.symbolic(truth, answer))
        except CallFailed as fault:
            return Graded(0.0, False, f"math-verify {fault}", {"grade_error": 1.0})
        relation = "the same as" if correct else "not the same as"
        return Graded(float(correct), correct, f"{answer[:60]!r} is {relation} {truth[:60]!r}")


def check(truth: str, answer: str) -> tuple[bool, str, bool]:
    """(right, reason, sure): sure where both are numbers, so that nothing is left to interpret."""
    true, got = read_number(truth), read_number(answer)
    if true is not None and got is not None:
        return true == got, f"is {got}" + ("" if true == got else f", not {true}"), True
    same = plain(truth) == plain(answer) != ""
    return same, f"{answer[:60]!r} is {'' if same else 'not '}{truth[:60]!r}", False


def true_answer(column: str) -> str:
    """The answer alone, from a column that may hold a whole solution."""
    marked = after_hashes(column)
    if marked is None:
        marked = last_boxed(column)
    return column.strip() if marked is None else marked


def answer_of(completion: str) -> str | None:
    r"""The answer in a completion: the last <answer>, else \boxed{}, else ####, else None."""
    block = read_answer(completion).text
    if block is not None:
        boxed = last_boxed(block)
        return block.strip() if boxed is None else boxed
    boxed = last_boxed(completion)
    return after_hashes(completion) if boxed is None else boxed


# -- the file -------------------------------------------------------------------------------


def question_key(question: str) -> str:
    """What makes two questions the same: their words, whatever the spaces and capitals."""
    return " ".join(question.lower().split())


def question_id(question: str) -> str:
    """The id of a question: a hash of its key."""
    return f"{seed_for(question_key(question)):016x}"


def split_of(question: str) -> str:
    """The split of a question, by its key alone."""
    return split_by_hash(question_key(question), HELD_OUT_PERCENT)


def load_questions(path: Path) -> list[tuple[str, str]]:
    """(question, answer) of every row, each question once; the first of two wins.

    Raises `DataError` for a row without them, with its number, and for an empty file.
    """
    rows: dict[str, tuple[str, str]] = {}
    for number, row in read_rows(path, EXPECTED):
        pair = question_and_answer(row)
        if pair is None:
            raise DataError(
                f"{path}, row {number}: {str(row)[:80]}", EXPECTED, f"mend or remove row {number}"
            )
        rows.setdefault(question_key(pair[0]), pair)
    if not rows:
        raise DataError(f"{path} is empty", EXPECTED, "add at least one row")
    return list(rows.values())


def question_and_answer(row: object) -> tuple[str, str] | None:
    """The two columns of a row, under any of their names; None where one is missing or blank."""
    cells = row if isinstance(row, dict) else {}
    question = next((cells[name] for name in QUESTIONS if name in cells), None)
    answer = next((cells[name] for name in ANSWERS if name in cells), None)
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    if not isinstance(question, str) or not isinstance(answer, str):
        return None
    return (question, answer) if question.strip() and true_answer(answer) else None


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
