"""The detector on orderly searches: numbers behind a result, the line "check", steps back."""

from random import Random

import pytest
from tests.behaviors.known_searches import Known, known_search

from aha.behaviors.detector import Behaviours, annotate, count_behaviours


def counted(known: Known) -> Behaviours:
    return count_behaviours(known.text, known.numbers, known.target)


@pytest.mark.parametrize("state", [1, 2, 9])
@pytest.mark.parametrize(("size", "count"), [(3, 120), (4, 30)])
@pytest.mark.parametrize("way", ["in_order", "glance", "look", "backward"])
def test_counts_are_the_writers(way, size, count, state):
    """`state` 1 writes what is left behind every result, 9 behind none: then the table that a line
    is from is at times anybody's guess with four numbers."""
    rng = Random(51)
    for _ in range(count):
        known = known_search(way, size, rng, state)
        found = counted(known)
        verdicts = sum(line.endswith((" yes", " no")) for line in known.lines)
        assert found.lines == sum("=" in line for line in known.lines)
        assert found.checks == verdicts
        assert (found.line_errors, found.subgoals, found.explicit_checks) == (0, 0, 0)
        if state < 9 or size == 3:
            assert found.backward_chains == sum(line.endswith(" need") for line in known.lines)
            assert found.true_checks == verdicts, known.lines
            assert (found.illegal, found.continuations) == (0, 0), known.lines
            assert found.solution_seen == known.solved, known.lines
            if known.attempts >= 0 and (state == 1 or size == 3):
                assert found.attempts == known.attempts, known.lines


def test_numbers_behind_a_result_are_no_calculation_and_no_verdict():
    text = "24+1=25 3 7\n25+3=28 7\n28+7=35 no\ncheck\n24-1=23 3 7\n23-3=20 7\n20-7=13 no\n</think>"
    found = count_behaviours(text, (24, 1, 3, 7), 73)
    assert (found.lines, found.checks, found.true_checks) == (6, 2, 2)
    assert (found.attempts, found.backtracks_root, found.illegal) == (2, 1, 0)
    assert {mark.what for mark in annotate(text, (24, 1, 3, 7), 73)} == {
        *("true check", "back to the start")
    }


def test_numbers_behind_a_result_say_which_table_it_is_from():
    # 6+3 can go on from 12-6=6, or begin again from the numbers given.
    going_on = count_behaviours("12-6=6 3\n6+3=9\n</think>", (12, 6, 3), 50)
    assert (going_on.attempts, going_on.backtracks_root) == (1, 0)
    again = count_behaviours("12-6=6 3\n6+3=9 12\n</think>", (12, 6, 3), 50)
    assert (again.attempts, again.backtracks_root) == (2, 1)


def test_steps_back_the_other_way_round():
    text = "99-73=26 need\n24+3=27 no\n73*3=219 need\n99*24=2376 no\n</think>"
    found = count_behaviours(text, (24, 3, 99), 73)
    assert (found.backward_chains, found.checks, found.true_checks) == (2, 2, 2)
    assert (found.attempts, found.illegal) == (2, 0)


def test_steps_back_in_a_row_are_on_one_table():
    # 70 is given and also lies on the table after 84+4: the row goes on there.
    text = "84+4=88 70 2\n58+88=146 need\n58+70=128 need\n88+2=90 no\n58*2=116 need\n88+70=158 no\n"
    found = count_behaviours(text, (4, 84, 70, 2), 58)
    assert (found.backward_chains, found.illegal, found.true_checks) == (3, 0, 2)
    assert (found.attempts, found.backtracks_root, found.backtracks_intermediate) == (3, 0, 2)


def test_the_same_line_in_a_second_pass_is_a_repeat():
    once = "24+1=25\n25+3=28 no\n"
    assert count_behaviours(f"{once}check\n{once}</think>", (24, 1, 3), 73).repeats == 1
