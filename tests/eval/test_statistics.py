"""Intervals and pass@k against published numbers and against counting."""

from itertools import combinations
from random import Random

import pytest

from aha.eval.statistics import over_problems, paired_bootstrap, pass_at_k, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe 1998, 'Two-sided confidence intervals for the single proportion', table I
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_the_published_interval(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=5e-5)


def test_wilson_by_hand():
    # z² = 3.8415; centre (0.5 + z²/20) / (1 + z²/10) = 0.5
    # half = 1.96 * sqrt(0.25/10 + z²/400) / (1 + z²/10) = 1.96 * 0.18602 / 1.38415 = 0.2634
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_wilson_at_the_ends_and_without_trials():
    low, high = wilson(0, 1000)
    assert low == 0.0 and 0 < high < 0.005
    low, high = wilson(1000, 1000)
    assert high == pytest.approx(1.0) and 0.995 < low < 1 and high <= 1.0
    assert wilson(0, 0) == (0.0, 1.0)


def test_wilson_is_the_same_seen_from_the_other_side():
    for successes in range(11):
        low, high = wilson(successes, 10)
        mirrored = wilson(10 - successes, 10)
        assert (low, high) == pytest.approx((1 - mirrored[1], 1 - mirrored[0]))
        assert low <= successes / 10 <= high


@pytest.mark.parametrize("n", [1, 4, 7])
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(n):
    """Every way of taking k of n completions, counted one by one."""
    for c in range(n + 1):
        completions = [True] * c + [False] * (n - c)
        for k in range(1, n + 1):
            draws = list(combinations(completions, k))
            wanted = sum(any(draw) for draw in draws) / len(draws)
            assert pass_at_k(n, c, k) == pytest.approx(wanted), (n, c, k)


@pytest.mark.parametrize("k", [0, 5])
def test_pass_at_k_refuses_what_cannot_be_drawn(k):
    with pytest.raises(AssertionError):
        pass_at_k(4, 2, k)


def test_bootstrap_has_the_sign_of_the_change():
    before = [False] * 60 + [True] * 40
    better = [False] * 30 + [True] * 70
    low, high = paired_bootstrap(before, better)
    assert 0 < low < 0.30 < high
    low, high = paired_bootstrap(better, before)
    assert low < -0.30 < high < 0


def test_bootstrap_of_no_change_has_no_width():
    flags = [True, False, True, True]
    assert paired_bootstrap(flags, flags) == (0.0, 0.0)


def test_bootstrap_of_chance_holds_zero():
    before = [place % 2 == 0 for place in range(100)]
    low, high = paired_bootstrap(before, before[1:] + before[:1])
    assert low < 0 < high


def test_bootstrap_is_near_the_normal_interval():
    # 100 problems, 20 gained and 10 lost: mean 0.1, variance 0.3 - 0.01 = 0.29,
    # standard error sqrt(0.29 / 100) = 0.0539, so 0.1 +- 0.1056
    before = [True] * 10 + [False] * 90
    after = [False] * 10 + [True] * 20 + [False] * 70
    assert paired_bootstrap(before, after) == pytest.approx((-0.0056, 0.2056), abs=0.02)
    assert paired_bootstrap(before, after) == paired_bootstrap(before, after)


def test_bootstrap_needs_pairs():
    for before, after in (([], []), ([True], [True, False])):
        with pytest.raises(AssertionError):
            paired_bootstrap(before, after)


# -- groups: several completions of one problem -----------------------------------------------


def width(interval: tuple[float, float]) -> float:
    return interval[1] - interval[0]


def test_groups_of_one_have_wilsons_interval():
    assert over_problems([[True]] * 81 + [[False]] * 182) == wilson(81, 263)


def test_copies_of_a_completion_add_nothing():
    """Sixteen equal completions of each problem are as good as one; as trials of their own they
    would make the interval four times as narrow."""
    one = [Random(n).random() < 0.3 for n in range(200)]
    copies = over_problems([[right] * 16 for right in one])
    assert width(copies) == pytest.approx(width(wilson(sum(one), 200)), rel=0.1)
    assert width(copies) > 3.5 * width(wilson(16 * sum(one), 16 * 200))


def test_completions_that_do_not_depend_on_their_problem_are_trials_of_their_own():
    rng = Random(0)
    groups = [[rng.random() < 0.3 for _ in range(16)] for _ in range(200)]
    right = sum(map(sum, groups))
    assert width(over_problems(groups)) == pytest.approx(width(wilson(right, 3200)), rel=0.15)


def test_the_interval_covers_the_rate_of_all_problems():
    """Problems of different difficulty, each with 8 completions: of 100 tests about 95 cover .5."""
    covered = 0
    for trial in range(100):
        rng = Random(trial)
        groups = [[rng.random() < rate for _ in range(8)] for rate in difficulties(rng, 50)]
        low, high = over_problems(groups, draws=400)
        covered += low <= 0.5 <= high
    assert 88 <= covered <= 99


def difficulties(rng: Random, count: int) -> list[float]:
    return [rng.betavariate(0.5, 0.5) for _ in range(count)]


def test_where_all_problems_are_alike_the_interval_has_a_width_all_the_same():
    for groups in ([[True] * 8] * 20, [[False] * 8] * 20, [[True, False] * 4] * 20):
        low, high = over_problems(groups)
        assert 0.1 < high - low < 0.5


def test_the_interval_is_seeded():
    groups = [[True, False], [True, True], [False, False]] * 5
    assert over_problems(groups) == over_problems(groups)
