"""The detector and the way of search, on what the corpus writes: the two know nothing of each
other, and must agree."""

from collections import Counter
from dataclasses import replace
from random import Random

import pytest

from aha.behaviors.detector import count_behaviours
from aha.behaviors.move_order import LARGE
from aha.behaviors.search_ways import read_search
from aha.corpus.bases import TraceMix
from aha.corpus.orderly import NEAR_GLANCE, Eyes, OrderlySearch
from aha.corpus.shards import drawn_puzzle
from aha.corpus.traces import Trace, TraceWriter, completion_text

WAYS = [
    ("in_order", Eyes(None), False),
    ("glance", Eyes(NEAR_GLANCE), False),
    ("look", Eyes(0), False),
    ("look", Eyes(10), False),
    ("look", Eyes(25), False),  # between the two: a fifth is read as a glance
    ("backward", Eyes(NEAR_GLANCE), True),
    ("backward", Eyes(3), True),
]


def written(size: int, eyes: Eyes, backward: bool, skips: float) -> list[Trace]:
    """Sixty searches of five lines or more, which may give up."""
    rng = Random(size)
    mix = replace(TraceMix(), skips=skips)
    writer, traces = TraceWriter(mix, rng), []
    while len(traces) < 60:
        trace = drawn_puzzle(writer, size, range(10, 101))
        OrderlySearch(trace, mix, rng).one_pass(eyes, backward)
        trace.answer = trace.answer or writer.any_answer(trace)
        if len(trace.lines) >= 5:
            traces.append(trace)
    return traces


@pytest.mark.parametrize("skips", [0.0, 1.0])
@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize(("way", "eyes", "backward"), WAYS)
def test_each_way_is_read_as_what_it_is(way, eyes, backward, size, skips):
    ways, illegal, lines = Counter(), 0, 0
    for trace in written(size, eyes, backward, skips):
        text = completion_text(trace)
        ways[read_search(text, trace.numbers, trace.target).way] += 1
        counts = count_behaviours(text, trace.numbers, trace.target)
        assert not counts.line_errors and counts.true_checks == counts.checks, text
        illegal, lines = illegal + counts.illegal, lines + counts.lines
    least = 0.75 if eyes.near == 25 else 0.85
    assert ways[way] >= least * ways.total() and illegal <= 0.002 * lines, (ways, illegal, lines)


def test_a_result_that_may_be_left_out_is_one_that_the_corpus_leaves_out():
    assert TraceMix().max_result == LARGE
