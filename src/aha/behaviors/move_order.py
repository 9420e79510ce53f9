"""The order in which a search in order tries the operations on a table of numbers.

Pair by pair by their places on the table (1-2, 1-3, 2-3), for each + - * /, the larger number
first. A move of a search gets points for its place after the one before; `search_ways` says what
they are for.
"""

from itertools import combinations

LARGE = 1_000  # a result above it may be left out without losing the order
IN_ORDER, LATER, BEFORE = 1.0, 1 / 3, -1.0  # points of a move

Table = tuple[int, ...]


class Level:
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


def is_right(a: int, op: int, b: int, result: int) -> bool:
    """Whether `a op b = result` for whole numbers; `op` is the place in + - * /."""
    if op == 0:
        return a + b == result
    if op == 1:
        return a - b == result
    return a * b == result if op == 2 else b != 0 and result * b == a


def nearest(a: int, b: int, goal: int) -> int:
    """How near one operation on two numbers comes to `goal`; a quotient counts if it is whole."""
    a, b = max(a, b), min(a, b)
    results = [a + b, a - b, a * b]
    if b and a % b == 0:
        results.append(a // b)
    return min(abs(result - goal) for result in results)
