"""On what the corpus writer writes the detector has to agree with the writer, line by line."""

from random import Random

import pytest

from aha.behaviors.detector import Behaviours, count_behaviours
from aha.corpus.bases import TraceMix
from aha.corpus.orderly import NEAR_GLANCE, Eyes, OrderlySearch
from aha.corpus.shards import played_puzzle
from aha.corpus.traces import Trace, TraceWriter, completion_text

NOTHING_BACKWARD = {"backward": 0.0, "subgoal": 0.0}


class Telling(TraceWriter):
    """The writer, remembering for each attempt whether it started from the numbers given."""

    def search(self, trace: Trace) -> None:
        self.starts: dict[int, bool] = {}
        super().search(trace)

    def attempt(self, trace, start, earlier, gold):
        # An attempt that is redone begins at the same line again, and replaces the first.
        at, self.from_start = len(trace.lines), True
        done = super().attempt(trace, start, earlier, gold)
        self.starts[at] = self.from_start
        return done

    def attempt_forward(self, trace, terms, gold):
        self.from_start = len(terms) == len(trace.numbers)
        return super().attempt_forward(trace, terms, gold)


def searches(size: int, count: int, **mix) -> list[tuple[Trace, list[bool], Behaviours]]:
    """Traces, where their attempts started, and what the detector makes of their text."""
    writer = Telling(TraceMix(**mix), Random(11))
    found = []
    for _ in range(count):
        trace = played_puzzle(writer, size, range(10, 101))
        writer.search(trace)
        text = completion_text(trace)
        found.append(
            (trace, [*writer.starts.values()], count_behaviours(text, trace.numbers, trace.target))
        )
    return found


@pytest.mark.parametrize(
    ("size", "count", "mix"),
    [
        (2, 300, {}),
        (3, 1500, {}),
        (3, 150, {"patient": 1.0}),
        (3, 500, {"verify": 0.0}),
        (3, 500, {"backward": 0.5, "subgoal": 0.4}),
        (4, 600, NOTHING_BACKWARD),
        (4, 80, {"patient": 1.0, **NOTHING_BACKWARD}),
        (5, 150, NOTHING_BACKWARD),
    ],
)
def test_counts_are_the_writers(size, count, mix):
    seen = Behaviours()
    for trace, starts, found in searches(size, count, **mix):
        calculations = [line for line in trace.lines if "=" in line]
        verdicts = [line for line in trace.lines if line.endswith((" yes", " no"))]
        aims = [line for line in trace.lines if line.startswith("aim ")]
        assert found.lines == len(calculations)
        assert (found.line_errors, found.illegal) == (0, 0)
        assert found.checks == found.true_checks == len(verdicts)
        assert found.backward_chains == sum(line.endswith(" need") for line in calculations)
        # The writer may say "aim 36" where 36 is the target itself; that is no subgoal.
        assert (
            found.subgoals == found.subgoals_valid == sum(a != f"aim {trace.target}" for a in aims)
        )
        assert found.attempts == len(starts)
        assert found.backtracks_root == sum(starts[1:])
        assert found.backtracks_intermediate == len(starts) - 1 - sum(starts[1:])
        assert found.continuations == 0
        assert found.solution_seen == found.answered == trace.solved
        assert found.attempts_until_solved in (None, len(starts))
        seen = found if found.attempts > seen.attempts else seen
    assert seen.attempts > 2  # it was no test of empty pages


def test_words_are_found_with_four_numbers_and_every_behaviour():
    """Counts by words alone, where steps back and going back meet: see the writer's test."""
    for trace, _, found in searches(4, 500):
        assert found.lines == sum("=" in line for line in trace.lines)
        assert found.checks == sum(line.endswith((" yes", " no")) for line in trace.lines)
        assert found.backward_chains == sum(line.endswith(" need") for line in trace.lines)
        assert (found.line_errors, found.illegal) == (0, 0)


def test_a_dial_at_zero_is_seen_as_zero():
    for mix, name in [
        ({"verify": 0.0}, "checks"),
        ({"backtrack": 0.0}, "backtracks_intermediate"),
        ({"backward": 0.0}, "backward_chains"),
        ({"subgoal": 0.0}, "subgoals"),
    ]:
        assert sum(getattr(found, name) for *_, found in searches(3, 200)) > 0
        assert sum(getattr(found, name) for *_, found in searches(3, 200, **mix)) == 0


def test_a_subgoal_is_achieved_where_the_writer_makes_it():
    for trace, _, found in searches(3, 600, subgoal=0.6, backward=0.0, backtrack=0.0):
        achieved = 0
        for place, line in enumerate(trace.lines):
            if line.startswith("aim ") and line != f"aim {trace.target}":
                # With three numbers an aim has two lines: make it of two, then use the third.
                rest = [text for text in trace.lines[place + 1 :] if "=" in text]
                values = [text.split("=")[1].split()[0] for text in rest[:2]]
                achieved += line.removeprefix("aim ") in values
        assert found.subgoals_achieved == achieved


@pytest.mark.parametrize("glance", [True, False])
@pytest.mark.parametrize("size", [3, 4])
def test_counts_of_an_orderly_search(size, glance):
    """One attempt a verdict, each from the table that the next pair in order lies on."""
    mix, rng, backtracks, illegal = TraceMix(), Random(12), 0, 0
    writer, eyes = TraceWriter(mix, rng), Eyes(NEAR_GLANCE if glance else None)
    for _ in range(100):
        trace = played_puzzle(writer, size, range(10, 101))
        OrderlySearch(trace, mix, rng).one_pass(eyes)
        found = count_behaviours(completion_text(trace), trace.numbers, trace.target)
        verdicts = [line for line in trace.lines if line.endswith((" yes", " no"))]
        assert found.line_errors == 0
        assert found.checks == found.true_checks == len(verdicts)
        assert found.attempts >= len(verdicts) and found.answered == trace.solved
        backtracks += found.backtracks
        illegal += found.illegal
    # After "16/4=4", passed by with 88 left, "88+4=92" on (16, 88, 4) is read as a try of 4 and 88.
    assert backtracks > 80 and illegal <= 1
