"""Products for the corpus: a base has to have read some before a reward can find right ones.

    72*92                            digit by digit: right where each line is
    72*90=6480
    72*2=144
    6480+144=6624

    72*92=6524                       at once: mostly wrong; RL has to make it rare

None are written while the rate `multiply` of the mix is 0. Only pairs of the training split are
written, the first product of the long way included (72*90 is a pair too). The pages of arithmetic
(`drills`) do not know this split: they hold some products with a factor up to 31 of any split.
"""

from collections.abc import Iterator
from random import Random

from aha.corpus.mix import TraceMix
from aha.tasks.multiply import numbers_of, product_line, split_of
from aha.tasks.tags import answer_ending
from aha.tasks.templates import plain_frame

SLIP = 0.06  # chance that a line of the long way is off by a digit
AT_ONCE_RIGHT = 0.05  # of the answers at once


def slipped(rng: Random, value: int) -> int:
    """The value with one digit changed."""
    text = str(value)
    place = rng.randrange(len(text))
    low = 1 if place == 0 and len(text) > 1 else 0
    other = rng.choice([d for d in range(low, 10) if d != int(text[place])])
    return int(f"{text[:place]}{other}{text[place + 1 :]}")


def at_once(rng: Random, a: int, b: int) -> tuple[list[str], int]:
    """(lines, answer) of a guess: of the right size, its last digit often right."""
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

    digits = str(b)
    places = [int(d) * 10 ** (len(digits) - 1 - i) for i, d in enumerate(digits) if d != "0"]
    parts = [write(a, "*", place) for place in places]
    total = parts[0]
    for part in parts[1:]:
        total = write(total, "+", part)
    return lines, total


def product_document(rng: Random, mix: TraceMix) -> tuple[str, str]:
    """`(prompt, completion)` of a pair of two-digit numbers of the training split."""
    numbers = numbers_of(2)
    while True:
        a, b = rng.choice(numbers), rng.choice(numbers)
        if split_of(a, b) == split_of(a, b - b % 10) == "train":
            break
    way = long_way if rng.random() < mix.long_way else at_once
    lines, answer = way(rng, a, b)
    text = "".join(f"{line}\n" for line in lines)
    return plain_frame(product_line(a, b)), f"{text}{answer_ending(str(answer))}"


def product_documents(rng: Random, mix: TraceMix) -> Iterator[tuple[str, str]]:
    """The products before the next puzzle: none, or any number of them, as chance has it."""
    while rng.random() < mix.multiply:
        yield product_document(rng, mix)
