"""Searches whose way is known, written by rules of their own: what `search_ways` has to recognise.

Nothing here is shared with the corpus writer, so that both can be wrong only by themselves.
"""

from dataclasses import dataclass, field
from itertools import combinations
from random import Random

from aha.tasks.solver import can_make

ANY = 10**9
NEAR = {"in_order": None, "glance": ANY, "look": 5, "backward": 5}


@dataclass
class Known:
    """A search with what is true of it."""

    way: str
    numbers: tuple[int, ...]
    target: int
    lines: list[str] = field(default_factory=list)
    attempts: int = 0
    moves: int = 0  # on three or more numbers, and steps back
    solved: bool = False

    @property
    def text(self) -> str:
        body = "".join(f"{line}\n" for line in self.lines)
        return f"{body}</think>\n<answer>1</answer>"


def value_of(a: int, op: str, b: int) -> int | None:
    if op == "/":
        return a // b if b and a % b == 0 else None
    return {"+": a + b, "-": a - b, "*": a * b}[op]


def moves_of(table: list[int], idle: bool = False) -> list[tuple[int, str, int, int | None]]:
    """Every operation in order that has a use; without a result, a quotient that is not whole."""
    moves = []
    for first, second in combinations(table, 2):
        a, b = max(first, second), min(first, second)
        for op in "+-*/":
            value = value_of(a, op, b)
            useless = op in "*/" and b == 1 and not (idle and op == "*")
            if b and not useless and (value is None or 0 < value <= 1000):
                moves.append((a, op, b, value))
    return moves


class Searcher:
    """Writes one search. `state`: the fewest numbers left that are written behind a result;
    `quotients`: whether a quotient that is not whole is written, without a result."""

    def __init__(self, known: Known, rng: Random, state: int, quotients: bool):
        self.known, self.rng, self.state, self.quotients = known, rng, state, quotients
        self.near = NEAR[known.way]
        self.continues = False

    def write(self, text: str, move: bool = False) -> None:
        self.known.lines.append(text)
        self.known.attempts += not self.continues
        self.known.moves += move
        self.continues = False

    def ahead(self, table: list[int]) -> bool:
        for a, op, b, value in moves_of(table):
            if value is None:
                if self.quotients:
                    self.known.lines.append(f"{a}/{b}")
                    self.known.moves += 1
                    self.continues = False
                continue
            rest = list(table)
            rest.remove(a)
            rest.remove(b)
            behind = "".join(f" {n}" for n in rest) if len(rest) >= self.state else ""
            self.write(f"{a}{op}{b}={value}{behind}", move=True)
            self.continues = True
            left = [value, *rest]
            if len(left) == 2:
                solved = self.last_two(left, self.known.target)
            elif len(left) == 3 and self.known.way == "backward":
                solved = self.back(left)
            else:
                solved = self.ahead(left)
            self.continues = False
            if solved:
                return True
        return False

    def back(self, table: list[int]) -> bool:
        target = self.known.target
        for kept in table:
            needs = [
                (f"{target}-{kept}", target - kept),
                (f"{target}+{kept}", target + kept),
                (f"{kept}-{target}", kept - target),
                (f"{target}*{kept}", target * kept),
            ]
            for text, need in needs:
                if 0 < need <= 1000:
                    self.write(f"{text}={need} need", move=True)
                    self.continues = True
                    rest = list(table)
                    rest.remove(kept)
                    if self.last_two(rest, need):
                        return True
                    self.continues = False
        return False

    def last_two(self, pair: list[int], goal: int) -> bool:
        moves = moves_of(pair, idle=True)
        if self.near is not None:
            whole = [move for move in moves if move[3] is not None]
            nearest = min(whole, key=lambda move: abs(move[3] - goal), default=None)
            moves = [nearest] if nearest and abs(nearest[3] - goal) <= self.near else []
        for a, op, b, value in moves:
            if value is None:
                if self.quotients:
                    self.known.lines.append(f"{a}/{b}")
                continue
            self.write(f"{a}{op}{b}={value} {'yes' if value == goal else 'no'}")
            if value == goal:
                self.known.solved = True
                return True
        return False


def known_search(
    way: str, size: int, rng: Random, state: int | None = None, most: int = 90
) -> Known:
    """A search of a solvable puzzle, to its end or to `most` lines."""
    while True:
        numbers = tuple(rng.randint(1, 99) for _ in range(size))
        target = rng.randint(10, 100)
        if can_make(numbers, target):
            break
    known = Known(way, numbers, target)
    state = rng.choice((1, 2, 9)) if state is None else state
    searcher = Searcher(known, rng, state, quotients=rng.random() < 0.5)
    if way == "backward" and size == 3:
        searcher.back(list(numbers))
    else:
        searcher.ahead(list(numbers))
    if len(known.lines) > most:  # what is left out may be the solution, or attempts
        known.lines, known.attempts, known.solved = known.lines[:most], -1, False
    return known


def damaged(text: str, rng: Random, rate: float = 0.05) -> str:
    """The text with this share of its lines given a wrong result, dropped or swapped."""
    body, end = text.split("</think>")
    lines = body.splitlines()
    place = 0
    while place < len(lines):
        if rng.random() < rate:
            what = rng.choice(("wrong", "dropped", "swapped"))
            if what == "dropped":
                del lines[place]
                continue
            if what == "swapped" and place + 1 < len(lines):
                lines[place], lines[place + 1] = lines[place + 1], lines[place]
                place += 1
            elif what == "wrong" and "=" in lines[place]:
                head, tail = lines[place].split("=")
                value, *more = tail.split(" ")
                wrong = str(abs(int(value) + rng.choice((-10, -1, 1, 2, 10))))
                lines[place] = f"{head}={' '.join([wrong, *more])}"
        place += 1
    return "".join(f"{line}\n" for line in lines) + "</think>" + end
