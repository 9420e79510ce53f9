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
from itertools import combinations
from typing import NamedTuple

from aha.behaviors.events import last_answer, working_end

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
LARGE = 1_000  # a result above it may be left out without losing the order
IN_ORDER, LATER, BEFORE = 1.0, 1 / 3, -1.0  # points of a move, see `Search`
LEAST_POINTS, LEAST_MEAN = 2.0, 1 / 3
LEAST_PASSED, LEAST_MORE = 1 / 3, 1 / 2
MAX_NUMBERS = 12

# Possessive and bounded: linear in the text.
_LINE = re.compile(
    r"(?<![\w.])([0-9]{1,9}+)[ \t]*+([-+*/x×÷−–·])[ \t]*+([0-9]{1,9}+)(?![0-9.])"
    r"(?:[ \t]*+=[ \t]*+([0-9]{1,9}+)(?![0-9]|\.[0-9]))?+"
    r"((?: [0-9]{1,9}+){0,12}+)(?: (yes|no|need)\b)?+"
    r"|^(check)$",
    re.MULTILINE,
)
_SIGNS = {"+": 0, "-": 1, "*": 2, "/": 3, "x": 2, "×": 2, "·": 2, "−": 1, "–": 1, "÷": 3}

Table = tuple[int, ...]


class Search(NamedTuple):
    """How one completion searches.

    A MOVE is an operation on three or more numbers that are on the table. The order of the moves of
    a table is: pair by pair by their places on it (1-2, 1-3, 2-3), for each + - * /, the larger
    number first; a new result comes first on the table after it. A move is IN ORDER if it is the
    next one after the last move on the same table, or the first one of a new table. Moves without a
    use may be left out: results of 0 or above LARGE, times 1, divided by 1, and quotients that are
    not whole. A move in order has 1 point, a later one 1/3 (the first of a table 0), one that is
    the same or comes earlier -1.

    An OPENING is a line after which two numbers are left: a move, or a step back ("need"). It is
    PASSED BY if no operation on them follows, else TRIED. A line with a verdict on other numbers is
    taken for a try of the last opening, because its value or its numbers may be copied wrongly. The
    last opening counts only if it is tried more than once: a search that ends says nothing about
    what would have come.

    An ATTEMPT is a run of lines that each use the table that the line before has left.

    `way` is the first of these that is true:

    - `none`: no attempt, or a single one without a verdict or "need";
    - `unclear`: a single attempt, or fewer than two moves and steps back together;
    - `backward`: at least two openings, and half of all, are steps back;
    - `by_chance`: the moves have less than 2 points or less than 1/3 on average; `unclear` if there
      are only two, with more than 0 points;
    - `unclear`: no opening counts; `look`: a third of the openings or more are passed by;
    - `in_order`: of those tried, at least half are tried more than once; `glance`: the others.

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

    Reads at most MAX_CHARS characters of the working.
    """
    end = min(working_end(text, last_answer(text)), MAX_CHARS)
    reader = _Reader(tuple(numbers), target)
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


def is_right(a: int, op: int, b: int, result: int) -> bool:
    """Whether `a op b = result` for whole numbers; `op` is the place in + - * /."""
    if op == 0:
        return a + b == result
    if op == 1:
        return a - b == result
    return a * b == result if op == 2 else b != 0 and result * b == a


