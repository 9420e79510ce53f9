"""Countdown: reach a target with each given number used exactly once.

Numbers are 1..99, targets 10..100, as in TinyZero's `Countdown-Tasks-3to4`; every problem is
solvable, and how hard it is, is known (`ways`, the number of distinct solutions).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from random import Random

from aha.core.errors import ConfigError, DataError
from aha.core.records import Graded, Problem
from aha.core.seeds import seed_for
from aha.tasks import tinyzero_compat
from aha.tasks.expression import Unreadable, read_expression
from aha.tasks.files import read_rows
from aha.tasks.solver import can_make, reachable
from aha.tasks.splits import hash_percent
from aha.tasks.tags import grade_answer, well_formed
from aha.tasks.templates import check_template, framed

SMALLEST, LARGEST = 1, 99
TARGETS = range(10, 101)
HELD_OUT_TARGETS = frozenset({17, 23, 31, 42, 58, 64, 75, 86, 97})
SPLITS = ("train", "validation", "test", "test_targets")


def problem_key(numbers: tuple[int, ...], target: int) -> str:
    """What makes two puzzles the same: the sorted numbers and the target."""
    return f"{','.join(map(str, sorted(numbers)))}={target}"


def split_of(numbers: tuple[int, ...], target: int) -> str:
    """The one split that a puzzle belongs to, by its key alone, so that splits cannot overlap.

    Nine targets (one in ten) belong to `test_targets` whatever the numbers: no model trained
    here has met them as a target. Of the rest 2 % each are test and validation.
    """
    if target in HELD_OUT_TARGETS:
        return "test_targets"
    bucket = hash_percent(problem_key(numbers, target))
    return "test" if bucket < 2 else "validation" if bucket < 4 else "train"


def puzzles(split: str, seed: int, sizes: tuple[int, ...]) -> Iterator[tuple]:
    """Different puzzles `(numbers, target, ways)` of one split, the same for each seed.

    Sizes come up evenly; within a size, all solvable (numbers, target) pairs of the split do. The
    split is looked at before the solver runs, because the test split holds one pair in fifty.
    Endless but for size 2, which ends when its few puzzles have all been given.
    """
    rng = Random(seed_for("countdown", split, seed, *sizes))
    met: set[str] = set()
    pairs = puzzles_of_two(split, seed) if 2 in sizes else []
    size = rng.choice(sizes)
    while True:
        if size == 2:
            if pairs:
                yield pairs.pop()
            else:
                sizes = tuple(other for other in sizes if other != 2)
                if not sizes:
                    return
            size = rng.choice(sizes)
            continue
        numbers = tuple(rng.randint(SMALLEST, LARGEST) for _ in range(size))
        target = rng.choice(TARGETS)
        if split_of(numbers, target) != split or not can_make(numbers, target):
            continue
        key = problem_key(numbers, target)
        if key not in met:
            met.add(key)
            yield numbers, target, reachable(numbers)[target]
            size = rng.choice(sizes)


def puzzles_of_two(split: str, seed: int) -> list[tuple]:
    """Every puzzle of two numbers in a split, shuffled. The test split has 118 of them, and a
    search for one more would never end."""
    rng = Random(seed_for("countdown of two", split, seed))
    found = []
    for low in range(SMALLEST, LARGEST + 1):
        for high in range(low, LARGEST + 1):
            numbers = (low, high) if rng.random() < 0.5 else (high, low)
            ways = reachable(numbers)
            found += [(numbers, target, ways[target]) for target in TARGETS if ways[target]]
    found = [puzzle for puzzle in found if split_of(*puzzle[:2]) == split]
    rng.shuffle(found)
    return found


# -- the task -------------------------------------------------------------------------------


def check(text: str, numbers: tuple[int, ...], target: int) -> tuple[bool, str]:
    """Is `text` an expression that makes `target` of exactly these numbers? With the reason."""
    try:
        found = read_expression(text)
    except Unreadable as reason:
        return False, f"not an expression: {reason}"
    used, given = Counter(found.numbers), Counter(numbers)
    for number in used:
        if number not in given:
            return False, f"uses {number}, which was not given"
        if used[number] > given[number]:
            times = {1: "once", 2: "twice"}.get(given[number], f"{given[number]} times")
            return False, f"uses {number} more often than it was given ({times})"
    missing = given - used
    if missing:
        return False, f"does not use {', '.join(map(str, sorted(missing.elements())))}"
    if found.value != target:
        return False, f"makes {found.value}, not {target}"
    return True, f"makes {target} of every number once"


class Countdown:
    """The game as a task. A reward of 1 for a right answer and 0 for anything else.

    `numbers` are the sizes of the puzzles, drawn evenly; `template` is how they are asked;
    `data` is a file of puzzles to use in place of drawn ones; `verifier="tinyzero"` grades as
    TinyZero does, faults included, for runs that are to be compared with it; `format_reward` is
    paid besides for R1's form, whether or not the answer is right.
    """

    name = "countdown"

    def __init__(
        self,
        numbers: tuple[int, ...] = (3,),
        template: str = "plain",
        data: str | Path | None = None,
        verifier: str = "strict",
        format_reward: float = 0.0,
    ):
        if not numbers or not all(isinstance(n, int) and 2 <= n <= 6 for n in numbers):
            raise ConfigError(f"numbers {numbers}", "sizes from 2 to 6", "numbers = [3, 4]")
        if verifier not in ("strict", "tinyzero"):
            raise ConfigError(f"verifier {verifier!r}", "'strict' or 'tinyzero'")
        self.numbers, self.verifier = tuple(numbers), verifier
        self.template = check_template(template)
        self.format_reward = format_reward
        self.rows = load_puzzles(Path(data)) if data else None

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """Different problems of one split. Endless when drawn; each once when read from a file."""
        if split not in SPLITS:
            raise ConfigError(f"split {split!r}", f"one of {', '.join(SPLITS)}")
        if self.rows is None:
            for numbers, target, ways in puzzles(split, seed, self.numbers):
                yield as_problem(numbers, target, ways)
            return
        mine = [row for row in self.rows if split_of(*row) == split]
        Random(seed_for("file", split, seed)).shuffle(mine)
        for numbers, target in mine:
            yield as_problem(numbers, target)

    def ask(self, problem: Problem) -> str:
        numbers, target = problem.given["numbers"], problem.given["target"]
        request = REQUEST.format(numbers=list(numbers), target=target)
        return framed(self.template, puzzle_line(numbers, target), request)

    def grade(self, problem: Problem, text: str) -> Graded:
        numbers, target = problem.given["numbers"], problem.given["target"]
        if self.verifier == "tinyzero":
            return tinyzero_compat.grade(text, numbers, target, self.template)
        judged = grade_countdown(text, numbers, target)
        return with_format(judged, text, self.format_reward) if self.format_reward else judged


def grade_countdown(text: str, numbers: tuple[int, ...], target: int) -> Graded:
    """The strict verdict on one completion: linear, under a millisecond for 100,000 characters."""
    return grade_answer(text, lambda answer: check(answer, numbers, target))


def with_format(judged: Graded, text: str, reward: float) -> Graded:
    """The verdict with R1's format reward on top; what is right stays what it was."""
    formed = well_formed(text)
    reason = judged.reason if formed else f"{judged.reason} (and not in the asked form)"
    parts = {**judged.parts, "format": float(formed)}
    return replace(judged, reward=judged.reward + reward * formed, reason=reason, parts=parts)


