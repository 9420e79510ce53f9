"""What an opponent solves at a limit, and at a mean number of tokens."""

import subprocess
import sys
from itertools import pairwise

import pytest

from aha.core.errors import ConfigError
from aha.core.records import Completion, Graded, Prompt
from aha.eval.opponents import OPPONENTS, OpponentSearch, counter_of
from aha.eval.yardstick import (
    Curve,
    chain,
    curve_of,
    held_out_puzzles,
    opponent_row,
    opponents_of,
    place_lines,
)
from aha.tasks.countdown import as_problem, split_of

from .vocabularies import TOKENIZERS

COUNT = counter_of(TOKENIZERS["pairs"])
DIGITS = counter_of(TOKENIZERS["digits"])  # the first edition's tokens
PUZZLES = held_out_puzzles((3,), "validation", 30, 0)
# Four puzzles: solved with 10 and 30 tokens, wrong with 20, and one that is longer than 50.
CURVE = Curve(n=4, longest=50, solved_ends=[10, 30], all_ends=[10, 20, 30])


def test_the_curve_by_hand():
    # At 25: 10 + 20 + 25 + 25 = 80 tokens, one solved. At 50: 10 + 20 + 30 + 50 = 110, two.
    assert [CURVE.mean_tokens(limit) for limit in (0, 10, 25, 50)] == [0, 10, 20, 27.5]
    assert [CURVE.solved(limit) for limit in (9, 10, 29, 30, 50)] == [0, 1, 1, 2, 2]
    row = CURVE.row(30)
    assert (row["tokens"], row["n"], row["solve_rate"], row["mean_tokens"]) == (30, 4, 0.5, 22.5)
    assert row["interval"][0] < 0.5 < row["interval"][1]


def test_the_point_at_a_mean_by_hand():
    # 21 in the mean: 10 + 20 + 27 + 27 = 84 with a limit of 27.
    row = CURVE.row_at_mean(21)
    assert (row["tokens"], row["mean_tokens"], row["uses_fewer"]) == (27, 21, False)
    # Not above it: with a limit of 28 it would be 21.5.
    assert CURVE.row_at_mean(21.4)["tokens"] == 27
    assert CURVE.row_at_mean(27.5)["uses_fewer"] is False
    end = CURVE.row_at_mean(80)
    assert (end["tokens"], end["mean_tokens"], end["uses_fewer"]) == (50, 27.5, True)


def test_a_search_that_ends_earlier_stands_with_its_end():
    curve = Curve(n=2, longest=100, solved_ends=[10], all_ends=[10, 40])
    row = curve.row_at_mean(60)
    assert (row["tokens"], row["mean_tokens"], row["uses_fewer"]) == (40, 25, True)
    assert row["solve_rate"] == 0.5


@pytest.mark.parametrize("name", OPPONENTS)
def test_one_search_gives_what_a_search_for_each_limit_gives(name):
    curve = curve_of(name, PUZZLES, 0, COUNT, 300)
    for limit in (20, 60, 110, 300):
        used = solved = 0
        for puzzle in PUZZLES:
            search = OpponentSearch(name, *puzzle, 0, COUNT)
            search.continue_to(limit)
            whole = search.end is not None and search.end <= limit
            used += search.end if whole else limit
            solved += whole and search.solved
        assert curve.mean_tokens(limit) == used / len(PUZZLES)
        assert curve.solved(limit) == solved


def test_a_larger_limit_solves_no_fewer_and_better_eyes_no_fewer():
    curves = {name: curve_of(name, PUZZLES, 0, COUNT, 400) for name in OPPONENTS}
    for curve in curves.values():
        for less, more in pairwise(range(0, 401, 7)):
            assert curve.solved(less) <= curve.solved(more)
            assert curve.mean_tokens(less) <= curve.mean_tokens(more)
    for limit in range(0, 401, 7):
        solved = [curves[name].solved(limit) for name in ("in-order", "glance", "clairvoyant")]
        assert solved == sorted(solved)


