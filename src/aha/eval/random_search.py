"""Search by chance: complete attempts in the grammar of the corpus, in no order.

Its arithmetic is always right and it hardly repeats an attempt; it learns nothing from a miss.
"""

from collections.abc import Iterator
from random import Random

from aha.core.seeds import seed_for
from aha.corpus.bases import TraceMix
from aha.corpus.terms import TableNumber
from aha.corpus.traces import Trace, TraceWriter

MAX_REDRAWS = 50

# How seldom a large result is drawn. Fixed here: a yardstick must not change with the corpus.
RATES = TraceMix(high_result=200, high_rate=0.25, max_result=1_000, max_rate=0.01)
ALL_ALIKE = TraceMix(high_rate=1.0, max_rate=1.0)  # where nothing likely is left

WrittenLine = tuple[str, TableNumber | None]  # text, and the term that a complete attempt has made


def by_chance(numbers: tuple[int, ...], target: int, seed: int) -> Iterator[WrittenLine]:
    """The lines of attempts drawn at random, without end and without a verdict.

    An attempt that was made already is drawn again, up to MAX_REDRAWS times. Where all of them were
    made already, large results are drawn as often as small ones from then on; where that brings
    nothing new either, the last draw is written once more. Numbers, target and `seed` fix the
    draws; no draw is chosen because it comes near the target.
    """
    writer = TraceWriter(RATES, Random(seed_for("random search", seed, *numbers, target)))
    start = tuple(map(TableNumber.given, numbers))
    tried: set[str] = set()
    while len(start) > 1:
        for _ in range(MAX_REDRAWS):
            trace = Trace(numbers, target)
            end, _ = writer.forward(trace, start, target, gold=None, insight=0.0)
            if end.key not in tried:
                break
        else:
            if writer.mix is RATES:
                writer.mix = ALL_ALIKE
                continue
        tried.add(end.key)
        for text in trace.lines[:-1]:
            yield text, None
        yield trace.lines[-1], end
