"""Random search with a model's token budget, and its solve rate: a baseline for learned search.

The search writes complete attempts in the grammar of the corpus, each different from the earlier
ones, until one makes the target or the tokens are spent. The arithmetic is always right, and the
operations are random.
"""

from collections.abc import Callable
from itertools import islice
from random import Random
from typing import Any

from aha.core.seeds import seed_for
from aha.corpus.bases import TraceMix
from aha.corpus.terms import TableNumber
from aha.corpus.traces import Trace, TraceWriter, completion_text
from aha.eval.statistics import wilson
from aha.model.tokenizer import build_tokenizer
from aha.tasks.countdown import Countdown

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


def random_baseline(numbers: tuple[int, ...], budget: int, n: int, seed: int) -> dict[str, Any]:
    """Solve rate of n test puzzles with `budget` tokens each, and its 95 % interval."""
    tokenizer = build_tokenizer()

    def count(text: str) -> int:
        return len(tokenizer.fast.encode(text, add_special_tokens=False).ids)

    task, solved = Countdown(numbers), 0
    for problem in islice(task.problems("test", seed), n):
        given = problem.given
        solved += random_search(given["numbers"], given["target"], seed, count, budget)[1]
    low, high = wilson(solved, n)
    row = {"numbers": list(numbers), "tokens": budget, "n": n, "solve_rate": solved / n}
    return row | {"interval": [low, high]}
