"""Calculations of one operation: easy problems, on which a small model of others learns in minutes.

The numbers are small, so all pairs are few. A fifth of them is held out for tests, by the pair
without its order, and as many for validation.
"""

from collections.abc import Iterator, Sequence
from random import Random

from aha.core.errors import ConfigError
from aha.core.records import Graded, Problem
from aha.core.seeds import seed_for
from aha.tasks.multiply import check as check_number
from aha.tasks.splits import check_split, split_by_hash
from aha.tasks.tags import answer_ending, check_template, framed, grade_answer, shown_frame

HELD_OUT_PERCENT = 20  # of the pairs, in test and in validation each
LARGEST = 999  # all pairs are listed: a million at most
WORDS = {"+": "plus", "-": "minus", "*": "times"}


class Calculate:
    """The result of a sum, a difference or a product; a reward of 1 for the right number, else 0.

    `operations` are drawn evenly; the two numbers lie between `smallest` and `largest`, and no
    result is below 0. Every pair of a split comes up once in each order. Raises `ConfigError` for a
    setting out of its range.
    """

    name = "calculate"

    def __init__(
        self,
        operations: Sequence[str] = ("+",),
        smallest: int = 1,
        largest: int = 20,
        template: str = "plain",
    ):
        chosen = (operations,) if isinstance(operations, str) else tuple(operations)
        if not chosen or not all(isinstance(op, str) and op in WORDS for op in chosen):
            raise ConfigError(f"operations {list(chosen)}", f"some of {', '.join(WORDS)}")
        if not all(type(n) is int for n in (smallest, largest)) or not (
            0 <= smallest <= largest <= LARGEST
        ):
            raise ConfigError(
                f"smallest {smallest!r:.40}, largest {largest!r:.40}",
                f"whole numbers from 0 to {LARGEST}, smallest first",
            )
        self.operations = tuple(dict.fromkeys(chosen))
        self.numbers = range(smallest, largest + 1)
        self.template = check_template(template)

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """Different problems of one split, until there are no more."""
        check_split(split)
        rng = Random(seed_for("calculate", split, seed, *self.operations))
        pairs = {op: self.pairs_of(op, split) for op in self.operations}
        for listed in pairs.values():
            rng.shuffle(listed)
        while pairs := {op: listed for op, listed in pairs.items() if listed}:
            op = rng.choice(list(pairs))
            a, b = pairs[op].pop()
            yield as_problem(a, op, b)

    def pairs_of(self, op: str, split: str) -> list[tuple[int, int]]:
        """All pairs of a split for an operation."""
        return [
            (a, b)
            for a in self.numbers
            for b in self.numbers
            if (op != "-" or a >= b) and split_of(a, op, b) == split
        ]

    def ask(self, problem: Problem) -> str:
        """The prompt, in the frame of the template."""
        a, op, b = parts_of(problem)
        request = question(a, op, b)
        if self.template == "instruct":
            shown = [(question(x, op, y), worked(x, op, y)) for x, y in EXAMPLES[op]]
            return shown_frame(shown, request)
        return framed(self.template, f"{a} {WORDS[op]} {b}", f"{request} {FORM}")

    def grade(self, problem: Problem, text: str) -> Graded:
        """1 for the result in the last answer block, else 0, with the reason."""
        result = result_of(*parts_of(problem))
        return grade_answer(text, lambda answer: check_number(answer, result))

    def solve(self, problem: Problem) -> str:
        """The result, as a completion."""
        a, op, b = parts_of(problem)
        result = result_of(a, op, b)
        return f"{a} {op} {b} = {result}\n{answer_ending(str(result))}"


def split_of(a: int, op: str, b: int) -> str:
    """The split of a calculation, whichever number comes first."""
    return split_by_hash(f"{min(a, b)}{op}{max(a, b)}", HELD_OUT_PERCENT)


def result_of(a: int, op: str, b: int) -> int:
    """The result of a calculation."""
    return a + b if op == "+" else a - b if op == "-" else a * b


def as_problem(a: int, op: str, b: int) -> Problem:
    """A calculation as a record."""
    return Problem(f"calculate/{a}{op}{b}", "calculate", {"a": a, "op": op, "b": b})


def parts_of(problem: Problem) -> tuple[int, str, int]:
    """The two numbers of a problem with the operation between them."""
    given = problem.given
    return given["a"], given["op"], given["b"]


# -- the prompt -----------------------------------------------------------------------------

# A small model copies what stands last, its numbers too: "as in <answer> 42 </answer>" makes it
# calculate rightly and then answer 42. So the example shows how calculation and answer belong
# together.
FORM = (
    "Write the calculation, then its result inside <answer> </answer> tags, as in: "
    "2 + 3 = 5 <answer>5</answer>"
)
# Described like this, an answer block is what an instruct model of 135 million hardly ever writes;
# shown in a turn of its own, it writes one every other time. The pairs are of the training
# split, since their results are given away.
EXAMPLES = {"+": ((14, 5),), "-": ((16, 3),), "*": ((9, 4),)}


def question(a: int, op: str, b: int) -> str:
    """A calculation as a question."""
    return f"What is {a} {WORDS[op]} {b}?"


def worked(a: int, op: str, b: int) -> str:
    """A calculation with its answer, as an instruct model is to write it.

    Without spaces: SmolLM2-135M-Instruct has .78 of the sums right then, else .63 (greedily).
    """
    result = result_of(a, op, b)
    return f"{a}{op}{b}={result} <answer>{result}</answer>"
