"""Pages of arithmetic for the corpus, so that calculating and judging are learnt apart from search.

    48/6=8                         a bare page: results, mostly of products and quotients
    7*13=91

    93/7                           not whole: left
    41-68                          below zero: left

     target 82                     a judged page: each result is compared with the goal
    25+57=82 yes
    82-7=75 need                   from here the goal is 75, for one line
    25*3=75 yes
    97-25=72 no

Products and quotients are hard, and rare among random operations; verdicts in a search are rare,
and rarely "yes". A base that had read searches alone calculated well and judged by chance.
"""

from random import Random

from aha.corpus.mix import TraceMix
from aha.tasks.solver import OPERATORS


def page(rng: Random, mix: TraceMix, target: int) -> str:
    """A page of 6 to 14 lines; about half the verdicts of a judged one are "yes"."""
    size = rng.randint(6, 14)
    if rng.random() >= mix.judged:
        return "".join(f"{calculation(rng, mix.max_result)}\n" for _ in range(size))
    lines, goal = [f" target {target}"], target
    while len(lines) <= size:
        text = judged_calculation(rng, mix.max_result, goal)
        if "=" not in text:
            lines.append(text)
            continue
        lines.append(f"{text} {'yes' if text.endswith(f'={goal}') else 'no'}")
        goal = target
        if rng.random() < mix.backward:
            kept, back = rng.randint(1, min(99, target - 1)), rng.choice("+-")
            goal = target + kept if back == "+" else target - kept
            lines.append(f"{target}{back}{kept}={goal} need")
    return "".join(f"{text}\n" for text in lines)


def judged_calculation(rng: Random, max_result: int, goal: int) -> str:
    """Nearly half reach the goal, some a near miss: one digit off, or its digits swapped."""
    if (draw := rng.random()) >= 0.60:
        return calculation(rng, max_result)
    swapped = 9 * (goal % 10 - goal // 10 % 10)  # 47 for 74
    near = rng.choice((1, -1, 10, -10, 100, swapped))
    return reaching(rng, goal if draw < 0.45 else max(1, goal + near))


def calculation(rng: Random, max_result: int) -> str:
    """One random operation with its result, or an operation that is left because it has none."""
    kind = rng.random()
    if kind > 0.82:
        return unfinished(rng)
    if kind < 0.35:
        high = rng.choice((99, 99, 99, 200, 999))
        a, b = rng.randint(1, high), rng.randint(1, 99)
        if rng.random() < 0.5:
            return f"{max(a, b)}-{min(a, b)}={abs(a - b)}"
        return f"{a}+{b}={a + b}" if rng.random() < 0.7 else f"{b}+{a}={a + b}"
    small = rng.randint(2, 12) if rng.random() < 0.7 else rng.randint(2, 31)
    other = rng.randint(2, min(99, max_result // small))
    if kind < 0.70:
        a, b = (small, other) if rng.random() < 0.5 else (other, small)
        return f"{a}*{b}={a * b}"
    a, b = (small, other) if rng.random() < 0.3 else (other, small)
    return f"{a * b}/{b}={a}"


def unfinished(rng: Random) -> str:
    """A division that is not whole, often by little: it takes calculating to see that. One in four
    is a difference below zero."""
    if rng.random() < 0.25:
        b = rng.randint(2, 120)
        return f"{rng.randint(1, min(99, b - 1))}-{b}"
    while True:
        b = rng.randint(2, 12) if rng.random() < 0.5 else rng.randint(2, 60)
        a = b * rng.randint(1, max(1, 150 // b)) + rng.choice((1, -1, 2, -2, rng.randint(1, 99)))
        if a > b and a % b:
            return f"{a}/{b}"


def reaching(rng: Random, goal: int) -> str:
    """An operation on numbers of the usual size that results in `goal`."""
    op = rng.choice(OPERATORS)
    if op == "*":
        divisors = [n for n in range(2, min(goal, 100)) if goal % n == 0 and goal // n < 100]
        if divisors:
            a = rng.choice(divisors)
            return f"{a}*{goal // a}={goal}"
    elif op == "/":
        b = rng.randint(2, 12)
        return f"{goal * b}/{b}={goal}"
    elif op == "+" and goal > 1:
        a = rng.randint(1, goal - 1)
        return f"{a}+{goal - a}={goal}"
    b = rng.randint(1, 99)
    return f"{goal + b}-{b}={goal}"
