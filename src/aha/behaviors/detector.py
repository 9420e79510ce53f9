"""The exact detector: the behaviours in a completion, counted by following its numbers.

Going back is not decided by a model or a list of words. The detector keeps the numbers on the table
after each line and all earlier tables (`states`), and finds for each line the table that its
numbers are on. For the grammar of aha-tiny it is complete; in free text it counts what `events` can
read.

Definitions: Gandhi et al., arXiv 2503.01307, for the four behaviours; the tables follow Stream of
Search, arXiv 2404.03683. Differs: (a+b) then (c+d) of the same table is no backtracking.
"""

import re
from dataclasses import dataclass, fields
from typing import NamedTuple

from aha.behaviors.arithmetic import Number, evaluate_expression
from aha.behaviors.events import (
    Calc,
    Check,
    Event,
    FinalAnswer,
    Goal,
    last_answer,
    parse,
    working_end,
)
from aha.behaviors.states import BACKWARD, FORWARD, REBUILT, RESTATED, Choice, History

MAX_CHARS = 50_000
LOOK_AHEAD = 16  # events; one attempt at six numbers has five lines, each with a verdict or goal

# The verifier accepts plain integers and + - * / ( ) alone, and so does `answered`.
# Without possessive repeats of a group: Python 3.11.2 (Debian 12) matches those wrongly.
_BETWEEN = r"[-+*/() \t\r\n]"
_PLAIN = re.compile(rf"{_BETWEEN}*(?:(?:0|[1-9][0-9]*){_BETWEEN}+)*(?:0|[1-9][0-9]*)?")


@dataclass(frozen=True, slots=True)
class Behaviours:
    """The counts of one completion.

    An ATTEMPT is a series of lines that continue each other. It ends when all numbers are used,
    when the text gives a verdict on its value, or when the text goes back. The next one begins in
    one of three ways: from the numbers of the puzzle, from an earlier table with intermediate
    results, or from the last value of the attempt before. So attempts = 1 + backtracks_root +
    backtracks_intermediate + continuations. If a line's numbers are on several tables, the numbers
    that it says are left decide, or the lines after it.

    A CHECK is a verdict on the last value. It is true if the comparison with the goal of its table
    is right; after `82-7=75 need` that goal is 75. A verdict that names the target is explicit.
    Values are those that the text claims; wrong arithmetic counts only as a line error.

    BACKWARD CHAINING is a line with the goal as an operand, where the goal is no number on the
    table, or with the word "need". It sets the other operand aside and makes the value the goal.

    A SUBGOAL is a value, other than the goal, that the text announces; valid if one number or one
    factor is enough to get from it to the target; achieved if a line makes it before all numbers
    are used or another subgoal is named.

    A REPEAT is an attempt with the same last line from the same table as an earlier one. An ILLEGAL
    line uses numbers that were together on no table. A SOLUTION is an attempt that makes its goal
    of all numbers, every line right and legal.
    """

    attempts: int = 0
    lines: int = 0
    line_errors: int = 0
    illegal: int = 0
    checks: int = 0
    true_checks: int = 0
    explicit_checks: int = 0
    backtracks_root: int = 0
    backtracks_intermediate: int = 0
    continuations: int = 0
    repeats: int = 0
    subgoals: int = 0
    subgoals_valid: int = 0
    subgoals_achieved: int = 0
    backward_chains: int = 0
    attempts_until_solved: int | None = None
    answered: bool = False  # the answer block uses every number once and makes the target
    unread_chars: int = 0  # of the working, beyond MAX_CHARS: nothing there is counted

    @property
    def backtracks(self) -> int:
        """Number of times that the text goes back, to the start or to an intermediate result."""
        return self.backtracks_root + self.backtracks_intermediate

    @property
    def implicit_checks(self) -> int:
        """Number of verdicts that do not name the target."""
        return self.checks - self.explicit_checks

    @property
    def solution_seen(self) -> bool:
        """Whether the working has a solution."""
        return self.attempts_until_solved is not None

    @property
    def solution_seen_not_answered(self) -> bool:
        """Whether the working has a solution and the answer block has none."""
        return self.solution_seen and not self.answered


