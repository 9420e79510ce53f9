"""Every value that a set of numbers can make. Shares no code with the verifier.

It is used for making solvable problems, for knowing their difficulty, for tests and baselines.
It never helps a model: nothing in rollout, eval or train calls it.
"""

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

OPERATORS = "+-*/"

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
Step = tuple[int, str, int, int]  # a, operator, b, result


def apply(op: str, a: int, b: int) -> int | None:
    """`a op b` over the non-negative integers, or None where it leaves them.

    Intermediates below zero are never needed: any solution that has one can be rewritten without.
    """
    if op == "+":
        return a + b
    if op == "-":
        return a - b if a >= b else None
    if op == "*":
        return a * b
    return a // b if b and a % b == 0 else None


def unordered_results(a: int, b: int) -> list[int]:
    """The values that two numbers can make, each pair of operands counted once: a+b, |a-b|, a*b,
    and the exact quotients."""
    results = [a + b, abs(a - b), a * b]
    if b and a % b == 0:
        results.append(a // b)
    if a and b % a == 0 and a != b:
        results.append(b // a)
    return results


@lru_cache(maxsize=1 << 14)
def _make(numbers: tuple[int, ...]) -> Counter[int]:
    """Values reachable with all of `numbers` (sorted), with the number of ways to make each."""
    if len(numbers) == 1:
        return Counter(numbers)
    ways: Counter[int] = Counter()
    places = range(1, len(numbers))
    for size in range(len(numbers) - 1):
        # The first number always goes left, so that each partition comes up once.
        for others in combinations(places, size):
            left = (numbers[0], *(numbers[i] for i in others))
            right = tuple(numbers[i] for i in places if i not in others)
            for a, ways_a in _make(left).items():
                for b, ways_b in _make(right).items():
                    for value in unordered_results(a, b):
                        ways[value] += ways_a * ways_b
    return ways


def reachable(numbers: tuple[int, ...]) -> Counter[int]:
    """All values that use each number exactly once, mapped to the number of distinct ways.

    Operators + - * / over non-negative integers with exact division; commuted operands count
    once. Difficulty of a problem = `reachable(numbers)[target]`: few ways is hard.
    """
    return _make(tuple(sorted(numbers)))


def can_make(numbers: tuple[int, ...], target: int) -> bool:
    """Whether `reachable(numbers)` holds the target; the search ends at the first way."""
    if len(numbers) == 1:
        return numbers[0] == target
    if len(numbers) == 2:
        return target in unordered_results(*numbers)
    for i, j in combinations(range(len(numbers)), 2):
        rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
        for value in set(unordered_results(numbers[i], numbers[j])):
            if can_make((*rest, value), target):
                return True
    return False


def solutions(numbers: tuple[int, ...], target: int, limit: int = 1000) -> list[tuple[Step, ...]]:
    """Solutions as tuples of steps `(a, op, b, result)`, by depth-first search; at most `limit`."""
    solved: list[tuple[Step, ...]] = []

    def search(state: tuple[int, ...], steps: tuple[Step, ...]) -> None:
        if len(solved) >= limit:
            return
        if len(state) == 1:
            if state[0] == target:
                solved.append(steps)
            return
        for i, j in combinations(range(len(state)), 2):
            rest = tuple(n for k, n in enumerate(state) if k not in (i, j))
            high, low = max(state[i], state[j]), min(state[i], state[j])
            for op in OPERATORS:
                result = apply(op, high, low)
                if result is not None:
                    search((*rest, result), (*steps, (high, op, low, result)))

    search(tuple(numbers), ())
    return solved


# -- many puzzles at once -------------------------------------------------------------------

CHUNK = 8192  # rows that are searched together: what fits a processor's cache
MAX_EXACT = 2.0**40  # the largest product of numbers whose floats are exact enough here
MAX_ALONE = 200  # puzzles with more or larger numbers, which are searched one by one
NEAR = 1e-7


def unsolvable(puzzles: Sequence[tuple[tuple[int, ...], int]]) -> tuple[list[int], int]:
    """(places of the puzzles that nobody can solve, how many were not examined).

    Exact rationals count as values, as for the verifier. The search is in float64, many puzzles at
    a time: one that comes within NEAR of its target is taken to be solvable. Half a million puzzles
    of three and four numbers take some three seconds. Of those with six numbers or with large ones,
    MAX_ALONE are examined.
    """
    places: dict[int, list[int]] = {}
    alone: list[int] = []
    for place, (numbers, target) in enumerate(puzzles):
        small = len(numbers) <= 5 and math.prod(numbers) * max(target, 1) <= MAX_EXACT
        (places.setdefault(len(numbers), []) if small else alone).append(place)
    bad = [place for place in alone[:MAX_ALONE] if not can_make_exactly(*puzzles[place])]
    for size, same_size in places.items():
        for first in range(0, len(same_size), CHUNK):
            chunk = same_size[first : first + CHUNK]
            table = np.array([[*puzzles[i][0], puzzles[i][1]] for i in chunk], dtype=np.float64)
            columns = [table[:, column] for column in range(size)]
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                solved = _solved(columns, table[:, size])
            bad += [place for place, is_solved in zip(chunk, solved, strict=True) if not is_solved]
    return sorted(bad), max(0, len(alone) - MAX_ALONE)


def _solved(columns: list[FloatArray], target: FloatArray) -> BoolArray:
    """Which rows can make their target of all their columns."""
    if len(columns) == 1:
        near: BoolArray = np.abs(columns[0] - target) <= NEAR
        return near
    solved = np.zeros(len(target), dtype=bool)
    for i, j in combinations(range(len(columns)), 2):
        for operation in range(5):
            still = np.flatnonzero(~solved) if len(columns) > 2 else slice(None)
            a, b, goal = columns[i][still], columns[j][still], target[still]
            if not len(goal):
                return solved
            # |a - b|: a value below zero is never needed, see `apply`.
            value = (a + b, np.abs(a - b), a * b)[operation] if operation < 3 else None
            if value is None:
                value = a / b if operation == 3 else b / a
            rest = [column[still] for k, column in enumerate(columns) if k not in (i, j)]
            solved[still] |= _solved([*rest, value], goal)
    return solved


def can_make_exactly(numbers: tuple[int, ...], target: int) -> bool:
    """Whether the target can be made with exact fractions between: 8/(3-8/3) is 24."""
    if can_make(numbers, target):
        return True
    if len(numbers) > 5:
        return True  # nobody has shown that it cannot, and to show it takes minutes
    return _reaches(tuple(map(Fraction, numbers)), Fraction(target))


def _reaches(numbers: tuple[Fraction, ...], target: Fraction) -> bool:
    if len(numbers) == 1:
        return numbers[0] == target
    for i, j in combinations(range(len(numbers)), 2):
        rest = tuple(n for k, n in enumerate(numbers) if k not in (i, j))
        a, b = numbers[i], numbers[j]
        values = {a + b, abs(a - b), a * b}
        values |= {a / b} if b else set()
        values |= {b / a} if a else set()
        if any(_reaches((*rest, value), target) for value in values):
            return True
    return False
