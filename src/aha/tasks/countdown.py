"""Countdown: reach a target with each given number used exactly once.

Numbers are 1..99, targets 10..100, as in TinyZero's `Countdown-Tasks-3to4`. Every problem is
solvable, and its difficulty is known: `ways`, the number of distinct solutions.
"""

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from random import Random
from threading import Lock
from typing import Any

from aha.core.errors import ConfigError
from aha.core.findings import Finding
from aha.core.records import Graded, Problem
from aha.core.seeds import seed_for
from aha.tasks.expression import Unreadable, read_expression
from aha.tasks.file_splits import ALL, FileSplits, check_test_data
from aha.tasks.puzzle_rows import load_puzzles, problem_key
from aha.tasks.solver import Step, can_make, reachable, solutions
from aha.tasks.splits import hash_percent
from aha.tasks.tags import answer_ending, check_template, framed, grade_answer, well_formed
from aha.tasks.tinyzero_compat import grade_as_tinyzero

SMALLEST, LARGEST = 1, 99
TARGETS = range(10, 101)
KEPT = 1_000  # puzzles at the beginning of a stream
HELD_OUT_TARGETS = frozenset({17, 23, 31, 42, 58, 64, 75, 86, 97})
SPLITS = ("train", "validation", "test", "test_targets")

Puzzle = tuple[tuple[int, ...], int, int]  # numbers, target, ways


def split_of(numbers: tuple[int, ...], target: int) -> str:
    """The one split that a puzzle belongs to, by its key alone, so that splits cannot overlap.

    Nine targets (one in ten) belong to `test_targets` whatever the numbers: no model trained
    here has read or trained on them as a target. Of the rest 2 % each are test and validation.
    """
    if target in HELD_OUT_TARGETS:
        return "test_targets"
    bucket = hash_percent(problem_key(numbers, target))
    return "test" if bucket < 2 else "validation" if bucket < 4 else "train"


def puzzles(split: str, seed: int, sizes: tuple[int, ...]) -> Iterator[Puzzle]:
    """Different puzzles `(numbers, target, ways)` of one split, the same for each seed.

    Sizes come up evenly; within a size, all solvable (numbers, target) pairs of the split do.
    Endless, except that size 2 ends when its few puzzles have all been given.
    """
    first = first_puzzles(split, seed, tuple(sizes))
    place = 0
    while (puzzle := first.at(place)) is not None:
        yield puzzle
        place += 1
    if place == KEPT:
        yield from first.rest()


class PuzzleDraw:
    """The draw of a stream of puzzles, in a state that can be copied.

    The split is checked before the solver runs, because the test split holds one pair in fifty.
    """

    def __init__(self, split: str, seed: int, sizes: tuple[int, ...]):
        self.split, self.sizes = split, sizes
        self.rng = Random(seed_for("countdown", split, seed, *sizes))
        self.seen: set[str] = set()
        self.pairs = puzzles_of_two(split, seed) if 2 in sizes else []
        self.size = self.rng.choice(sizes)

    def next(self) -> Puzzle | None:
        """The next puzzle; None where there is none left."""
        rng = self.rng
        while True:
            if self.size == 2 and not self.pairs:
                self.sizes = tuple(other for other in self.sizes if other != 2)
                if not self.sizes:
                    return None
                self.size = rng.choice(self.sizes)
            if self.size == 2:
                puzzle = self.pairs.pop()
                break
            numbers = tuple(rng.randint(SMALLEST, LARGEST) for _ in range(self.size))
            target = rng.choice(TARGETS)
            if split_of(numbers, target) != self.split or not can_make(numbers, target):
                continue
            key = problem_key(numbers, target)
            if key not in self.seen:
                self.seen.add(key)
                puzzle = numbers, target, reachable(numbers)[target]
                break
        self.size = rng.choice(self.sizes)
        return puzzle


class FirstPuzzles:
    """The first KEPT puzzles of a stream, drawn when they are asked for and then remembered.

    A run asks several times for the beginning of the same streams: to see whether its model can
    read the prompts, and for each test.
    """

    def __init__(self, draw: PuzzleDraw):
        self.draw, self.drawn, self.lock = draw, list[Puzzle | None](), Lock()

    def at(self, place: int) -> Puzzle | None:
        """The puzzle at this place; None after the last one, and from KEPT on."""
        with self.lock:
            while len(self.drawn) <= place < KEPT:
                self.drawn.append(self.draw.next())
        return self.drawn[place] if place < KEPT else None

    def rest(self) -> Iterator[Puzzle]:
        """The puzzles from KEPT on, after all before them."""
        draw = copy.deepcopy(self.draw)
        while (puzzle := draw.next()) is not None:
            yield puzzle


