"""The rule for intervals and verdicts that all studies share."""

from math import inf

import numpy as np
import pytest

from aha.studies.judgement import (
    Measured,
    compared,
    difference_apart,
    difference_over_seeds,
    mean_of_seeds,
    mean_over_seeds,
    of_difference,
    over_problems_drawn_again,
    over_seeds_and_problems,
    rate_over_seeds,
    ratio_over_seeds,
    reproduction,
    too_few_seeds,
)


@pytest.mark.parametrize(
    ("one", "other", "judgement"),
    [
        ((0.5, 0.6), (0.3, 0.4), "above"),
        ((0.1, 0.2), (0.3, 0.4), "below"),
        ((0.3, 0.5), (0.4, 0.6), "no evidence"),
        ((0.4, 0.5), (0.3, 0.4), "no evidence"),  # they touch
    ],
)
def test_two_numbers_differ_where_their_whole_intervals_do(one, other, judgement):
    assert compared(one, other) == judgement


def test_a_difference_is_one_where_its_interval_leaves_out_zero():
    assert [of_difference(i) for i in ((0.01, 0.2), (-0.2, -0.01), (-0.1, 0.1), (0.0, 0.1))] == [
        "above",
        "below",
        "no evidence",
        "no evidence",
    ]


def test_fewer_than_three_seeds_are_named():
    assert too_few_seeds({"a": 3, "b": 4}) == []
    assert too_few_seeds({"a": 2, "b": 3, "c": 1}) == ["fewer than 3 finished seeds: a, c"]


def test_the_bootstrap_has_the_width_of_the_normal_approximation():
    """200 of 1,000 problems: 1.96 * sqrt(.2 * .8 / 1000) = .0248 to either side."""
    right = np.array([1.0] * 200 + [0.0] * 800)
    measured = mean_over_seeds([right])
    low, high = measured.interval
    assert measured.value == pytest.approx(0.2)
    assert (high - low) / 2 == pytest.approx(0.0248, rel=0.1)
    assert mean_over_seeds([right]) == measured  # seeded


def test_draws_without_a_value_are_left_out():
    known = np.array([1.0, np.nan, np.nan])

    def mean_of_known(counts_DN):
        with np.errstate(invalid="ignore"):
            return counts_DN @ np.nan_to_num(known) / (counts_DN @ np.isfinite(known))

    assert over_problems_drawn_again(3, mean_of_known) == Measured(1.0, (1.0, 1.0))


def test_a_mean_over_seeds_has_the_wider_of_two_intervals():
    """Rates .2, .5, .8: Student's t for three seeds is 4.303 * .3 / sqrt(3) = .745 to either side;
    of 1,000 problems each the other one is far narrower."""
    problems = np.arange(1000)
    seeds = [(problems < 1000 * rate).astype(float) for rate in (0.2, 0.5, 0.8)]
    measured = mean_over_seeds(seeds)
    assert measured.value == pytest.approx(0.5)
    assert measured.interval == pytest.approx((0.5 - 0.745, 0.5 + 0.745), abs=0.001)
    alike = mean_over_seeds([seeds[1]] * 3)
    assert alike.interval[1] - alike.interval[0] == pytest.approx(0.062, abs=0.005)


def test_where_no_draw_has_a_value_the_seeds_alone_tell_the_interval():
    """As a slope over tokens that are the same in the mean of all seeds."""

    def nothing(counts_DN):
        return np.full(len(counts_DN), np.nan)

    assert over_seeds_and_problems([1.0, 2.0, 3.0], 5, nothing) == mean_of_seeds([1.0, 2.0, 3.0])
    assert over_seeds_and_problems([1.5], 5, nothing) == mean_of_seeds([1.5])


def test_of_one_seed_a_number_without_problems_has_no_interval():
    """Rates 1, 2, 3: Student's t is 4.303 * 1 / sqrt(3) = 2.484 to either side."""
    three = mean_of_seeds([1.0, 2.0, 3.0])
    assert three.value == 2.0 and three.interval == pytest.approx((-0.484, 4.484), abs=1e-3)
    one = mean_of_seeds([1.5])
    assert one.text() == "1.500, no interval" and reproduction(one.interval, 1.2) == "no evidence"


def test_all_problems_solved_are_no_certainty():
    """Of 12 problems: Wilson's interval of 12 of 12."""
    assert rate_over_seeds([np.ones(12)] * 3) == Measured(
        1.0, (pytest.approx(0.7575, abs=1e-3), 1.0)
    )
    mixed = [np.array([1.0, 0.0, 1.0, 1.0])] * 3
    assert rate_over_seeds(mixed) == mean_over_seeds(mixed)


def test_differences_are_paired_by_seed_and_problem_or_apart():
    one = [np.array([1.0, 1.0, 0.0, 1.0])] * 3
    other = [np.array([0.0, 1.0, 0.0, 0.0])] * 3
    alike = difference_over_seeds(one, one)  # of 4 problems: Wilson's interval of 0 of 4
    assert alike.value == 0 and alike.interval == pytest.approx((-0.4899, 0.4899), abs=0.001)
    paired, apart = difference_over_seeds(one, other), difference_apart(one, other)
    assert paired.value == apart.value == pytest.approx(0.5)
    assert apart.interval[1] - apart.interval[0] > 0
    solved = [np.ones(4)] * 3
    assert difference_apart(solved, [np.ones(9)] * 3) == difference_over_seeds(solved, solved)


def test_a_ratio_has_an_interval_over_seeds_and_over_problems():
    """.8 over .4 of 1,000 problems: by the delta method 1.96 * 2 * sqrt(.2 / 800 + .6 / 400 - 2 *
    .2 / 800) = .139 to either side, where all that `other` solves `one` solves as well."""
    problems = np.arange(1000)
    one, other = ((problems < count).astype(float) for count in (800, 400))
    measured = ratio_over_seeds([one] * 3, [other] * 3)
    low, high = measured.interval
    assert measured.value == pytest.approx(2.0)
    assert (high - low) / 2 == pytest.approx(0.139, rel=0.1)
    apart = ratio_over_seeds([one, other, one], [other] * 3)
    assert apart.value == pytest.approx(5 / 3) and apart.interval[0] < 1 / 3
    assert ratio_over_seeds([one] * 2, [other, np.zeros(1000)]) is None


@pytest.mark.parametrize(
    ("interval", "least", "most", "outcome"),
    [
        ((0.2, 0.4), 0.15, np.inf, "reproduced"),
        ((0.1, 0.4), 0.15, np.inf, "no evidence"),
        ((-0.1, 0.1), 0.15, np.inf, "not reproduced"),
        ((-0.02, 0.029), -0.03, 0.03, "reproduced"),
        ((-0.2, -0.1), -0.03, 0.03, "not reproduced"),
        ((-0.1, 0.1), -0.03, 0.03, "no evidence"),
        ((0.0, 0.2), 0.0, np.inf, "no evidence"),  # "rises", and it may not
        ((-0.2, 0.0), -np.inf, 0.0, "no evidence"),
        ((0.0, 0.0), 0.0, np.inf, "no evidence"),
    ],
)
def test_a_claim_is_judged_by_its_range(interval, least, most, outcome):
    assert reproduction(interval, least, most) == outcome


def test_what_rounds_to_nothing_has_no_sign():
    assert Measured(-0.0001, (-0.02, 0.0199)).text() == "0.000 [-0.020, 0.020]"
    assert Measured(-0.0001, (-inf, inf)).text(1) == "0.0, no interval"
