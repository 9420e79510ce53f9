"""The way in which a completion searches: by chance, in order, with a glance, with a look, or
backward.

    24+1=25        24+3=27        24+1=25        24+1=25        73-1=72 need
    25+3=28 no     27-1=26 no     25*3=75 no     24-1=23        24*3=72 yes
    25-3=22 no     24*1=24        24-1=23        24*3=72
    25*3=75 no     24*3=72 no     23*3=69 no     72+1=73 yes
    24-1=23 ...    3-1=2 ...      24*3=72 ...
    in order       by chance      glance         look           backward

Two questions decide: in which order are the operations chosen, and what is written of the last two
numbers? Only plain lines `a op b = c` are read (spaces allowed), with a verdict or "need" behind
them, or the numbers that are left (`24+1=25 3 7`), and the line "check". An equation with brackets
or in words is not read: free text of a larger model is mostly `unclear`.

The ways are ours. Depth-first search with a heuristic for the last level is one of the solvers of
Stream of Search (arXiv 2404.03683).
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from aha.behaviors.events import last_answer, working_end
from aha.behaviors.move_order import IN_ORDER, Level, Table, is_right, nearest

WAYS = ("by_chance", "in_order", "glance", "look", "backward")
NOT_WAYS = ("unclear", "none")
LABELS = {
    "by_chance": "by chance",
    "in_order": "in order",
    "glance": "with a glance",
    "look": "with a look",
    "backward": "backward",
    "unclear": "too short to tell",
    "none": "no search",
}

MAX_CHARS = 50_000
LEAST_POINTS, LEAST_MEAN = 2.0, 1 / 3
NEAR, FAR = 5, 25  # a try that ends so near its goal, or far from it
OUT_OF_SIGHT, LITTLE = 60, 0.1  # from its goal: an opening that leads no nearer says little
LEAST_MORE = 1 / 2

# Possessive and bounded: linear in the text.
_LINE = re.compile(
    r"(?<![\w.])([0-9]{1,9}+)[ \t]*+([-+*/x×÷−–·])[ \t]*+([0-9]{1,9}+)(?![0-9.])"
    r"(?:[ \t]*+=[ \t]*+([0-9]{1,9}+)(?![0-9]|\.[0-9]))?+"
    r"(?:((?: [0-9]{1,9}+){1,12}+)$)?+(?: (yes|no|need)\b)?+"
    r"|^(check)$",
    re.MULTILINE,
)
_SIGNS = {"+": 0, "-": 1, "*": 2, "/": 3, "x": 2, "×": 2, "·": 2, "−": 1, "–": 1, "÷": 3}


class Search(NamedTuple):
    """How one completion searches.

    A MOVE is an operation on three or more numbers that are on the table. The order of the moves of
    a table is: pair by pair by their places on it (1-2, 1-3, 2-3), for each + - * /, the larger
    number first; a new result comes first on the table after it. A move is IN ORDER if it is the
    next one after the last move on the same table, or the first one of a new table. Moves without a
    use may be left out: results of 0 or above 1,000, times 1, divided by 1, and quotients that are
    not whole. A move in order has 1 point, a later one 1/3 (the first of a table 0), one that is
    the same or comes earlier -1.

    An OPENING is a line after which two numbers are left: a move without a verdict, or a step back
    ("need"). It is PASSED BY if no operation on them follows, else TRIED. If the first line after
    it has a verdict on other numbers, that is taken for a try, because a number may be copied
    wrongly. The last opening counts only if it is tried more than once: a search that ends says
    nothing about what would have come.

    An ATTEMPT is a run of lines that each use the table that the line before has left.

    `way` is the first of these that is true:

    - `none`: no attempt, or a single one without a verdict or "need";
    - `unclear`: a single attempt, and no move left without a result; or fewer than two moves and
      steps back together;
    - `backward`: at least two openings, and half of all, are steps back;
    - `by_chance`: the moves have less than 2 points or less than 1/3 on average; `unclear` if there
      are only two, with more than 0 points;
    - `unclear`: no opening counts, or all of them are tried once and end NEAR their goals, as a
      glance and a look both do;
    - `look`: more openings are passed by than speak against it, which are those tried more than
      once or FAR from their goals, and a quarter of those tried once and neither near nor far. One
      that is passed by where every operation ends OUT OF SIGHT counts for a tenth: a glance may
      leave it out too;
    - `in_order`: of those tried, at least half are tried more than once;
    - `glance`: the others.

    After a line "check" a second pass begins. The way is that of the first pass where that has one,
    because the later passes are what is left when it fails; else that of all together.

    `first_right`: whether the first attempt that uses all numbers makes the target, every line of
    it right; None if there is none. `tries`: operations on the last two numbers.
    """

    way: str
    attempts: int
    tries: int
    first_right: bool | None
    moves: int
    moves_in_order: int
    openings: int
    steps_back: int
    passed: int
    once: int
    more: int


def read_search(text: str, numbers: Sequence[int], target: int) -> Search:
    """The way in which a completion searches. Never raises; linear in the text.

    Reads at most MAX_CHARS characters of the working. In a text that was cut off before its working
    ended, the last line is left out: half of a number is another number.
    """
    end = working_end(text, last_answer(text))
    if end == len(text):
        end = text.rfind("\n") + 1 or end
    end = min(end, MAX_CHARS)
    reader = _SearchReader(tuple(numbers), target)
    for match in _LINE.finditer(text, 0, end):
        first, sign, second, value, left, word, check = match.groups()
        if check:
            reader.second_pass()
            continue
        a, b, op = int(first), int(second), _SIGNS[sign]
        result = None if value is None else int(value)
        right = result is not None and is_right(a, op, b, result)
        if a < b:
            a, b = b, a
        if word == "need":
            reader.step_back(a, b, result, right)
        else:
            reader.operation(a, b, op, result, right, left.count(" ") if left else 0, word)
    return reader.search()


class _SearchReader:
    """Reads the lines of one completion in order and counts."""

    def __init__(self, numbers: Table, target: int):
        self.pair: tuple[int, int] | None = None  # the last two numbers, the larger first
        self.goal, self.back, self.sound = target, False, True  # of the pair
        self.levels: list[Level] = []  # from the numbers of the puzzle to the table of three
        if len(numbers) > 2:
            self.levels = [Level(numbers, target, False, True)]
        elif len(numbers) == 2:
            self.pair = (max(numbers), min(numbers))
        self.fresh = False  # the line before has left the table that is now the deepest
        self.opened = False
        self.distance = 0  # of the last try from its goal
        self.first_way: str | None = None
        self.first_right: bool | None = None
        self.verdicts = self.attempts = self.tries = self.tries_here = 0
        self.moves = self.moves_in_order = self.openings = self.steps_back = 0
        self.passed = self.once = self.more = self.dropped = 0
        self.in_favour = 0.0  # openings that speak for a look
        self.against = 0.0  # and against it
        self.points = 0.0

    # -- the lines -------------------------------------------------------------------------

    def operation(
        self, a: int, b: int, op: int, result: int | None, right: bool, left: int, word: str | None
    ) -> None:
        """A line `a op b` with a >= b; `left` numbers stand behind its result."""
        if word:
            self.verdicts += 1
        on_pair = self.pair == (a, b)
        if on_pair and not left:
            self.try_pair(result, right)
        elif word and self.opened and not self.tries_here:
            self.try_pair(result, False)
        else:
            depth = self.depth_of(a, b, left)
            if depth is not None:
                self.move(depth, a, b, op, result, right)
                if word and self.opened:  # taken for the last operation: nothing is passed by
                    self.opened, self.openings = False, self.openings - 1
            elif on_pair:
                self.try_pair(result, right)
            else:
                self.unread(result)
        if word:
            self.fresh = False

    def depth_of(self, a: int, b: int, left: int) -> int | None:
        """The deepest level with both numbers; one that fits the numbers that are left first."""
        fits = None
        for depth in range(len(self.levels) - 1, -1, -1):
            table = self.levels[depth].table
            if a in table and (b in table if a != b else table.count(a) > 1):
                if not left or len(table) == left + 2:
                    return depth
                fits = depth if fits is None else fits
        return fits

    def move(self, depth: int, a: int, b: int, op: int, result: int | None, right: bool) -> None:
        """An operation on three or more numbers."""
        self.close_opening()
        self.moves += 1
        level = self.levels[depth]
        points = level.points(a, b, op)
        self.points += points
        self.moves_in_order += points == IN_ORDER
        goes_on = self.fresh and depth == len(self.levels) - 1 and self.pair is None
        del self.levels[depth + 1 :]
        self.pair = None
        if result is None:
            self.fresh = goes_on
            self.dropped += 1
            return
        rest = list(level.table)
        rest.remove(a)
        rest.remove(b)
        self.leave((result, *rest), level.goal, level.back, level.sound and right, goes_on)

    def step_back(self, a: int, b: int, result: int | None, right: bool) -> None:
        """A line with the word "need": the goal and a number that is kept."""
        self.verdicts += 1
        self.close_opening()
        for depth in range(len(self.levels) - 1, -1, -1):
            level = self.levels[depth]
            kept = b if a == level.goal else a if b == level.goal else None
            if kept is not None and kept in level.table and result is not None:
                goes_on = self.fresh and depth == len(self.levels) - 1 and self.pair is None
                del self.levels[depth + 1 :]
                rest = list(level.table)
                rest.remove(kept)
                self.leave(tuple(rest), result, True, level.sound and right, goes_on)
                return
        self.pair = None
        self.attempts += 1
        if self.levels:
            self.open(True)

    def unread(self, result: int | None) -> None:
        """A line whose numbers are together on no table."""
        self.close_opening()
        self.fresh = False
        self.attempts += result is not None

    def second_pass(self) -> None:
        """The line "check": from the numbers of the puzzle again."""
        self.close_opening()
        if self.first_way is None:
            way = self.way()
            self.first_way = way if way in WAYS else None
        self.fresh = False
        if self.levels:
            del self.levels[1:]
            self.levels[0].last = -1
            self.pair = None

    # -- tables ----------------------------------------------------------------------------

    def leave(self, table: Table, goal: int, back: bool, sound: bool, goes_on: bool) -> None:
        """Go to the table that a line has left."""
        self.attempts += not goes_on
        self.fresh = True
        if len(table) > 2:
            self.pair = None
            self.levels.append(Level(table, goal, back, sound))
            return
        a, b = table
        self.pair = (a, b) if a >= b else (b, a)
        self.goal, self.back, self.sound = goal, back, sound
        self.open(back)

    def open(self, back: bool) -> None:
        self.opened, self.tries_here, self.distance = True, 0, 0
        self.openings += 1
        self.steps_back += back

    def try_pair(self, result: int | None, right: bool) -> None:
        """An operation on the last two numbers; on others, if it is not `right`."""
        self.tries_here += 1
        if result is None:
            return
        self.distance = abs(result - self.goal)
        self.attempts += not self.fresh
        self.fresh = False
        self.tries += 1
        if self.first_right is None:
            self.first_right = right and self.sound and result == self.goal

    def close_opening(self, last: bool = False) -> None:
        if self.opened and (self.tries_here > 1 or not last):
            if self.tries_here == 0:
                self.passed += 1
                seen = self.pair is None or nearest(*self.pair, self.goal) <= OUT_OF_SIGHT
                self.in_favour += 1.0 if seen else LITTLE
            self.once += self.tries_here == 1
            self.more += self.tries_here > 1
            self.against += self.weight_against()
        self.opened = False

    def weight_against(self) -> float:
        """How much the tries of an opening speak against a look."""
        if self.tries_here == 1:
            return 0.0 if self.distance <= NEAR else 1.0 if self.distance > FAR else 1 / 4
        return float(self.tries_here > 1)

    # -- the way ---------------------------------------------------------------------------

    def search(self) -> Search:
        self.close_opening(last=True)
        return Search(
            self.first_way or self.way(),
            self.attempts,
            self.tries,
            self.first_right,
            self.moves,
            self.moves_in_order,
            self.openings,
            self.steps_back,
            self.passed,
            self.once,
            self.more,
        )

    def way(self) -> str:
        """The rules of `Search`, for all that was read so far."""
        if not self.attempts or (self.attempts == 1 and not self.verdicts):
            return "none"
        if self.attempts + self.dropped == 1 or self.moves + self.steps_back < 2:
            return "unclear"
        if self.steps_back > 1 and 2 * self.steps_back >= self.openings:
            return "backward"
        if self.points < LEAST_POINTS or self.points < LEAST_MEAN * self.moves:
            return "unclear" if self.moves < 3 and self.points > 0 else "by_chance"
        tried = self.once + self.more
        if not self.in_favour and not self.against:
            return "unclear"
        if self.in_favour > self.against:
            return "look"
        return "in_order" if self.more >= LEAST_MORE * tried else "glance"
