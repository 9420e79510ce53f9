"""Which numbers lie on the table, and which tables there have been.

A calculation takes numbers off the table and lays its value down. Going back means taking numbers
that lie on an earlier table and not on this one; so all earlier tables are kept, findable by any
two numbers on them. Sources: the states of Stream of Search (arXiv 2404.03683).
"""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

from aha.behaviors.arithmetic import Number
from aha.behaviors.events import Calc, Check, Event

# How a line reaches its table.
FORWARD = "forward"  # its numbers lie there
BACKWARD = "backward"  # the goal and numbers that lie there
REBUILT = "rebuilt"  # its numbers lie there when those set aside come back: 75+7=82
RESTATED = "restated"  # the step back the other way round, 12*2=24 after 24/2=12: nothing new
ILLEGAL = "illegal"  # its numbers lie together nowhere

MOST_RECENT = 8  # tables looked at for one pair of numbers: bounds the work, not the counts


class State(NamedTuple):
    """A table: its numbers sorted, those set aside by working backwards, and the value to make.

    `sound`: every line on the way here was right and used numbers that were there.
    """

    terms: tuple[Number, ...]
    kept: tuple[Number, ...]
    goal: Number
    sound: bool


class Choice(NamedTuple):
    """One reading of a line: the table it starts from, how, and the table after it."""

    base: State
    how: str
    after: State


def left_over(terms: Iterable[Number], numbers: Iterable[Number]) -> list[Number] | None:
    """`terms` without `numbers`, or None where one of them is missing. Counts, not sets."""
    rest = list(terms)
    for number in numbers:
        if number not in rest:
            return None
        rest.remove(number)
    return rest


