"""Searches that go through the operations in a fixed order, by the ways of good players.

    numbers 24 1 3 7 target 73
    24+1=25 3 7                   three or more numbers are left: they are written
    25+3=28                       two are left, and are tried by eye:
    28+7=35 no                    the nearest of the four operations is written: by a glance
    ...                           if it is at all near the target, by a look only if very near
    back 24-1=23 3 7              all is tried with 25 3 7: back to the numbers before
    check                         the end was reached: once more, with other eyes

    73-7=66 need                  back from the target: what the other two must make

No memory of earlier tries is needed: the last line of each level says which operation is next, and
where that line is far away, "back" marks it. Some searches are sloppy on purpose, see `TraceMix`,
so that a base that has read them is still bad at them, and RL has the work. The way of a first pass
never depends on the solution of the puzzle.

Sources: depth-first search with the numbers left as in Stream of Search (arXiv 2404.03683). The
eyes and the passes are ours.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import NamedTuple

from aha.corpus.bases import TraceMix
from aha.corpus.terms import Move, OpenMove, Table, TableNumber, join, line, without
from aha.corpus.traces import Trace
from aha.tasks.solver import OPERATORS

NEAR_LOOKS = (0, 10, 25, 25)  # how near a result must be for a look to write it
NEAR_GLANCE = 60  # and for a glance: farther away are nearly all results of three digits
MOST_BLIND = 0.4  # share of the operations that a sloppy search passes by, at most
WRITTEN_FROM = 3  # numbers left, from which on they are written behind the result
BACK = "back "
INVERSE = {"+": "-", "-": "+", "*": "/", "/": "*"}


@dataclass(frozen=True)
class Eyes:
    """How operations are tried.

    `near` is for the last two numbers. None: each of the four operations is written. Else only the
    one that comes nearest to the goal, where it is at most `near` away. `blind` is the chance that
    an operation is passed by, on every level.
    """

    near: int | None
    blind: float = 0.0


class StepBack(NamedTuple):
    """The number that a step back from the target sets aside, and how it comes in again: as
    `made ahead kept`, or, where `turned`, as `kept ahead made`."""

    kept: TableNumber
    ahead: str
    turned: bool


class OrderlySearch:
    """The working of one puzzle, written into its trace.

    `skips`: operations that lead nowhere are left out; else they are written without a result.
    """

    def __init__(self, trace: Trace, mix: TraceMix, rng: Random):
        self.trace, self.mix, self.rng = trace, mix, rng
        self.skips = rng.random() < mix.skips
        gives_up = rng.random() < mix.give_up_early
        self.patience = mix.max_lines * (rng.random() if gives_up else 1.0)

    def write(self) -> None:
        """Passes with eyes drawn by the rates, until one of them solves the puzzle."""
        mix, rng = self.mix, self.rng
        backward, eyes = bool(mix.backward) and rng.random() < mix.work_back, self.draw_eyes()
        while not self.one_pass(eyes, backward) and not self.stops():
            if eyes.near is None or rng.random() >= mix.again:
                return
            self.trace.lines.append("check")
            # A look may have missed what a glance writes, and that misses what all four show.
            looked = eyes.near < NEAR_GLANCE or eyes.blind
            eyes = Eyes(NEAR_GLANCE if looked and rng.random() < 0.5 else None)
            backward = backward and eyes.near is not None

    def draw_eyes(self) -> Eyes:
        """Eyes by the rates."""
        mix, rng = self.mix, self.rng
        if rng.random() >= mix.glance:
            return Eyes(None)
        blind = MOST_BLIND * rng.random() if rng.random() < mix.sloppy else 0.0
        looks = rng.random() < mix.look
        return Eyes(rng.choice(NEAR_LOOKS) if looks else NEAR_GLANCE, blind)

    def one_pass(self, eyes: Eyes, backward: bool = False) -> bool:
        """Once through the operations from the first pair on; True if solved."""
        return self.level(self.trace.start, eyes, backward)

    def level(self, terms: Table, eyes: Eyes, backward: bool) -> bool:
        """All tries of these numbers; True if solved."""
        if len(terms) == 2:
            return self.last_two(terms, eyes, TableNumber.given(self.trace.target))
        return (self.back if backward and len(terms) == 3 else self.ahead)(terms, eyes, backward)

    def ahead(self, terms: Table, eyes: Eyes, backward: bool) -> bool:
        """Pair by pair with + - * /, depth first."""
        begun = len(self.trace.lines) if len(terms) > WRITTEN_FROM else None
        for a, b in combinations(terms, 2):
            for first, op, second, result in self.operations(a, b, begun=begun):
                if self.rng.random() < eyes.blind:
                    continue
                rest = (result, *without(terms, a, b))
                left = rest[1:] if len(rest) >= WRITTEN_FROM else ()
                text = self.mark(begun) + line(first, op, second, result)
                self.trace.lines.append(" ".join([text, *(str(term.value) for term in left)]))
                if self.level(rest, eyes, backward):
                    return True
                if self.stops():
                    return False
        return False

    def back(self, terms: Table, eyes: Eyes, _: bool = True) -> bool:
        """For each of three numbers that may come last, what the other two must make.

        One try at most follows a step back: a second one would be read as a try for the target.
        """
        target, eyes = (
            TableNumber.given(self.trace.target),
            eyes if eyes.near is not None else Eyes(NEAR_GLANCE),
        )
        for kept in terms:
            for first, op, second, need in self.operations(target, kept, by_one=True):
                if self.rng.random() < eyes.blind:
                    continue
                self.trace.lines.append(f"{line(first, op, second, need)} need")
                turned = first is kept and op in "-/"  # kept - need = target
                step = StepBack(kept, op if turned else INVERSE[op], turned)
                if self.last_two(without(terms, kept), eyes, need, step):
                    return True
                if self.stops():
                    return False
        return False

    def last_two(
        self, terms: Table, eyes: Eyes, goal: TableNumber, step: StepBack | None = None
    ) -> bool:
        """Try two numbers by eye."""
        a, b = terms
        tries: Iterable[Move] = self.operations(a, b, by_one=True)
        if eyes.near is not None:
            tries = self.in_sight(terms, goal, eyes)
        for first, op, second, result in tries:
            right = result.value == goal.value
            self.trace.lines.append(f"{line(first, op, second, result)} {'yes' if right else 'no'}")
            self.keep_nearest(result, abs(result.value - goal.value), step)
            if right:
                self.trace.solved = True
                return True
        return False

    def mark(self, begun: int | None) -> str:
        """The word before a line that goes back to the numbers of line `begun`, if it is not the
        first one on them; None: numbers so few that their last line is near."""
        return BACK if begun is not None and len(self.trace.lines) > begun else ""

    def operations(
        self, a: TableNumber, b: TableNumber, by_one: bool = False, begun: int | None = None
    ) -> Iterator[Move]:
        """The operations on two numbers that lead somewhere, in order; `begun` as in `mark`.

        Not whole, 0, too large, and divided by 1 (or times 1, except for `by_one`) lead nowhere:
        those are written without a result, or skipped.
        """
        for first, op, second, result in all_four(a, b):
            idle = op in "*/" and 1 in (first.value, second.value) and not (by_one and op == "*")
            if result and not idle and 0 < result.value <= self.mix.max_result:
                yield first, op, second, result
            elif not self.skips:
                self.trace.lines.append(f"{self.mark(begun)}{first.value}{op}{second.value}")

    def in_sight(self, terms: Table, goal: TableNumber, eyes: Eyes) -> list[Move]:
        """The operation that comes nearest to the goal, if it is in sight.

        A quotient only where it makes the goal: whether another one is whole cannot be seen.
        """
        assert eyes.near is not None
        a, b = terms
        useful = [
            (first, op, second, result)
            for first, op, second, result in all_four(a, b)
            if result
            and 0 < result.value <= self.mix.max_result
            and (op != "/" or result.value == goal.value)
        ]
        if not useful:  # with a small `max_result`
            return []
        nearest = min(useful, key=lambda made: abs(made[3].value - goal.value))
        seen = abs(nearest[3].value - goal.value) <= eyes.near and self.rng.random() >= eyes.blind
        return [nearest] if seen else []

    def keep_nearest(self, result: TableNumber, distance: int, step: StepBack | None) -> None:
        """Keep the expression as the answer if it is the nearest so far."""
        trace = self.trace
        if distance >= trace.distance:
            return
        trace.distance = distance
        if step is None:
            trace.answer = result.text
            return
        a, b = (step.kept, result) if step.turned else (result, step.kept)
        trace.answer = TableNumber.made(trace.target, a, step.ahead, b).text

    def stops(self) -> bool:
        """Whether the search ends here: too long, or given up."""
        return len(self.trace.lines) > self.patience


def all_four(a: TableNumber, b: TableNumber) -> Iterator[OpenMove]:
    """+ - * / on two numbers; no result where it is not whole.

    Sums and products are written in the order in which the numbers stand: so the number behind the
    second one, where it was read, is the next to be tried. Differences and quotients begin with the
    larger one.
    """
    for op in OPERATORS:
        turned = op in "-/" and a.value < b.value
        first, second = (b, a) if turned else (a, b)
        yield first, op, second, join(first, op, second)