def as_problem(numbers: tuple[int, ...], target: int, ways: int | None = None) -> Problem:
    """A puzzle as a record. The id keeps the order of the numbers, because the prompt shows it."""
    given = {"numbers": tuple(numbers), "target": target}
    if ways is not None:
        given["ways"] = ways
    return Problem(f"countdown/{'-'.join(map(str, numbers))}={target}", "countdown", given)


# -- how it is asked ------------------------------------------------------------------------


REQUEST = (
    "Make an equation from the numbers {numbers} that equals {target}. You may use the basic "
    "operations (+, -, *, /), and every number has to be used exactly once. Work it out inside "
    "<think> </think> tags, then give the equation inside <answer> </answer> tags, as in "
    "<answer> (1 + 2) / 3 </answer>."
)


# -- puzzles from a file --------------------------------------------------------------------


_ROW = '{"nums": [3, 7, 25], "target": 82}'
_WANTED = f"JSON lines or Parquet with 'nums' and 'target', as in {_ROW}"


def load_puzzles(path: Path) -> list[tuple[tuple[int, ...], int]]:
    """Rows of the public 3-to-4 data: `nums` and `target`, JSON lines or Parquet, each once."""
    found = {}
    for place, row in read_rows(path, _WANTED, ("nums", "target")):
        nums, target = (row.get("nums"), row.get("target")) if isinstance(row, dict) else (0, 0)
        whole = isinstance(nums, list) and all(type(n) is int and n > 0 for n in [*nums, target])
        if not whole or not 2 <= len(nums) <= 6:
            raise DataError(
                f"{path}, row {place}: {str(row)[:80]}",
                f"2 to 6 positive integers and a target, as in {_ROW}",
                f"mend or remove row {place}",
            )
        found.setdefault(problem_key(tuple(nums), target), (tuple(nums), target))
    if not found:
        raise DataError(f"{path} is empty", _WANTED, "add at least one row")
    return list(found.values())


def puzzle_line(numbers: tuple[int, ...], target: int) -> str:
    return f"numbers {' '.join(map(str, numbers))} target {target}"
