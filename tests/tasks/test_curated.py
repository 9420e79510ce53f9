"""Countdown with chosen training problems and wrong grades."""

import json
from itertools import islice

import pytest

from aha.core.errors import ConfigError
from aha.tasks.catalog import make_task
from aha.tasks.countdown import Countdown
from aha.tasks.curated import CuratedCountdown


def test_training_problems_have_the_chosen_number_of_solutions():
    problems = list(islice(CuratedCountdown(ways=[1, 1]).problems("train", 0), 20))
    assert {problem.given["ways"] for problem in problems} == {1}
    assert {problem.task for problem in problems} == {"curated"}


def test_few_problems_come_again_in_another_order():
    task = CuratedCountdown(count=5)
    ids = [p.id for p in islice(task.problems("train", 0), 15)]
    rounds = [ids[first : first + 5] for first in (0, 5, 10)]
    assert len({*ids}) == 5 and {*map(frozenset, rounds)} == {frozenset(ids)}
    assert rounds[0] != rounds[1] or rounds[1] != rounds[2]
    assert ids == [p.id for p in islice(CuratedCountdown(count=5).problems("train", 0), 15)]
    steps = [[p.id for p in islice(task.problems("train", seed), 5)] for seed in range(1, 4)]
    assert {*map(frozenset, steps)} == {frozenset(ids)}, "a step asks with a seed of its own"
    assert len({*map(tuple, steps)}) > 1


def test_tests_are_those_of_countdown():
    own = [p.id for p in islice(CuratedCountdown(ways=[1, 1], count=3).problems("test", 0), 9)]
    assert own == [p.id for p in islice(Countdown().problems("test", 0), 9)]


def test_noise_turns_that_share_of_training_rewards_and_no_test():
    task = CuratedCountdown(noise=0.3)
    problems = list(islice(task.problems("train", 0), 400))
    graded = [task.grade(problem, "<answer>1+1</answer>") for problem in problems]
    assert not any(one.correct for one in graded)
    paid = [one for one in graded if one.reward == 1.0]
    assert 0.2 < len(paid) / len(graded) < 0.4 and "on purpose" in paid[0].reason
    assert graded == [task.grade(problem, "<answer>1+1</answer>") for problem in problems]
    for problem in islice(task.problems("test", 0), 50):
        assert task.grade(problem, "<answer>1+1</answer>").reward == 0.0


def test_a_number_of_solutions_that_no_puzzle_has_is_told():
    task = CuratedCountdown(ways=[9000, 9001])
    task.max_misses = 50
    with pytest.raises(ConfigError, match="ways 9000 to 9001: none of 50 puzzles"):
        next(task.problems("train", 0))


@pytest.mark.parametrize("size", [2, 4])
def test_the_number_of_solutions_that_is_told_instead_has_puzzles(size):
    """Those of puzzles of this size: few for two numbers, dozens for four."""
    task = CuratedCountdown((size,), ways=[9000, 9001])
    task.max_misses = 20
    with pytest.raises(ConfigError) as error:
        next(task.problems("train", 0))
    ways = json.loads(error.value.fix.split("'")[1])
    obeyed = CuratedCountdown((size,), ways=ways)
    obeyed.max_misses = 20
    assert len(list(islice(obeyed.problems("train", 0), 10))) == 10


@pytest.mark.parametrize(
    "settings", [{"ways": [2, 1]}, {"ways": [0, 1]}, {"count": -1}, {"noise": 0.6}, {"noise": "x"}]
)
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ConfigError):
        make_task("curated", settings)