class _Level:
    """A table of three or more numbers, in order; what it must make, and the last move on it."""

    __slots__ = ("back", "goal", "last", "pairs", "sound", "table")

    def __init__(self, table: Table, goal: int, back: bool, sound: bool):
        self.table, self.goal = table, goal
        self.back = back  # a step back led here
        self.sound = sound  # every line that led here is right
        self.last = -1
        self.pairs: list[tuple[int, int]] = []

    def points(self, a: int, b: int, op: int) -> float:
        """The points of a move, which is then the last one."""
        place, last = self.place(a, b, op), self.last
        self.last = place
        if place == last + 1:
            return IN_ORDER
        if place <= last:
            return BEFORE
        if not self.leaves_out(last + 1, place):
            return IN_ORDER
        return LATER if last >= 0 else 0.0

    def place(self, a: int, b: int, op: int) -> int:
        """The place of a move in order; of several pairs with these numbers the next one's."""
        table = self.table
        i = table.index(a)
        j = table.index(b, i + 1) if a == b else table.index(b)
        place = self.place_of_pair(i, j) * 4 + op
        if place > self.last or len(set(table)) == len(table):
            return place
        places = (
            self.place_of_pair(i, j) * 4 + op
            for i, j in combinations(range(len(table)), 2)
            if (table[i], table[j]) in ((a, b), (b, a))
        )
        return next((other for other in places if other > self.last), place)

    def place_of_pair(self, i: int, j: int) -> int:
        if i > j:
            i, j = j, i
        return i * (2 * len(self.table) - i - 1) // 2 + j - i - 1

    def leaves_out(self, start: int, end: int) -> bool:
        """Whether one of the moves from place `start` to before `end` has a use."""
        if not self.pairs:
            self.pairs = list(combinations(self.table, 2))
        for place in range(start, end):
            if is_useful(*self.pairs[place >> 2], place & 3):
                return True
        return False


def is_useful(a: int, b: int, op: int) -> bool:
    """Whether a search in order may not leave out this operation."""
    if a < b:
        a, b = b, a
    if op == 0:
        return 0 < b and a + b <= LARGE
    if op == 1:
        return 0 < b < a
    return 1 < b and (a * b <= LARGE if op == 2 else a % b == 0)


class _Reader:
    """Reads the lines of one completion in order and counts."""

    def __init__(self, numbers: Table, target: int):
        self.pair: tuple[int, int] | None = None  # the last two numbers, the larger first
        self.goal, self.back, self.sound = target, False, True  # of the pair
        self.levels: list[_Level] = []  # from the numbers of the puzzle to the table of three
        if len(numbers) > 2:
            self.levels = [_Level(numbers, target, False, True)]
        elif len(numbers) == 2:
            self.pair = (max(numbers), min(numbers))
        self.fresh = False  # the line before has left the table that is now the deepest
        self.opened = False
        self.first_way: str | None = None
        self.first_right: bool | None = None
        self.verdicts = self.attempts = self.tries = self.tries_here = 0
        self.moves = self.moves_in_order = self.openings = self.steps_back = 0
        self.passed = self.once = self.more = 0
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
        elif word and self.opened:
            self.try_pair(result, False)
        else:
            depth = self.depth_of(a, b, left)
            if depth is not None:
                self.move(depth, a, b, op, result, right)
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
            self.levels.append(_Level(table, goal, back, sound))
            return
        a, b = table
        self.pair = (a, b) if a >= b else (b, a)
        self.goal, self.back, self.sound = goal, back, sound
        self.open(back)

    def open(self, back: bool) -> None:
        self.opened, self.tries_here = True, 0
        self.openings += 1
        self.steps_back += back

    def try_pair(self, result: int | None, right: bool) -> None:
        """An operation on the last two numbers; on others, if it is not `right`."""
        self.tries_here += 1
        if result is None:
            return
        self.attempts += not self.fresh
        self.fresh = False
        self.tries += 1
        if self.first_right is None:
            self.first_right = right and self.sound and result == self.goal

    def close_opening(self, last: bool = False) -> None:
        if self.opened and (self.tries_here > 1 or not last):
            self.passed += self.tries_here == 0
            self.once += self.tries_here == 1
            self.more += self.tries_here > 1
        self.opened = False

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
        if self.attempts == 1 or self.moves + self.steps_back < 2:
            return "unclear"
        if self.steps_back > 1 and 2 * self.steps_back >= self.openings:
            return "backward"
        if self.points < LEAST_POINTS or self.points < LEAST_MEAN * self.moves:
            return "unclear" if self.moves < 3 and self.points > 0 else "by_chance"
        tried = self.once + self.more
        if not tried + self.passed:
            return "unclear"
        if self.passed >= LEAST_PASSED * (tried + self.passed):
            return "look"
        return "in_order" if self.more >= LEAST_MORE * tried else "glance"
