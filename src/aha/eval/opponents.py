"""Searches without a model, to compare a model with. Each line that they write is counted.

    blind         complete attempts by chance, hardly one of them twice
    in-order      pair by pair with + - * /, every operation on the last two numbers: needs no eyes
    glance        in order; of the last two numbers only the operation that comes nearest
    clairvoyant   in order; the last operation is written only where it makes the target

All calculate without a fault, and so they write no division that is not whole. None knows a
solution before: the last three see at most what one operation makes of two numbers. They write the
grammar of our bases, with `yes` or `no` behind a complete attempt, and are counted in the tokens of
the model that they are compared with: another vocabulary needs another number for the same lines.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING

from aha.corpus.terms import Move, Table, TableNumber, join, line, without
from aha.eval.random_search import WrittenLine, by_chance
from aha.tasks.solver import OPERATORS
from aha.tasks.tags import answer_ending

if TYPE_CHECKING:  # it brings torch, and a search needs none
    from aha.model.tokenizer import Tokenizer

Opponent = Callable[[tuple[int, ...], int, int], Iterator[WrittenLine]]  # numbers, target, seed
Eyes = Callable[[list[Move], int], Iterable[Move]]  # the moves on the last two numbers to write
CountTokens = Callable[[str], int]  # the tokens of one line with its line break, or of an answer

LARGEST_RESULT = 1_000  # or ten times the target, where that is more
STOP_TOKENS = 1  # at the end of a completion


def operations(terms: Table, largest: int) -> Iterator[Move]:
    """Every operation on two of the terms in the order of the corpus: pair by pair, then + - * /.
    The larger number stands first, also in a sum, which costs no token more.

    Left out are divisions that are not whole, results of 0 and above `largest`, and x * 1 and x / 1
    while more numbers are left. Of the last two x * 1 is in: it may be all that is missing.
    """
    for a, b in combinations(terms, 2):
        if a.value < b.value:
            a, b = b, a
        for op in OPERATORS:
            if b.value == 1 and (op == "/" or (op == "*" and len(terms) > 2)):
                continue
            result = join(a, op, b)
            if b.value and result is not None and 0 < result.value <= largest:
                yield a, op, b, result


def every(moves: list[Move], target: int) -> Iterable[Move]:
    """No eyes: every move is written."""
    return moves


def nearest(moves: list[Move], target: int) -> Iterable[Move]:
    """A glance: the first move of those that come nearest to the target."""
    return [min(moves, key=lambda move: abs(move[3].value - target))] if moves else []


def hits(moves: list[Move], target: int) -> Iterable[Move]:
    """A look: the moves that make the target."""
    return [move for move in moves if move[3].value == target]


def in_order(
    eyes: Eyes, numbers: tuple[int, ...], target: int, seed: int = 0
) -> Iterator[WrittenLine]:
    """The lines of a search in order, depth first. It ends when all is tried; `seed` has no part
    in it."""
    largest = max(LARGEST_RESULT, 10 * target)

    def ahead(terms: Table) -> Iterator[WrittenLine]:
        moves = operations(terms, largest)
        if len(terms) == 2:
            for a, op, b, result in eyes(list(moves), target):
                yield line(a, op, b, result), result
            return
        for a, op, b, result in moves:
            yield line(a, op, b, result), None
            yield from ahead((result, *without(terms, a, b)))

    return ahead(tuple(map(TableNumber.given, numbers)))


OPPONENTS: dict[str, Opponent] = {
    "blind": by_chance,
    "in-order": partial(in_order, every),
    "glance": partial(in_order, nearest),
    "clairvoyant": partial(in_order, hits),
}


class OpponentSearch:
    """One opponent on one puzzle, which can be continued under a larger limit.

    `end` is the number of tokens of its whole completion, stop token included, and None while there
    is none within the limits so far. A search that has tried everything answers with its nearest
    attempt, or without one with the sum of the numbers. `count` says what a text costs.
    """

    def __init__(
        self, name: str, numbers: tuple[int, ...], target: int, seed: int, count: CountTokens
    ):
        self.count = count
        self.writes = OPPONENTS[name](numbers, target, seed)
        self.target = target
        self.lines: list[str] = []
        self.tokens = 0  # of the lines
        self.answer, self.value = "+".join(map(str, numbers)), sum(numbers)
        self.distance = float("inf")  # of the nearest attempt from the target
        self.end: int | None = None

    @property
    def solved(self) -> bool:
        """Whether its completion is whole and its answer right."""
        return self.end is not None and self.value == self.target

    def continue_to(self, limit: int) -> None:
        """Write until the completion is whole, or longer than `limit` tokens."""
        while self.end is None and self.tokens <= limit:
            text, attempt = next(self.writes, ("", None))
            if not text:
                self.finish()
            elif attempt is None:
                self.write(text)
            else:
                right = attempt.value == self.target
                self.write(f"{text} {'yes' if right else 'no'}")
                distance = abs(attempt.value - self.target)
                if distance < self.distance:
                    self.answer, self.value = attempt.text, attempt.value
                    self.distance = distance
                if right:
                    self.finish()

    def write(self, text: str) -> None:
        """One line; its line break is among the tokens."""
        self.lines.append(text)
        self.tokens += self.count(f"{text}\n")

    def finish(self) -> None:
        """Give the answer."""
        self.end = self.tokens + self.count(answer_ending(self.answer)) + STOP_TOKENS

    def completion(self) -> str:
        """What is written so far; with the answer where the completion is whole."""
        body = "".join(f"{text}\n" for text in self.lines)
        return body if self.end is None else body + answer_ending(self.answer)


def counter_of(tokenizer: "Tokenizer") -> CountTokens:
    """Counts in the tokens of a model."""
    return lambda text: len(tokenizer.fast.encode(text, add_special_tokens=False).ids)


def counts_by_line(tokenizer: "Tokenizer") -> bool:
    """Whether a completion has as many tokens as its lines and its answer one by one, and can be
    written at all. Not so where a tokenizer begins each text with a space of its own."""
    search = OpponentSearch("in-order", (46, 32, 94), 80, 0, counter_of(tokenizer))
    search.continue_to(4_000)
    text = search.completion()
    ids = tokenizer.fast.encode(text, add_special_tokens=False).ids
    return search.end == len(ids) + STOP_TOKENS and tokenizer.reads_back(ids, text)
