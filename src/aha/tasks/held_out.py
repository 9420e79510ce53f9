"""Which problem of a packaged task a prompt asks, and the split of it.

Examples for fine-tuning come from anywhere, so the prompt itself has to say what it is: the lines
of our own bases, our requests, and TinyZero's wording are read.
"""

import re
from collections.abc import Callable, Iterator

from aha.tasks import calculate, countdown, multiply

NUMBER = r"\d{1,18}"
PUZZLES = (
    re.compile(rf"^numbers ({NUMBER}(?: {NUMBER}){{1,5}}) target ({NUMBER})\s*$", re.M | re.ASCII),
    re.compile(rf"numbers \[({NUMBER}(?:, ?{NUMBER}){{1,5}})\][^\n]{{0,60}}? equals ({NUMBER})"),
)
PRODUCTS = (re.compile(rf"^multiply ({NUMBER}) times ({NUMBER})\s*$", re.M | re.ASCII),)
WORD = "|".join(calculate.WORDS.values())
CALCULATIONS = (re.compile(rf"^({NUMBER}) ({WORD}) ({NUMBER})\s*$", re.M | re.ASCII),)
QUESTIONS = (re.compile(rf"What is ({NUMBER}) ({WORD}) ({NUMBER})\?", re.ASCII),)
OPERATIONS = {word: op for op, word in calculate.WORDS.items()}
SMALL = 12  # the largest factor of the ladder
Reader = Callable[[re.Match[str]], tuple[str, str]]


def problems_in(prompt: str) -> Iterator[tuple[str, str]]:
    """(problem in words, its split) of every problem of Countdown, `multiply` or `calculate` in a
    prompt."""
    readers: tuple[tuple[tuple[re.Pattern[str], ...], Reader], ...] = (
        (PUZZLES, puzzle_split),
        (PRODUCTS, product_split),
        (CALCULATIONS, calculation_split),
        (QUESTIONS, question_split),
    )
    for patterns, split in readers:
        for pattern in patterns:
            for match in pattern.finditer(prompt):
                yield split(match)


def puzzle_split(match: re.Match[str]) -> tuple[str, str]:
    numbers = tuple(int(digits) for digits in re.findall(r"\d+", match[1]))
    target = int(match[2])
    name = f"countdown {', '.join(map(str, numbers))} = {target}"
    return name, countdown.split_of(numbers, target)


def product_split(match: re.Match[str]) -> tuple[str, str]:
    a, b = int(match[1]), int(match[match.lastindex or 0])
    return f"multiply {a} * {b}", multiply.split_of(a, b)


def calculation_split(match: re.Match[str]) -> tuple[str, str]:
    a, op, b = int(match[1]), OPERATIONS[match[2]], int(match[3])
    return f"calculate {a} {op} {b}", calculate.split_of(a, op, b)


def question_split(match: re.Match[str]) -> tuple[str, str]:
    """A product has the same words in `calculate` and in `multiply`, which hold out others. Those
    of `multiply` are large; what it holds out of the others, `calculate` does too."""
    large = match[2] == "times" and min(int(match[1]), int(match[3])) > SMALL
    return product_split(match) if large else calculation_split(match)


def held_out_problem(prompt: str) -> str | None:
    """The first problem of the prompt that belongs to no training split, in words with its split;
    None where there is none."""
    for name, split in problems_in(prompt):
        if split != "train":
            return f"{name}, of the split {split}"
    return None
