"""The referee against brute force that shares nothing with it."""

from fractions import Fraction
from itertools import combinations, permutations, product
from random import Random

import pytest

from aha.tasks.countdown import check
from aha.tasks.solver import (
    apply,
    can_make,
    can_make_exactly,
    reachable,
    solutions,
    unsolvable,
)


def make(op: str, a: Fraction, b: Fraction) -> Fraction | None:
    if op == "/":
        return a / b if b else None
    return {"+": a + b, "-": a - b, "*": a * b}[op]


def three_number_values(numbers: tuple[int, ...]) -> set[Fraction]:
    """Every value of (a op b) op c and a op (b op c) over all orders, in Fractions."""
    found = set()
    for a, b, c in permutations(map(Fraction, numbers)):
        for first, second in product("+-*/", repeat=2):
            for inner, outer in ((make(first, a, b), (None, c)), (make(first, b, c), (a, None))):
                if inner is not None:
                    left, right = (inner if side is None else side for side in outer)
                    found.add(make(second, left, right))
    return found - {None}


def test_three_numbers_by_brute_force():
    """With three numbers the rule of non-negative integers on the way loses no target at all."""
    rng = Random(3)
    for _ in range(300):
        numbers = tuple(rng.randint(1, 99 if rng.random() < 0.5 else 12) for _ in range(3))
        everything = three_number_values(numbers)
        assert set(reachable(numbers)) == {v for v in everything if v >= 0 and v.denominator == 1}


@pytest.mark.parametrize("size, draws", [(1, 20), (2, 200), (3, 200), (4, 20)])
def test_can_make_is_reachable_with_an_early_end(size, draws):
    rng = Random(size)
    for _ in range(draws):
        numbers = tuple(rng.randint(1, 99 if rng.random() < 0.5 else 12) for _ in range(size))
        within = reachable(numbers)
        for target in [*range(0, 101), *rng.sample(sorted(within), min(5, len(within)))]:
            assert can_make(numbers, target) == (target in within), (numbers, target)


def test_a_target_that_only_a_fraction_reaches():
    """With four it loses a few: the verifier takes the answer, the solver knows of none."""
    assert check("8/(3-8/3)", (8, 3, 8, 3), 24) == (True, "makes 24 of every number once")
    assert 24 not in reachable((8, 3, 8, 3))


def trees(numbers: tuple[int, ...]) -> dict[int, int]:
    """Distinct ways by writing down every tree: numbers told apart by place, twins sorted."""
    start = tuple((number, (str(place),)) for place, number in enumerate(numbers))
    done: set[tuple] = set()

    def combine(state: tuple) -> None:
        if len(state) == 1:
            done.add(state[0])
            return
        for x, y in combinations(state, 2):
            rest = tuple(term for term in state if term is not x and term is not y)
            for result in pairs(x, y):
                combine((*rest, result))

    def pairs(x: tuple, y: tuple) -> list[tuple]:
        twins = tuple(sorted((x[1], y[1]), key=repr))
        high, low = (x, y) if x[0] > y[0] else (y, x)
        ordered = twins if x[0] == y[0] else (high[1], low[1])
        made = [(x[0] + y[0], ("+", *twins)), (x[0] * y[0], ("*", *twins))]
        made.append((high[0] - low[0], ("-", *ordered)))
        if low[0] and high[0] % low[0] == 0:
            made.append((high[0] // low[0], ("/", *ordered)))
        if high[0] and low[0] % high[0] == 0 and low[0] != high[0]:
            made.append((low[0] // high[0], ("/", low[1], high[1])))
        return made

    combine(start)
    counts: dict[int, int] = {}
    for value, _ in done:
        counts[value] = counts.get(value, 0) + 1
    return counts


@pytest.mark.parametrize(
    "numbers",
    [
        (3, 7, 25),
        (5, 5, 5),
        (1, 1, 2),
        (2, 4, 8),
        (6, 3, 3),
        (3, 7, 25, 50),
        (2, 2, 4, 4),
        (1, 2, 3, 4),
    ],
)
def test_ways_are_distinct_trees(numbers):
    assert dict(reachable(numbers)) == trees(numbers)


def test_order_does_not_matter():
    assert reachable((3, 7, 25)) == reachable((25, 3, 7))


def as_text(numbers: tuple[int, ...], steps: tuple) -> str:
    """The steps of a solution put together into one expression."""
    terms = [(number, str(number)) for number in numbers]
    for a, op, b, result in steps:
        left = terms.pop([value for value, _ in terms].index(a))
        right = terms.pop([value for value, _ in terms].index(b))
        terms.append((result, f"({left[1]}{op}{right[1]})"))
    ((_, text),) = terms
    return text


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_every_solution_is_graded_correct(size):
    rng, graded = Random(size), 0
    while graded < 150:
        numbers = tuple(rng.randint(1, 99) for _ in range(size))
        target = rng.choice([value for value in reachable(numbers) if value] or [1])
        found = solutions(numbers, target, limit=20)
        assert found
        for steps in found:
            text = as_text(numbers, steps)
            assert check(text, numbers, target) == (True, f"makes {target} of every number once")
            assert not check(text, numbers, target + 1)[0]
            graded += 1


def test_solutions_and_reachable_agree_on_solvability():
    rng = Random(5)
    for _ in range(100):
        numbers = tuple(rng.randint(1, 30) for _ in range(3))
        targets = [target for target in range(1, 101) if solutions(numbers, target, limit=1)]
        assert targets == [target for target in range(1, 101) if reachable(numbers)[target]]


def test_the_limit_holds():
    assert len(solutions((1, 2, 3, 4, 5), 10, limit=7)) == 7


@pytest.mark.parametrize(
    ("op", "a", "b", "result"),
    [
        *(("+", 3, 7, 10), ("-", 7, 3, 4), ("-", 3, 3, 0), ("-", 3, 7, None), ("*", 3, 0, 0)),
        *(
            ("/", 21, 7, 3),
            ("/", 20, 7, None),
            ("/", 7, 0, None),
            ("/", 0, 7, 0),
            ("/", 3, 7, None),
        ),
    ],
)
def test_operations_stay_within_the_non_negative_integers(op, a, b, result):
    assert apply(op, a, b) == result


def test_what_nobody_can_solve_is_found_among_many():
    rng = Random(5)
    puzzles = [
        (tuple(rng.randint(1, 30) for _ in range(size)), rng.randint(1, 100))
        for size in (2, 3, 4)
        for _ in range(25)
    ]
    puzzles += [((3, 3, 8, 8), 24), ((1, 1, 1), 40), ((1, 5, 5, 5), 24)]  # two need fractions
    expected = [i for i, puzzle in enumerate(puzzles) if not can_make_exactly(*puzzle)]
    assert unsolvable(puzzles) == (expected, 0) and len(puzzles) - 2 in expected
    assert 10 < len(expected) < len(puzzles) - 10
    assert unsolvable([]) == ([], 0)


def test_large_numbers_are_searched_one_by_one_and_at_most_so_many():
    large = ((10**9, 10**9, 3), 4)  # 10^9 / 10^9 + 3
    assert unsolvable([large, ((10**9, 10**9, 3), 9)]) == ([1], 0)
    assert unsolvable([large] * 300) == ([], 100)
