"""Which problem of a packaged task a prompt asks, and the split of it.

Examples for fine-tuning come from anywhere, so the prompt itself has to say what it is: the lines
of our own bases, our requests, and TinyZero's wording are read.
"""

import re
from collections.abc import Callable, Iterator

from aha.tasks import countdown, multiply

NUMBER = r"\d{1,18}"
PUZZLES = (
    re.compile(rf"^numbers ({NUMBER}(?: {NUMBER}){{1,5}}) target ({NUMBER})\s*$", re.M | re.ASCII),
    re.compile(rf"numbers \[({NUMBER}(?:, ?{NUMBER}){{1,5}})\][^\n]{{0,60}}? equals ({NUMBER})"),
)
PRODUCTS = (
    re.compile(rf"^multiply ({NUMBER}) times ({NUMBER})\s*$", re.M | re.ASCII),
    re.compile(rf"What is ({NUMBER}) times ({NUMBER})\?", re.ASCII),
)


def problems_in(prompt: str) -> Iterator[tuple[str, str]]:
    """(problem in words, its split) of every problem of Countdown or `multiply` in a prompt."""
    readers: tuple[tuple[tuple[re.Pattern[str], ...], Callable[[str, str], tuple[str, str]]], ...]
    readers = ((PUZZLES, puzzle_split), (PRODUCTS, product_split))
    for patterns, split in readers:
        for pattern in patterns:
            for match in pattern.finditer(prompt):
                yield split(match[1], match[2])


def puzzle_split(listed: str, target: str) -> tuple[str, str]:
    numbers = tuple(int(digits) for digits in re.findall(r"\d+", listed))
    name = f"countdown {', '.join(map(str, numbers))} = {int(target)}"
    return name, countdown.split_of(numbers, int(target))


def product_split(a: str, b: str) -> tuple[str, str]:
    return f"multiply {int(a)} * {int(b)}", multiply.split_of(int(a), int(b))


def held_out_problem(prompt: str) -> str | None:
    """The first problem of the prompt that belongs to no training split, in words with its split;
    None where there is none."""
    for name, split in problems_in(prompt):
        if split != "train":
            return f"{name}, of the split {split}"
    return None
