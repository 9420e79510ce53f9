"""Intervals and pass@k against published numbers and against counting."""

from itertools import combinations

import pytest

from aha.eval.statistics import paired_bootstrap, pass_at_k, wilson


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