COUNTS = tuple(f.name for f in fields(Behaviours) if f.type is int and f.name != "unread_chars")


class Mark(NamedTuple):
    """A part of the text, from `start` to before `end`, with the name of the event there."""

    start: int
    end: int
    what: str


def count_behaviours(text: str, numbers: tuple[int, ...], target: int) -> Behaviours:
    """Count the behaviours in one completion. Never raises, whatever the text.

    Reads at most MAX_CHARS characters of working (`unread_chars` is the rest); the answer may be
    anywhere. Linear in the text; about 0.2 ms for 300 tokens of aha-tiny.
    """
    return _follow(text, numbers, target, None).behaviours(_unread(text))


def annotate(text: str, numbers: tuple[int, ...], target: int) -> tuple[Mark, ...]:
    """The same events as marks on the text, in order; marks may overlap."""
    marks: list[Mark] = []
    _follow(text, numbers, target, marks)
    return tuple(sorted(marks))


def _follow(
    text: str, numbers: tuple[int, ...], target: int, marks: list[Mark] | None
) -> "_Reader":
    reader = _Reader(numbers, target, parse(text, MAX_CHARS), marks)
    for index, event in enumerate(reader.events):
        if isinstance(event, Calc):
            reader.calc(index, event)
        elif isinstance(event, Check):
            reader.check(event)
        elif isinstance(event, Goal):
            reader.goal(event)
        else:
            reader.answer(event)
    return reader


def _unread(text: str) -> int:
    if len(text) <= MAX_CHARS:
        return 0
    return max(0, working_end(text, last_answer(text)) - MAX_CHARS)


