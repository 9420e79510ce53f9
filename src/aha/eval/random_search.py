"""Blind search with the same token budget: the baseline that a claim of learning has to beat.

It writes complete attempts in the grammar of the corpus, each different from the earlier ones,
until it hits the target or its tokens are spent. Its arithmetic is perfect; which operation to try
is chance alone.
"""

from collections.abc import Callable
from random import Random

from aha.core.seeds import seed_for
from aha.corpus.mix import TraceMix
from aha.corpus.terms import TableNumber
from aha.corpus.traces import Trace, TraceWriter, completion_text

MAX_REDRAWS = 50


def random_search(
    numbers: tuple[int, ...],
    target: int,
    seed: int,
    count_tokens: Callable[[str], int],
    budget: int,
) -> tuple[str, bool]:
    """One search: (completion, solved within `budget` tokens, answer block included)."""
    writer = TraceWriter(TraceMix(), Random(seed_for("random search", seed, *numbers, target)))
    trace = Trace(numbers, target)
    start = tuple(map(TableNumber.given, numbers))
    while True:
        size = len(trace.lines)
        for _ in range(MAX_REDRAWS):
            del trace.lines[size:]
            end, _ = writer.forward(trace, start, target, gold=None, insight=0.0)
            if end.key not in trace.tried:
                break
        trace.tried.add(end.key)
        trace.lines[-1] += " yes" if end.value == target else " no"
        trace.answer = end.text
        text = completion_text(trace)
        if count_tokens(text) + 1 > budget:  # one more for the stop token
            return text, False
        if end.value == target:
            return text, True