class History:
    """All tables so far, and the one that the text is at."""

    def __init__(self, numbers: tuple[int, ...], target: int):
        self.root = State(tuple(sorted(numbers)), (), target, True)
        self.current = self.root
        self.by_pair: dict[tuple, list[State]] = {}
        self.made: dict[Number, State] = {}  # value -> the last table on which it was laid
        self.met: set[State] = set()
        self.go(self.root)

    def remember(self, state: State) -> None:
        """Make a table of two or more numbers one that the text can go back to."""
        if state in self.met:
            return
        terms = state.terms
        self.met.add(state)
        for pair in (terms,) if len(terms) == 2 else set(combinations(terms, 2)):
            states = self.by_pair.setdefault(pair, [])
            states.append(state)
            if len(states) > MOST_RECENT:
                del states[states[0] == self.root]

    def go(self, state: State, value: Number | None = None) -> None:
        """Go to a table; `value`, where there is one, has just been laid on it."""
        if len(state.terms) > 1:
            self.remember(state)
        self.current = state
        if value is not None:
            self.made[value] = state

    def lay_inner(self, base: State, calc: Calc) -> None:
        """Remember the tables inside an equation: (78-20)-(11-7) lays 58, then 4."""
        for a, _, b, value in calc.inner:
            rest = left_over(base.terms, (a, b))
            if rest is None:
                return
            base = base._replace(terms=tuple(sorted([*rest, value])))
            if len(base.terms) > 1:
                self.remember(base)
            self.made[value] = base

    # -- the readings of a line ------------------------------------------------------------

    def holding(self, numbers: tuple[Number, ...]) -> Sequence[State]:
        """The tables on which all `numbers` lie; the oldest first."""
        states: Sequence[State] = self.by_pair.get(numbers[:2], ())
        if len(numbers) == 2 and len(states) < MOST_RECENT:
            return states
        if len(numbers) > 2:
            states = [state for state in states if left_over(state.terms, numbers) is not None]
        if len(states) == MOST_RECENT and self.current not in states:
            # Newer tables can have pushed the current one out.
            if left_over(self.current.terms, numbers) is not None:
                return [*states, self.current]
        return states

    def forward(self, calc: Calc) -> list[Choice]:
        """From each table on which all its numbers lie; the oldest first."""
        choices = []
        numbers, value, right = calc.numbers, calc.value, calc.right
        for base in self.holding(numbers):
            terms, kept, goal, sound = base
            if len(terms) == len(numbers):
                terms = (value,)
            else:
                rest = left_over(terms, numbers)
                rest.append(value)
                rest.sort()
                terms = tuple(rest)
            after = State(terms, kept, goal, sound and right)
            choices.append(Choice(base, FORWARD, after))
        return choices

    def backward(self, calc: Calc) -> list[Choice]:
        """From each table whose goal is an operand and on which the other operands lie.

        Without the word "need" the goal must not be a number that the text could have: when 82 is
        given or made, 82-7=75 is a line like any other.
        """
        bases = [self.root, *filter(None, map(self.made.get, calc.numbers)), self.current]
        choices = []
        for base in dict.fromkeys(bases):
            others = left_over(calc.numbers, (base.goal,))
            rest = None if others is None else left_over(base.terms, others)
            if not rest or not (calc.need or self.unknown(base.goal)):
                continue
            kept = tuple(sorted([*base.kept, *others]))
            after = State(tuple(rest), kept, calc.value, base.sound and calc.right)
            choices.append(Choice(base, BACKWARD, after))
        return choices

    def unknown(self, number: Number) -> bool:
        """Is it neither given nor made by any line so far?"""
        return number not in self.made and number not in self.root.terms

    def rebuilt(self, calc: Calc) -> Choice | None:
        """The end of a step back: with the numbers set aside, or as a restatement of the step."""
        base = self.current
        if not base.kept:
            return None
        rest = left_over([*base.terms, *base.kept], calc.numbers)
        if rest is not None:
            terms = tuple(sorted([*rest, calc.value]))
            after = State(terms, (), self.root.goal, base.sound and calc.right)
            return Choice(base, REBUILT, after)
        others = left_over(calc.numbers, (base.goal,))
        if others is not None and calc.value == self.root.goal:
            if left_over(base.kept, others) is not None:
                return Choice(base, RESTATED, base)
        return None

    def nowhere(self, calc: Calc) -> Choice:
        """The table that an illegal line is nearest to, minus what it finds there, plus its value.

        A line that uses a result on the current table goes on from there; one that uses another
        earlier result has gone back to that; any other starts anew.
        """
        results = [n for n in calc.numbers if n in self.made and n not in self.root.terms]
        if any(n in self.current.terms for n in results):
            base = self.current
        else:
            base = self.made[results[0]] if results else self.root
        rest = list(base.terms)
        for number in calc.numbers:
            if number in rest:
                rest.remove(number)
        terms = tuple(sorted([*rest, calc.value]))
        return Choice(base, ILLEGAL, State(terms, base.kept, base.goal, False))

    def likeliest(
        self, choices: Sequence[Choice], following: Sequence[Event], going_on: bool
    ) -> Choice:
        """The reading of a line that most of the following lines can go on from.

        While an attempt is `going_on`, staying on its table wins where that leads to its end. Then
        the lines up to the next verdict count, then those after it. A tie goes to the current
        table, then to the start (an intermediate result that nobody uses again is no sign of a
        return to it), then to a table without a slip, then to the latest.
        """
        if len(choices) == 1:
            return choices[0]

        def merit(place: int) -> tuple:
            base = choices[place].base
            stays = base == self.current
            far = how_far(choices[place].after, following)
            return going_on and stays and far[-1], far, stays, base == self.root, base.sound, place

        return choices[max(range(len(choices)), key=merit)]


def how_far(state: State, following: Iterable[Event]) -> tuple[int, bool, int, bool]:
    """How many of the following lines can be calculated on this table, and does that use it up?

    Twice: up to the next verdict, and on through verdicts.
    """
    terms, run = list(state.terms), 0
    judged = None
    for event in following:
        if isinstance(event, Check):
            judged = judged or (run, len(terms) == 1)
        elif isinstance(event, Calc):
            rest = None if event.need or len(terms) < 2 else left_over(terms, event.numbers)
            if rest is None:
                break
            terms = [*rest, event.value]
            run += 1
    complete = len(terms) == 1
    return *(judged or (run, complete)), run, complete