def test_an_equal_mean_may_need_a_larger_limit():
    row = opponent_row("blind", PUZZLES, 0, DIGITS, 60, mean_tokens=70)
    assert row["tokens"] == 60 and row["mean_tokens"] <= 60
    at_mean = row["at_mean"]
    assert at_mean["tokens"] > 70 and 69 < at_mean["mean_tokens"] <= 70
    assert at_mean["solve_rate"] > row["solve_rate"]


def test_an_unknown_search_is_refused():
    with pytest.raises(ConfigError, match="clairvoyant"):
        opponent_row("psychic", PUZZLES, 0, COUNT, 60)


@pytest.mark.parametrize(("numbers", "split"), [((3, 4), "test"), ((3,), "test_targets")])
def test_the_puzzles_are_those_of_the_split(numbers, split):
    puzzles = held_out_puzzles(numbers, split, 12, 0)
    assert {split_of(*puzzle) for puzzle in puzzles} == {split}
    assert {len(puzzle[0]) for puzzle in puzzles} == set(numbers)


def test_a_split_with_fewer_puzzles_is_counted_as_it_is():
    puzzles = held_out_puzzles((2,), "test", 1_000, 0)
    assert 0 < len(puzzles) < 1_000
    row = opponent_row("in-order", puzzles, 0, COUNT, 320)
    assert row["n"] == len(puzzles) and row["solve_rate"] == 1.0


def test_the_filed_figures_of_blind_search_are_those_of_a_limit():
    """results/demo, seed 0: .549 with 103 tokens is what it solves within 103. Its mean is then
    far lower; at a mean of 103 it solves more. On the first 200 puzzles alone."""
    puzzles = held_out_puzzles((3,), "test", 200, 0)
    row = opponent_row("blind", puzzles, 0, DIGITS, 103, mean_tokens=103)
    assert 0.48 < row["solve_rate"] < 0.62 and row["mean_tokens"] < 85
    assert row["at_mean"]["interval"][0] > row["solve_rate"] + 0.1


def graded(numbers, target, correct):
    prompt = Prompt(as_problem(numbers, target), "", ())
    completion = Completion(prompt, (1,), (0.0,), "", "stop")
    return Graded(float(correct), correct, "", {}, completion)


def test_the_opponents_of_an_evaluation_get_its_puzzles():
    groups = [[graded(*puzzle, True)] for puzzle in PUZZLES]
    place = opponents_of(groups, 320, 60.0, 0, COUNT)
    assert (place["tokens"], place["mean_tokens"], place["n"]) == (320, 60.0, len(PUZZLES))
    rows = [opponent_row(name, PUZZLES, 0, COUNT, 320, 60.0) for name in OPPONENTS]
    assert place["searches"] == rows
    # So many tokens that fewer puzzles have to do: 2**20 tokens are eight times 2**17.
    assert opponents_of(groups, 2**17, 60.0, 0, COUNT)["n"] == 8


def test_the_lines_name_the_place():
    points = [
        ("blind", {"solve_rate": 0.6, "interval": [0.57, 0.63]}),
        ("glance", {"solve_rate": 0.94, "interval": [0.92, 0.96], "uses_fewer": False}),
        (
            "clairvoyant",
            {"solve_rate": 1.0, "interval": [0.99, 1.0], "uses_fewer": True, "mean_tokens": 48.1},
        ),
    ]
    model = {"solve_rate": 0.926, "interval": [0.908, 0.941]}
    assert chain(points, model) == (
        "blind 0.600 [0.570, 0.630] < this model 0.926 [0.908, 0.941] ~ "
        "glance 0.940 [0.920, 0.960] < clairvoyant 1.000 [0.990, 1.000] with 48 tokens"
    )
    rows = [{"search": name, **row, "at_mean": row} for name, row in points]
    place = {"tokens": 320, "mean_tokens": 83.2, "n": 1_000, "searches": rows}
    head, at_mean, at_limit = place_lines(place, model)
    assert "1,000 of these problems" in head
    assert at_mean == f"at 83 tokens in the mean: {chain(points, model)}"
    assert at_limit.startswith("at 320 tokens at most: blind")


def test_the_yardstick_needs_no_torch():
    code = "import sys, aha.eval.yardstick; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
