"""Puzzles that searches without a model do not solve, as in Stream of Search (arXiv 2404.03683).

    unsolved     puzzles of the test split that a search as in the corpus did not solve
    difficult    puzzles that none of four searches by chance solved

There the corpus has twelve solvers with heuristics, and none of them solves a difficult puzzle. Of
puzzles with three numbers each is solved by at least a third of twelve searches as in the corpus:
so the difficult ones are those that chance alone does not solve in four tries.
"""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from random import Random

from aha.core.errors import ConfigError
from aha.core.records import Problem
from aha.core.seeds import seed_for
from aha.corpus.bases import TraceMix
from aha.corpus.orderly import OrderlySearch
from aha.corpus.traces import Trace, TraceWriter
from aha.tasks.countdown import as_problem, puzzles

SEARCHES = {"unsolved": (1, 0.5), "difficult": (4, 0.0)}  # how many, share in order
NUMBERS = (3,)
# Half of the searches go in order, and all give up at some point: see `search_study`.
SEARCHING = replace(
    TraceMix(),
    numbers=NUMBERS,
    drill=1.0,
    search=1.0,
    orderly=0.5,
    gold_attempt=0.0,
    insight=0.0,
    give_up=0.12,
    patient=0.0,
    max_attempts=16,
    backward=0.1,
    subgoal=0.1,
    work_back=0.0,
)


def solved_by_writer(numbers: tuple[int, ...], target: int, number: int, orderly: float) -> bool:
    """Whether search `number` of the corpus's writer solves a puzzle; it sees no solution.
    `orderly`: the chance that it goes in order."""
    rng = Random(seed_for("writer", number, target, *numbers))
    trace = Trace(numbers, target)
    if rng.random() < orderly:
        OrderlySearch(trace, SEARCHING, rng).write()
    else:
        TraceWriter(SEARCHING, rng).search(trace)
    return trace.solved


def hard(searches: int, orderly: float) -> Iterator[Problem]:
    """Puzzles of the test split that none of so many searches solves."""
    for numbers, target, ways in puzzles("test", 0, NUMBERS):
        tries = (solved_by_writer(numbers, target, n, orderly) for n in range(searches))
        if not any(tries):
            yield as_problem(numbers, target, ways)


@lru_cache
def hard_puzzles(kind: str, n: int) -> tuple[Problem, ...]:
    """The first n puzzles of a kind. Raises `ConfigError` for another kind."""
    if kind not in SEARCHES:
        raise ConfigError(f"puzzles {kind!r}", f"one of {', '.join(SEARCHES)}")
    return tuple(islice(hard(*SEARCHES[kind]), n))