class _Reader:
    """Reads the events of one completion in order and counts."""

    def __init__(
        self,
        numbers: tuple[int, ...],
        target: int,
        events: tuple[Event, ...],
        marks: list[Mark] | None,
    ):
        self.events, self.target, self.marks = events, target, marks
        self.history = History(numbers, target)
        self.counts = dict.fromkeys(COUNTS, 0)
        self.solved_at: int | None = None
        self.answered = False
        self.open = False  # an attempt has begun and has not ended
        self.compare: Number = target  # the goal that the next verdict is about
        self.aim: int | None = None
        self.last_lines: set[tuple[object, ...]] = set()  # of attempts that used every number

    def behaviours(self, unread_chars: int) -> Behaviours:
        return Behaviours(
            **self.counts,
            attempts_until_solved=self.solved_at,
            answered=self.answered,
            unread_chars=unread_chars,
        )

    def record(self, event: Event, count: str, what: str) -> None:
        """Count an event and mark it."""
        self.counts[count] += 1
        if self.marks is not None:
            self.mark(event, what)

    def mark(self, event: Event, what: str) -> None:
        if self.marks is not None:
            self.marks.append(Mark(event.start, event.end, what))

    # -- a calculation ---------------------------------------------------------------------

    def calc(self, index: int, calc: Calc) -> None:
        """Count a calculation, and go to the table after it."""
        self.counts["lines"] += 1
        if not calc.right:
            self.record(calc, "line_errors", "wrong arithmetic")
        choice = self.choose(index, calc)
        self.begin(calc, choice)
        base, kind, after = choice
        if kind == RESTATED:
            self.compare = self.target
            return
        if kind == BACKWARD:
            self.record(calc, "backward_chains", "backward chaining")
            self.history.step_back(choice)
        else:
            if calc.inner:
                self.history.add_inner(base, calc)
            self.history.go(after, calc.value)
        self.compare = after.goal
        self.open = True
        if self.aim is not None and self.aim in (calc.value, *(step[3] for step in calc.inner)):
            self.record(calc, "subgoals_achieved", "subgoal achieved")
            self.aim = None
        if len(after.terms) == 1:
            self.all_used(calc, choice)

    def choose(self, index: int, calc: Calc) -> Choice:
        """The table from which this line starts: the first kind of reading that fits."""
        history = self.history
        choices = (history.backward(calc) if calc.need else []) or history.forward(calc)
        if len(choices) > 1 and calc.left:
            table = tuple(sorted((calc.value, *calc.left)))
            choices = [choice for choice in choices if choice.after.terms == table] or choices
        if len(choices) == 1:
            return choices[0]
        following = self.events[index + 1 : index + 1 + LOOK_AHEAD]
        if choices:
            return history.likeliest(choices, following, self.open)
        choice = history.rebuilt(calc)
        if choice is not None:
            return choice
        # A verdict on it says that the line was meant forward.
        if not (following and isinstance(following[0], Check)):
            choices = history.backward(calc)
            if choices:
                return history.likeliest(choices, following, self.open)
        self.record(calc, "illegal", "numbers that are on no table")
        return history.illegal(calc)

    def begin(self, calc: Calc, choice: Choice) -> None:
        """Count the attempt that this line begins, if it begins one, by where it starts."""
        if self.counts["attempts"] == 0:
            pass
        elif choice.kind in (REBUILT, RESTATED) or choice.base == self.history.current:
            if self.open or choice.kind in (REBUILT, RESTATED):
                return
            self.record(calc, "continuations", "goes on from the last value")
        elif choice.base == self.history.root:
            self.record(calc, "backtracks_root", "back to the start")
        else:
            self.record(calc, "backtracks_intermediate", "back to an intermediate result")
        self.counts["attempts"] += 1

    def all_used(self, calc: Calc, choice: Choice) -> None:
        """End an attempt that has used every number; count a repeat, and mark a solution."""
        base, kind, after = choice
        self.open, self.aim = False, None
        if kind == FORWARD:
            inner = tuple((op, *sorted((a, b))) for a, op, b, _ in calc.inner) if calc.inner else ()
            line = (base[:3], calc.op, calc.numbers, calc.value, inner)
            if line in self.last_lines:
                self.record(calc, "repeats", "an attempt made before")
            self.last_lines.add(line)
        if after.sound and after.terms[0] == after.goal and self.solved_at is None:
            self.solved_at = self.counts["attempts"]
            self.mark(calc, "a solution")

    # -- the other events ------------------------------------------------------------------

    def check(self, check: Check) -> None:
        """Count a verdict, and whether its comparison is right."""
        goal = self.compare
        if check.named is not None:
            if check.named not in (goal, self.target, self.aim):
                return  # a comparison with something else
            goal = check.named
        elif check.explicit:
            goal = self.target
        self.counts["checks"] += 1
        self.counts["explicit_checks"] += check.explicit
        if check.true_for(goal):
            self.record(check, "true_checks", "true check")
        else:
            self.mark(check, "false check")
        if goal != self.aim:
            self.open = False

    def goal(self, goal: Goal) -> None:
        """Count a subgoal, and whether it is a valid one."""
        value, target = goal.value, self.target
        if value == target or (self.open and value == self.history.current.goal):
            return
        self.record(goal, "subgoals", "subgoal")
        self.aim = value
        on_table = {*self.history.root.terms, *self.history.current.terms}
        one_step = {abs(target - value), target + value, target * value} & on_table
        factor = value and target and (target % value == 0 or value % target == 0)
        self.counts["subgoals_valid"] += bool(one_step or factor)

    def answer(self, answer: FinalAnswer) -> None:
        """Check whether the answer block has a solution."""
        made = evaluate_expression(answer.text) if _PLAIN.fullmatch(answer.text) else None
        if made is not None:
            used = tuple(sorted(made.numbers))
            self.answered = made.value == self.target and used == self.history.root.terms