@lru_cache(16)
def first_puzzles(split: str, seed: int, sizes: tuple[int, ...]) -> FirstPuzzles:
    return FirstPuzzles(PuzzleDraw(split, seed, sizes))


def puzzles_of_two(split: str, seed: int) -> list[Puzzle]:
    """Every puzzle of two numbers in a split, shuffled. The test split has 118 of them, and a
    search for one more would never end."""
    rng = Random(seed_for("countdown of two", split, seed))
    every: list[Puzzle] = []
    for low in range(SMALLEST, LARGEST + 1):
        for high in range(low, LARGEST + 1):
            numbers = (low, high) if rng.random() < 0.5 else (high, low)
            ways = reachable(numbers)
            every += [(numbers, target, ways[target]) for target in TARGETS if ways[target]]
    puzzles = [puzzle for puzzle in every if split_of(*puzzle[:2]) == split]
    rng.shuffle(puzzles)
    return puzzles


# -- the task -------------------------------------------------------------------------------


def check(text: str, numbers: tuple[int, ...], target: int) -> tuple[bool, str]:
    """Is `text` an expression that makes `target` of exactly these numbers? With the reason."""
    try:
        expression = read_expression(text)
    except Unreadable as reason:
        return False, f"not an expression: {reason}"
    used, given = Counter(expression.numbers), Counter(numbers)
    for number in used:
        if number not in given:
            return False, f"uses {number}, which was not given"
        if used[number] > given[number]:
            times = {1: "once", 2: "twice"}.get(given[number], f"{given[number]} times")
            return False, f"uses {number} more often than it was given ({times})"
    missing = given - used
    if missing:
        return False, f"does not use {', '.join(map(str, sorted(missing.elements())))}"
    if expression.value != target:
        return False, f"makes {expression.value}, not {target}"
    return True, f"makes {target} of every number once"


class Countdown:
    """The game as a task. A reward of 1 for a right answer and 0 for anything else.

    `numbers` are the sizes of the puzzles, drawn evenly; `template` is the frame of the prompt;
    `data` is a file of puzzles to use in place of drawn ones, and `test_data` one of other puzzles,
    all of them tests; `bad_rows` says what becomes of rows that cannot be used, and `notes` what
    became of them; `verifier="tinyzero"` grades as
    TinyZero does, faults included, for runs that are to be compared with it; `format_reward` is
    added for R1's form, whether or not the answer is right. Raises `ConfigError` for a setting out
    of its range, `DataError` for a file that cannot be read.
    """

    name = "countdown"

    def __init__(
        self,
        numbers: tuple[int, ...] = (3,),
        template: str = "plain",
        data: str | Path | None = None,
        verifier: str = "strict",
        format_reward: float = 0.0,
        test_data: str | Path | None = None,
        bad_rows: str = "refuse",
    ):
        if not numbers or not all(isinstance(n, int) and 2 <= n <= 6 for n in numbers):
            raise ConfigError(f"numbers {numbers}", "sizes from 2 to 6", "sizes such as 3 and 4")
        if verifier not in ("strict", "tinyzero"):
            raise ConfigError(f"verifier {verifier!r}", "'strict' or 'tinyzero'")
        self.numbers, self.verifier = tuple(numbers), verifier
        self.template = check_template(template)
        self.format_reward = format_reward
        self.splits: FileSplits[tuple[tuple[int, ...], int]] | None = None
        self.notes: list[Finding] = []
        check_test_data(data, test_data)
        if data:
            rows, self.notes = load_puzzles(Path(data), bad_rows)
            tests, notes = load_puzzles(Path(test_data), bad_rows) if test_data else (None, [])
            self.splits = FileSplits(
                rows, tests, lambda row: problem_key(*row), lambda row: split_of(*row)
            )
            self.notes += [*notes, *self.splits.notes]

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """Different problems of one split. Endless when drawn; each once when read from a file."""
        if split not in SPLITS and (split != ALL or self.splits is None):
            file = "--data FILE, or --split test" if split == ALL else ""
            raise ConfigError(f"split {split!r}", f"one of {', '.join(SPLITS)}", file)
        if self.splits is None:
            for numbers, target, ways in puzzles(split, seed, self.numbers):
                yield as_problem(numbers, target, ways)
            return
        for numbers, target in self.splits.shuffled(split, seed, "file"):
            yield as_problem(numbers, target)

    def num_problems(self, split: str) -> int | None:
        """How many puzzles a split of the file has; None where they are drawn."""
        return len(self.splits.of(split)) if self.splits else None

    def ask(self, problem: Problem) -> str:
        """The prompt, in the frame of the template."""
        numbers, target = problem.given["numbers"], problem.given["target"]
        request = REQUEST.format(numbers=list(numbers), target=target)
        return framed(self.template, puzzle_line(numbers, target), request)

    def grade(self, problem: Problem, text: str) -> Graded:
        """The reward by the chosen verifier, with the format reward where there is one."""
        numbers, target = problem.given["numbers"], problem.given["target"]
        form = (self.verifier, self.template, self.format_reward)
        return grade_puzzle(text, numbers, target, *form)

    def solve(self, problem: Problem) -> str | None:
        """The steps of a solution, then it; None for a puzzle that has none."""
        numbers, target = problem.given["numbers"], problem.given["target"]
        steps = next(iter(solutions(tuple(numbers), target, 1)), None)
        return None if steps is None else written_out(steps, target)


