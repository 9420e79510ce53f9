"""Keeps the numbers on the table after each line, and all earlier tables.

A table is the set of numbers that are left to use. A calculation removes its numbers from the table
and adds its value. Going back means using numbers that are on an earlier table and not on this one;
so all earlier tables are kept, indexed by each pair of numbers on them. Source: the states of
Stream of Search (arXiv 2404.03683).
"""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

from aha.behaviors.arithmetic import Number
from aha.behaviors.events import Calc, Check, Event

# The kinds of relation between a line and the table it starts from.
FORWARD = "forward"  # its numbers are on the table
BACKWARD = "backward"  # it uses the goal and numbers on the table
REBUILT = "rebuilt"  # its numbers are on the table once those set aside are back: 75+7=82
RESTATED = "restated"  # the step back the other way round, 12*2=24 after 24/2=12: nothing new
ILLEGAL = "illegal"  # its numbers are together on no table

MOST_RECENT = 8  # tables kept for one pair of numbers: bounds the time, not the counts


class State(NamedTuple):
    """A table: its numbers sorted, those set aside by working backwards, and the value to make.

    `sound`: every line that led here was right and used numbers that were on its table.
    """

    terms: tuple[Number, ...]
    kept: tuple[Number, ...]
    goal: Number
    sound: bool


class Choice(NamedTuple):
    """One way to read a line: the table before it, the kind of relation, the table after it."""

    base: State
    kind: str
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
    """All tables so far, and the current one."""

    def __init__(self, numbers: tuple[int, ...], target: int):
        self.root = State(tuple(sorted(numbers)), (), target, True)
        self.current = self.root
        self.by_pair: dict[tuple[Number, ...], list[State]] = {}
        self.made: dict[Number, State] = {}  # value -> the last table that it was added to
        self.known: set[State] = set()
        self.stepped_from: State | None = None  # the table of the last step back
        self.go(self.root)

    def remember(self, state: State) -> None:
        """Store a table of two or more numbers, so that the text can go back to it."""
        if state in self.known:
            return
        terms = state.terms
        self.known.add(state)
        for pair in (terms,) if len(terms) == 2 else set(combinations(terms, 2)):
            states = self.by_pair.setdefault(pair, [])
            states.append(state)
            if len(states) > MOST_RECENT:
                del states[states[0] == self.root]

    def step_back(self, choice: Choice) -> None:
        """Make the table after a step back the current one."""
        self.stepped_from = choice.base
        self.go(choice.after)

    def go(self, state: State, value: Number | None = None) -> None:
        """Make a table the current one; `value`, where there is one, has just been added to it."""
        if len(state.terms) > 1:
            self.remember(state)
        self.current = state
        if value is not None:
            self.made[value] = state
            if len(state.terms) > 2:
                self.stepped_from = None  # a row of steps back on another table begins

    def add_inner(self, base: State, calc: Calc) -> None:
        """Remember the tables inside an equation: (78-20)-(11-7) adds 58, then 4."""
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
        """The tables with all `numbers`; the oldest first."""
        states: Sequence[State] = self.by_pair.get(numbers[:2], ())
        if len(numbers) == 2 and len(states) < MOST_RECENT:
            return states
        if len(numbers) > 2:
            states = [state for state in states if left_over(state.terms, numbers) is not None]
        if len(states) == MOST_RECENT and self.current not in states:
            # The current table may have been dropped for newer ones.
            if left_over(self.current.terms, numbers) is not None:
                return [*states, self.current]
        return states

    def forward(self, calc: Calc) -> list[Choice]:
        """The readings that start from each table with all numbers of the line; the oldest
        first."""
        choices = []
        numbers, value, right = calc.numbers, calc.value, calc.right
        for base in self.holding(numbers):
            terms, kept, goal, sound = base
            if len(terms) == len(numbers):
                terms = (value,)
            else:
                rest = left_over(terms, numbers)
                assert rest is not None, "`holding` returns tables with all the numbers"
                rest.append(value)
                rest.sort()
                terms = tuple(rest)
            after = State(terms, kept, goal, sound and right)
            choices.append(Choice(base, FORWARD, after))
        return choices

    def backward(self, calc: Calc) -> list[Choice]:
        """The readings that start from each table with all operands but one, which is its goal.

        Without the word "need" the goal must not be a number that the text has: when 82 is given or
        made, 82-7=75 is a line like any other.
        """
        bases = [self.root, *map(self.made.get, calc.numbers), self.stepped_from, self.current]
        choices = []
        for base in dict.fromkeys(filter(None, bases)):
            others = left_over(calc.numbers, (base.goal,))
            if others is None:
                continue
            rest = left_over(base.terms, others)
            if not rest or not (calc.need or self.unknown(base.goal)):
                continue
            kept = tuple(sorted([*base.kept, *others]))
            after = State(tuple(rest), kept, calc.value, base.sound and calc.right)
            choices.append(Choice(base, BACKWARD, after))
        return choices

    def unknown(self, number: Number) -> bool:
        """Whether a number is neither given nor made by any line so far."""
        return number not in self.made and number not in self.root.terms

    def rebuilt(self, calc: Calc) -> Choice | None:
        """The reading of a line that ends a step back, with the numbers set aside, or that repeats
        the step; None for another line."""
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

    def illegal(self, calc: Calc) -> Choice:
        """The reading of an illegal line: the nearest table, without those of its numbers that the
        line uses, plus the value.

        A line that uses a result on the current table continues from it. A line that uses another
        earlier result has gone back to it. Any other line starts from the beginning.
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
        """The reading of a line from which the most following lines can continue.

        Steps back are tried in a row: the table of the last one is preferred. While an attempt is
        `going_on`, the current table is preferred if it leads to the end of the attempt. Otherwise
        the lines up to the next verdict count, then those after it. For equal numbers the order is:
        the current table, the start (because an intermediate result that is not used again is no
        sign of a return to it), a table without an error, the latest table.
        """
        if len(choices) == 1:
            return choices[0]

        def merit(index: int) -> tuple[object, ...]:
            base, kind, after = choices[index]
            stays = base == self.current
            reach = lines_ahead(after, following)
            ends = going_on and stays and reach[-1]
            in_a_row = 0
            if kind == BACKWARD:
                in_a_row = 2 if base == self.stepped_from else int(stays)
            return in_a_row, ends, reach, stays, base == self.root, base.sound, index

        return choices[max(range(len(choices)), key=merit)]


def lines_ahead(state: State, following: Iterable[Event]) -> tuple[int, bool, int, bool]:
    """The number of following lines that can be calculated on this table, and whether they use it
    up; first up to the next verdict, then beyond it."""
    terms, run = list(state.terms), 0
    at_verdict = None
    for event in following:
        if isinstance(event, Check):
            at_verdict = at_verdict or (run, len(terms) == 1)
        elif isinstance(event, Calc):
            rest = None if event.need or len(terms) < 2 else left_over(terms, event.numbers)
            if rest is None:
                break
            terms = [*rest, event.value]
            run += 1
    complete = len(terms) == 1
    run_to_verdict, complete_at_verdict = at_verdict or (run, complete)
    return run_to_verdict, complete_at_verdict, run, complete
