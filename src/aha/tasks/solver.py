"""Every value that a set of numbers can make. Shares no code with the verifier.

It is used for making solvable problems, for knowing their difficulty, for tests and baselines.
It never helps a model: nothing in rollout, eval or train calls it.
"""

from collections import Counter
from functools import lru_cache
from itertools import combinations

OPERATORS = "+-*/"

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
