"""Multiplication, TinyZero's second task: two numbers and their product.

Differs: the split is a hash of the unordered pair, where theirs may train on 37*48 and test on
48*37; two digits are the default, because that is what our base has read.
"""

from collections.abc import Iterator
from random import Random

from aha.core.errors import ConfigError
from aha.core.records import Graded, Problem
from aha.core.seeds import seed_for
from aha.tasks.splits import check_split, split_by_hash
from aha.tasks.tags import answer_ending, check_template, framed, grade_answer

HELD_OUT_PERCENT = 5  # of the pairs, in test and in validation each
MAX_DIGITS = 18
ENUMERATED = 2  # digits up to which all pairs are listed: chance would need too long for the last
MAX_MISSES = 20_000  # draws in a row without a new pair: then there are taken to be no more


def split_of(a: int, b: int) -> str:
    """The split of a pair, whichever number comes first."""
    return split_by_hash(f"{min(a, b)}*{max(a, b)}", HELD_OUT_PERCENT)


def check(answer: str, product: int) -> tuple[bool, str]:
    """Is `answer` the product, written in plain digits? With the reason."""
    answer = answer.strip(" \n\t\r")
    if not (answer.isascii() and answer.isdigit()):
        return False, "not a whole number in plain digits"
    if len(answer) > 2 * MAX_DIGITS:
        return False, f"{len(answer)} digits"
    if answer[0] == "0" and answer != "0":
        return False, "begins with a zero"
    if int(answer) != product:
        return False, f"is {answer}, not {product}"
    return True, f"is {product}"


class Multiply:
    """The product of two numbers; a reward of 1 for the right one and 0 for anything else.

    `digits` are the lengths of the numbers: each of the two draws one of them. Every pair of a
    split comes up once, in either order.
    """

    name = "multiply"

    def __init__(self, digits: int | tuple[int, ...] = (2,), template: str = "plain"):
        digits = (digits,) if isinstance(digits, int) else tuple(digits)
        if not digits or not all(type(n) is int and 1 <= n <= MAX_DIGITS for n in digits):
            raise ConfigError(f"digits {list(digits)}", f"lengths from 1 to {MAX_DIGITS}")
        self.digits, self.template = digits, check_template(template)

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """Different pairs of one split, until there are no more."""
        check_split(split)
        rng = Random(seed_for("multiply", split, seed, *self.digits))
        listed = max(self.digits) <= ENUMERATED
        for a, b in self.all_pairs(rng) if listed else self.drawn_pairs(rng):
            if split_of(a, b) == split:
                yield as_problem(a, b)

    def all_pairs(self, rng: Random) -> list[tuple[int, int]]:
        """Every pair once, shuffled; which number comes first is chance."""
        numbers = [n for length in set(self.digits) for n in numbers_of(length)]
        pairs = [(a, b) for a in numbers for b in numbers if a <= b]
        rng.shuffle(pairs)
        return [(a, b) if rng.random() < 0.5 else (b, a) for a, b in pairs]

    def drawn_pairs(self, rng: Random) -> Iterator[tuple[int, int]]:
        """Pairs drawn at random, each once, until chance brings no new one."""
        seen: set[tuple[int, int]] = set()
        misses = 0
        while misses < MAX_MISSES:
            a, b = (rng.choice(numbers_of(rng.choice(self.digits))) for _ in range(2))
            if (key := (min(a, b), max(a, b))) in seen:
                misses += 1
                continue
            seen.add(key)
            misses = 0
            yield a, b

    def ask(self, problem: Problem) -> str:
        """The prompt, in the frame of the template."""
        a, b = problem.given["a"], problem.given["b"]
        return framed(self.template, product_line(a, b), REQUEST.format(a=a, b=b))

    def grade(self, problem: Problem, text: str) -> Graded:
        """1 for the product in the last answer block, else 0, with the reason."""
        return grade_product(text, problem.given["a"] * problem.given["b"])

    def solve(self, problem: Problem) -> str:
        """The product, as a completion."""
        a, b = problem.given["a"], problem.given["b"]
        return f"{a}*{b}={a * b}\n{answer_ending(str(a * b))}"


def grade_product(text: object, product: int) -> Graded:
    """The grade of one completion; a value that is no text gets a reward of 0."""
    return grade_answer(text, lambda answer: check(answer, product))


def numbers_of(length: int) -> range:
    """The whole numbers with so many digits; 0 is none of them."""
    return range(10 ** (length - 1), 10**length)


def as_problem(a: int, b: int) -> Problem:
    """A pair as a record. The id keeps the order of the numbers, because the prompt shows it."""
    return Problem(f"multiply/{a}*{b}", "multiply", {"a": a, "b": b})


# -- the prompt -----------------------------------------------------------------------------


def product_line(a: int, b: int) -> str:
    """A pair in one line: the whole request for the bases made here, and in their corpus."""
    return f"multiply {a} times {b}"


REQUEST = (
    "What is {a} times {b}? Work it out inside <think> </think> tags, then give the product, in "
    "digits alone, inside <answer> </answer> tags, as in <answer> 42 </answer>."
)
