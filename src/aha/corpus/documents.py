"""The stream of documents that a base reads: puzzles with their working, drills, products."""

from collections.abc import Callable, Iterator
from random import Random

from aha.core.seeds import seed_for
from aha.corpus.drills import page
from aha.corpus.mix import TraceMix
from aha.corpus.products import product_documents
from aha.corpus.terms import Move, TableNumber, without
from aha.corpus.traces import Trace, TraceWriter, completion_text
from aha.tasks.countdown import LARGEST, SMALLEST, TARGETS, puzzle_line
from aha.tasks.solver import can_make
from aha.tasks.templates import plain_frame


def played_puzzle(writer: TraceWriter, size: int, targets: range) -> Trace:
    """A puzzle made by playing it: draw numbers, combine them at random, take the end as target.

    Fast, and solvable by construction; puzzles with many solutions come up more often than in
    the task's own draw, which is even over solvable (numbers, target) pairs.
    """
    while True:
        numbers = tuple(writer.rng.randint(SMALLEST, LARGEST) for _ in range(size))
        terms = tuple(map(TableNumber.given, numbers))
        moves: list[Move] = []
        while len(terms) > 1:
            a, op, b, result = writer.any_move(terms)
            moves.append((a, op, b, result))
            terms = (*without(terms, a, b), result)
        if terms[0].value in targets:
            return Trace(numbers, terms[0].value, gold=moves)


def drawn_puzzle(writer: TraceWriter, size: int, targets: range) -> Trace:
    """A puzzle as the task draws them: even over solvable (numbers, target) pairs, so that a search
    in order often has to go far."""
    while True:
        numbers = tuple(writer.rng.randint(SMALLEST, LARGEST) for _ in range(size))
        target = writer.rng.choice(targets)
        if can_make(numbers, target):
            return Trace(numbers, target)


def documents(
    mix: TraceMix, seed: int, keep: Callable[[tuple[int, ...], int], bool]
) -> Iterator[tuple[str, str]]:
    """Endless `(prompt, completion)` pairs; drills have an empty prompt.

    `keep(numbers, target)` says which puzzles may be written: pre-training passes "belongs to the
    training split", so that no held-out problem and no held-out target is ever read. Products are
    of the training split of their own task.
    """
    rng = Random(seed_for("traces", seed))
    writer = TraceWriter(mix, rng)
    # An orderly search checks and goes back: with either rate at 0 there is none.
    orderly = mix.orderly if mix.verify and mix.backtrack else 0.0
    while True:
        if mix.multiply:
            yield from product_documents(rng, mix)
        size = rng.choice(mix.numbers)
        searches = size == 2 or rng.random() < mix.search
        in_order = size > 2 and searches and rng.random() < orderly
        trace = (drawn_puzzle if in_order else played_puzzle)(writer, size, TARGETS)
        if not keep(trace.numbers, trace.target):
            continue
        if rng.random() < mix.drill:
            # The puzzle's own target: a drawn one could be a held-out target.
            yield "", page(rng, mix, trace.target)
        if in_order:
            writer.orderly(trace, trace.start, glance=rng.random() < mix.glance)
        elif searches:
            writer.search(trace)
        else:
            writer.guess(trace)
        yield plain_frame(puzzle_line(trace.numbers, trace.target)), completion_text(trace)
