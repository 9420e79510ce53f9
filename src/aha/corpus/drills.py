"""Drills of the corpus: pages of arithmetic, and documents of the task `multiply`.

    48/6=8                         a page without verdicts: mostly products and quotients
    7*13=91
    93/7                           not whole: no result
    41-68                          below zero: no result

     target 82                     a page with verdicts: each result is compared with the goal
    25+57=82 yes
    82-7=75 need                   from here the goal is 75, for one line
    25*3=75 yes
    97-25=72 no

Products and quotients are hard, and rare among random operations. In a search, verdicts are rare,
and most of them are "no". A base that had read only searches calculated well, but its verdicts
were no better than chance.
"""

import re
from collections.abc import Iterator
from random import Random

from aha.corpus.bases import TraceMix
from aha.tasks.multiply import numbers_of, product_line, split_of
from aha.tasks.solver import OPERATORS
from aha.tasks.tags import answer_ending, plain_frame

PRODUCT = re.compile(r"(?<!\d)(\d\d)\*(\d\d)=")

# -- pages of arithmetic -------------------------------------------------------------------------


def page(rng: Random, mix: TraceMix, target: int) -> str:
    """A page of 6 to 14 lines; on a page with verdicts about half of them are "yes"."""
    size = rng.randint(6, 14)
    if rng.random() >= mix.judged:
        return "".join(f"{calculation(rng, mix.max_result)}\n" for _ in range(size))
    lines, goal = [f" target {target}"], target
    while len(lines) <= size:
        text = calculation_near(rng, mix.max_result, goal)
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


def page_for(rng: Random, mix: TraceMix, target: int) -> str:
    """A page; beside documents of `multiply` one without a product that it holds out."""
    text = page(rng, mix, target)
    while mix.multiply and writes_held_out(text):
        text = page(rng, mix, target)
    return text


def writes_held_out(text: str) -> bool:
    """Whether a line of the text is a product of two digits each that `multiply` holds out."""
    return any(split_of(int(a), int(b)) != "train" for a, b in PRODUCT.findall(text))


