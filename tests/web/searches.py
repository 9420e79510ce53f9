"""Completions that search a puzzle of three numbers in a way that is known, for records of a run.

Written here and not by the corpus room, so that a fault there does not make a test pass here.
"""

import random
from itertools import combinations

END = "</think>\n<answer>{answer}</answer>"
SIGNS = "+-*"


def result_of(a: int, sign: str, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b}[sign]


def moves(table: list[int]):
    """(line without a verdict, result, what is left) for each pair and sign, the larger first."""
    for i, j in combinations(range(len(table)), 2):
        a, b = sorted((table[i], table[j]), reverse=True)
        left = [number for place, number in enumerate(table) if place not in (i, j)]
        for sign in SIGNS:
            if (result := result_of(a, sign, b)) > 0:
                yield f"{a}{sign}{b}={result}", result, left


def verdict(line: str, result: int, target: int) -> str:
    return f"{line} {'yes' if result == target else 'no'}"


def answered(lines: list[str]) -> str:
    """The lines, and an answer where the last one hits the target (its lines are the working)."""
    if not lines[-1].endswith("yes"):
        return "\n".join([*lines, END.format(answer="0")])
    first = next(line for line in reversed(lines[:-1]) if "no" not in line)
    expression, result = first.split("=")
    last = lines[-1].split("=")[0]
    return "\n".join([*lines, END.format(answer=last.replace(result, f"({expression})", 1))])


def by_chance(numbers: list[int], target: int, rng: random.Random, attempts: int = 4) -> str:
    lines: list[str] = []
    for _ in range(attempts):
        line, result, left = rng.choice(list(moves(numbers)))
        last, end, _ = rng.choice(list(moves([result, *left])))
        lines += [line, verdict(last, end, target)]
        if end == target:
            break
    return answered(lines)


def in_order(numbers: list[int], target: int, glance: bool) -> str:
    """Pair by pair; with a glance only the last operation that comes nearest to the target."""
    lines: list[str] = []
    for line, result, left in moves(numbers):
        lines.append(line)
        ends = [(verdict(last, end, target), end) for last, end, _ in moves([result, *left])]
        if glance:
            ends = [min(ends, key=lambda pair: abs(pair[1] - target))]
        for shown, end in ends:
            lines.append(shown)
            if end == target:
                return answered(lines)
    return answered(lines)