def written_out(steps: tuple[Step, ...], target: int) -> str:
    """A solution as a completion: a line for each step, then one expression as the answer."""
    made: list[tuple[int, str]] = []  # values of steps that no later step has used, as expressions
    for a, op, b, result in steps:
        left, right = (taken(made, value) for value in (a, b))
        made.append((result, f"({left} {op} {right})"))
    lines = [f"{a} {op} {b} = {result}" for a, op, b, result in steps]
    expression = made[-1][1].removeprefix("(").removesuffix(")") if made else str(target)
    return "\n".join(lines or [str(target)]) + f"\n{answer_ending(expression)}"


def taken(made: list[tuple[int, str]], value: int) -> str:
    """The expression that makes the value, taken out of the list; the number itself without one.

    Two numbers of the same value can be exchanged, so any of them is right.
    """
    index = next((i for i, (result, _) in enumerate(made) if result == value), None)
    return str(value) if index is None else made.pop(index)[1]


def grade_puzzle(
    text: str,
    numbers: tuple[int, ...],
    target: int,
    verifier: str = "strict",
    template: str = "plain",
    format_reward: float = 0.0,
) -> Graded:
    """The grade of one completion by the settings of a task."""
    if verifier == "tinyzero":
        return grade_as_tinyzero(text, numbers, target, template)
    graded = grade_countdown(text, numbers, target)
    return add_format_reward(graded, text, format_reward) if format_reward else graded


def grade_countdown(text: object, numbers: tuple[int, ...], target: int) -> Graded:
    """The strict grade of one completion; linear, under a millisecond for 100,000 characters.

    A value that is no text gets a reward of 0 as well.
    """
    return grade_answer(text, lambda answer: check(answer, numbers, target))


def add_format_reward(graded: Graded, text: str, reward: float) -> Graded:
    """The grade with R1's format reward added; `correct` does not change."""
    formed = well_formed(text)
    reason = graded.reason if formed else f"{graded.reason} (and not in the asked form)"
    parts = {**graded.parts, "format": float(formed)}
    return replace(graded, reward=graded.reward + reward * formed, reason=reason, parts=parts)


def as_problem(numbers: tuple[int, ...], target: int, ways: int | None = None) -> Problem:
    """A puzzle as a record. The id keeps the order of the numbers, because the prompt shows it."""
    given: dict[str, Any] = {"numbers": tuple(numbers), "target": target}
    if ways is not None:
        given["ways"] = ways
    return Problem(f"countdown/{'-'.join(map(str, numbers))}={target}", "countdown", given)


# -- the prompt -----------------------------------------------------------------------------


def puzzle_line(numbers: tuple[int, ...], target: int) -> str:
    """A puzzle in one line: the whole request for the bases made here, and in their corpus."""
    return f"numbers {' '.join(map(str, numbers))} target {target}"


REQUEST = (
    "Make an equation from the numbers {numbers} that equals {target}. You may use the basic "
    "operations (+, -, *, /), and every number has to be used exactly once. Work it out inside "
    "<think> </think> tags, then give the equation inside <answer> </answer> tags, as in "
    "<answer> (1 + 2) / 3 </answer>."
)