def calculation_near(rng: Random, max_result: int, goal: int) -> str:
    """An operation whose result is compared with `goal`.

    Nearly half of the results equal it. Some differ in one digit or have the digits swapped.
    """
    if (draw := rng.random()) >= 0.60:
        return calculation(rng, max_result)
    swapped = 9 * (goal % 10 - goal // 10 % 10)  # 47 for 74
    near = rng.choice((1, -1, 10, -10, 100, swapped))
    return calculation_of(rng, goal if draw < 0.45 else max(1, goal + near))


def calculation(rng: Random, max_result: int) -> str:
    """One random operation with its result, or one that has no result in whole numbers >= 0."""
    kind = rng.random()
    if kind > 0.82:
        return unfinished(rng)
    if kind < 0.35:
        high = rng.choice((99, 200, 400, 999))  # results of three digits are the hard ones
        a, b = rng.randint(1, high), rng.randint(1, 99)
        if rng.random() < 0.5:
            b = rng.randint(1, high) if rng.random() < 0.3 else b
            return f"{max(a, b)}-{min(a, b)}={abs(a - b)}"
        return f"{a}+{b}={a + b}" if rng.random() < 0.7 else f"{b}+{a}={a + b}"
    small = rng.randint(2, 12) if rng.random() < 0.7 else rng.randint(2, 31)
    other = rng.randint(2, min(99, max(2, max_result // small)))
    if kind < 0.70:
        a, b = (small, other) if rng.random() < 0.5 else (other, small)
        return f"{a}*{b}={a * b}"
    a, b = (small, other) if rng.random() < 0.3 else (other, small)
    return f"{a * b}/{b}={a}"


def unfinished(rng: Random) -> str:
    """An operation without a result: a division that is not whole, or (one in four) a negative
    difference. The remainder is often small, so that only calculation shows it."""
    if rng.random() < 0.25:
        b = rng.randint(2, 120)
        return f"{rng.randint(1, min(99, b - 1))}-{b}"
    while True:
        b = rng.randint(2, 12) if rng.random() < 0.5 else rng.randint(2, 60)
        a = b * rng.randint(1, max(1, 150 // b)) + rng.choice((1, -1, 2, -2, rng.randint(1, 99)))
        if a > b and a % b:
            return f"{a}/{b}"


def calculation_of(rng: Random, result: int) -> str:
    """An operation on numbers of the usual size with this result."""
    op = rng.choice(OPERATORS)
    if op == "*":
        divisors = [n for n in range(2, min(result, 100)) if result % n == 0 and result // n < 100]
        if divisors:
            a = rng.choice(divisors)
            return f"{a}*{result // a}={result}"
    elif op == "/":
        b = rng.randint(2, 12)
        return f"{result * b}/{b}={result}"
    elif op == "+" and result > 1:
        a = rng.randint(1, result - 1)
        return f"{a}+{result - a}={result}"
    b = rng.randint(1, 99)
    return f"{result + b}-{b}={result}"


# -- products ------------------------------------------------------------------------------------

SLIP = 0.06  # chance that one digit of a line in `long_way` is wrong
AT_ONCE_RIGHT = 0.05  # share of right answers in `at_once`


def slipped(rng: Random, value: int) -> int:
    """The value with one digit changed."""
    text = str(value)
    place = rng.randrange(len(text))
    low = 1 if place == 0 and len(text) > 1 else 0
    other = rng.choice([d for d in range(low, 10) if d != int(text[place])])
    return int(f"{text[:place]}{other}{text[place + 1 :]}")


def at_once(rng: Random, a: int, b: int) -> tuple[list[str], int]:
    """(lines, answer) of a guess of the right size, often with the right last digit."""
    product = a * b
    if rng.random() >= AT_ONCE_RIGHT:
        near = product + 10 * rng.choice([n for n in range(-30, 31) if n])
        product = near if near > 0 and rng.random() < 0.6 else slipped(rng, product)
    return [f"{a}*{b}={product}"], product


def long_way(rng: Random, a: int, b: int) -> tuple[list[str], int]:
    """(lines, answer): `a` times each digit of `b`, then the sums of these products."""
    lines: list[str] = []

    def write(left: int, sign: str, right: int) -> int:
        value = left * right if sign == "*" else left + right
        value = slipped(rng, value) if rng.random() < SLIP else value
        lines.append(f"{left}{sign}{right}={value}")
        return value

    parts = [write(a, "*", place) for place in places_of(b)]
    total = parts[0]
    for part in parts[1:]:
        total = write(total, "+", part)
    return lines, total


def places_of(number: int) -> list[int]:
    """46 as [40, 6]: what the long way multiplies by. Zeros are left out."""
    digits = str(number)
    return [int(d) * 10 ** (len(digits) - 1 - i) for i, d in enumerate(digits) if d != "0"]


def train_pair(rng: Random) -> tuple[int, int]:
    """Two numbers of two digits whose product, and whose partial products, are of no other split
    than the training's."""
    numbers = numbers_of(2)
    while True:
        a, b = rng.choice(numbers), rng.choice(numbers)
        if split_of(a, b) == split_of(a, b - b % 10) == "train":
            return a, b


def product_document(rng: Random, mix: TraceMix) -> tuple[str, str]:
    """`(prompt, completion)` for two numbers of two digits, from the training split."""
    a, b = train_pair(rng)
    way = long_way if rng.random() < mix.long_way else at_once
    lines, answer = way(rng, a, b)
    text = "".join(f"{line}\n" for line in lines)
    return plain_frame(product_line(a, b)), f"{text}{answer_ending(str(answer))}"


def product_page(rng: Random) -> str:
    """A page of single lines of the long way, all right: partial products, and twice as many sums.

    Such sums have three and four digits, which no puzzle's have, and a long way with one slip
    teaches nothing: a base without these pages lost most of its products in the sum.
    """
    lines = []
    for _ in range(rng.randint(6, 14)):
        a, b = train_pair(rng)
        parts = [(a, place) for place in places_of(b)]
        if len(parts) == 2 and rng.random() < 2 / 3:
            left, right = (a * place for a, place in parts)
            lines.append(f"{left}+{right}={left + right}")
        else:
            a, place = rng.choice(parts)
            lines.append(f"{a}*{place}={a * place}")
    return "".join(f"{line}\n" for line in lines)


def product_documents(rng: Random, mix: TraceMix) -> Iterator[tuple[str, str]]:
    """The products before the next puzzle: a random number of them, often none. Before each there
    may be a page of its kind of lines, at the rate of the pages of arithmetic."""
    while rng.random() < mix.multiply:
        if rng.random() < mix.drill:
            yield "", product_page(rng)
        yield product_document(rng, mix)
