"""Control, Scaling, Performance, votes and comparisons, by hand."""

import numpy as np
import pytest

from aha.studies.thinking_points import (
    at_equal_tokens,
    falls,
    metrics_of,
    paired,
    parallel_point,
    passed,
    point_of,
    rejection_point,
    slopes,
    vote_is_right,
    voted,
)


def result(right, thinking, answers=None, closed=None, waits=None) -> dict:
    """A cell's result of N problems with G completions each."""
    return {
        "right": right,
        "thinking": thinking,
        "tokens": [[tokens + 10 for tokens in group] for group in thinking],
        "answers": answers or [["a" for _ in group] for group in right],
        "closed": closed or [["model" for _ in group] for group in right],
        "waits": waits or [[0 for _ in group] for group in right],
    }


def point(label: str, accuracy: float, tokens: float, problems: int = 100):
    right = [[index < accuracy * problems] for index in range(problems)]
    return point_of(label, [result(right, [[tokens]] * problems)] * 3, 1_000)


def test_a_point_has_means_over_seeds_and_problems():
    first = result([[True], [False]], [[10], [20]], closed=[["model"], ["budget"]])
    second = result([[True], [True]], [[12], [30]])
    made = point_of("at most 20", [first, second], 20)
    assert made.accuracy_N.tolist() == [1.0, 0.5] and made.tokens_N.tolist() == [11.0, 25.0]
    assert made.rates == [0.5, 1.0] and made.accuracy.value == 0.75 and made.tokens == 18.0
    assert made.control == 0.75  # of four thoughts one has 30 tokens
    assert made.closed == 0.25 and made.completion_tokens == 28.0


def test_control_of_waits_counts_those_that_were_done_or_had_no_room():
    made = point_of(
        "2 waits",
        [
            result(
                [[True, True, True, True]],
                [[10, 10, 20, 19]],
                closed=[["model", "model", "budget", "model"]],
                waits=[[2, 1, 1, 1]],
            )
        ],
        20,
        2,
    )
    assert made.control == 0.75  # the second ended by itself after one wait, with room for another


def test_the_most_frequent_answer_wins_and_the_first_of_two():
    assert vote_is_right(["x", "y", "x"], [True, False, True])
    assert not vote_is_right(["x", "y", "y"], [True, False, False])
    assert vote_is_right(["x", "y"], [True, False])
    assert not vote_is_right(["y", "x"], [False, True])
    assert vote_is_right([None, None, "x"], [False, False, True])  # no answer, no vote
    assert not vote_is_right([None, None], [False, False])


def test_votes_and_pass_at_k():
    cell = result([[True, False, False, True]], [[5, 6, 7, 8]], [["x", "y", "y", "x"]])
    assert voted(cell, 1).tolist() == [0.5] and voted(cell, 2).tolist() == [0.5]
    assert voted(cell, 4).tolist() == [1.0]  # two and two: the first
    # pass@2: 1 - C(2, 2) / C(4, 2) = 5/6
    assert passed(cell, 2)[0] == pytest.approx(5 / 6)
    made = parallel_point("vote of 2", [cell], 2, None, by_vote=True)
    assert made.tokens == 2 * 6.5 and made.accuracy.value == 0.5


def test_rejection_keeps_the_short_ones_and_says_how_many_problems_have_one():
    cell = result([[True, False], [True, True], [False, False]], [[5, 50], [60, 5], [70, 80]])
    made = rejection_point("no longer than 10", [cell], 10)
    assert made.accuracy_N[:2].tolist() == [1.0, 1.0] and np.isnan(made.accuracy_N[2])
    assert made.accuracy.value == 1.0 and made.tokens == 5.0
    assert made.control == pytest.approx(2 / 3)
    assert rejection_point("no longer than 1", [cell], 1) is None
    every = rejection_point("no longer than 100", [cell], 100)
    assert every.accuracy.value == pytest.approx(0.5)  # .5, 1 and 0


def test_slopes_are_means_over_all_pairs():
    # (.5 - .2) / 100 = .003; (.5 - .5) / 100 = 0; (.5 - .2) / 200 = .0015: mean .0015 a token
    tokens, accuracy = np.array([[100.0, 200, 300]]), np.array([[0.2, 0.5, 0.5]])
    assert slopes(tokens, accuracy)[0] == pytest.approx(100 * 1_000 * 0.0015)
    assert np.isnan(slopes(np.array([[5.0, 5.0]]), np.array([[0.1, 0.2]]))[0])


def test_the_metrics_of_a_method():
    points = [point("a", 0.2, 100), point("b", 0.5, 200)]
    metrics = metrics_of(points)
    assert metrics.control == 1.0 and metrics.performance.value == pytest.approx(0.5)
    assert metrics.scaling.value == pytest.approx(300.0)
    low, high = metrics.scaling.interval
    assert 150 < low < 300 < high < 450
    assert metrics_of(points[:1]).scaling is None


@pytest.mark.filterwarnings("error")
def test_metrics_of_thoughts_that_are_seldom_short_enough():
    """One problem of three has such a thought: draws without it have no best accuracy."""
    cell = result([[True], [True], [False]], [[5], [50], [50]])
    metrics = metrics_of([rejection_point("no longer than 9", [cell], 9)])
    assert metrics.performance.value == 1.0 and metrics.scaling is None


def test_two_points_are_compared_on_the_same_problems():
    better, worse = point("b", 0.5, 200), point("a", 0.2, 100)
    gap = paired(better, worse, decides=True)
    assert gap.difference.value == pytest.approx(0.3) and gap.verdict == "above"
    assert paired(worse, better, decides=True).verdict == "below"
    alike = paired(better, better, decides=True)
    low, high = alike.difference.interval
    assert alike.verdict == "no evidence" and low < 0 < high, "nothing that differs is no proof"
    assert paired(better, worse, decides=False).verdict is None


def test_a_difference_of_one_seed_alone_is_no_evidence():
    """Three runs of a method: .5, .2 and .2 of 1,000 problems against .2. The mean gap is .1, its
    interval over problems leaves out 0, and that over seeds does not: .1 +- 4.303 * .1."""
    problems = range(1_000)
    runs = [[[index < 1_000 * rate] for index in problems] for rate in (0.5, 0.2, 0.2)]
    tokens = [[200]] * 1_000
    uneven = point_of("b", [result(right, tokens) for right in runs], 1_000)
    even = point_of("a", [result(runs[1], [[100]] * 1_000)] * 3, 1_000)
    gap = paired(uneven, even, decides=True)
    assert gap.difference.value == pytest.approx(0.1) and gap.verdict == "no evidence"
    assert gap.difference.interval == pytest.approx((0.1 - 0.4303, 0.1 + 0.4303), abs=0.001)
    metrics = metrics_of([even, uneven])
    assert metrics.scaling.value == pytest.approx(100.0) and metrics.scaling.interval[0] < 0
    assert metrics.performance.interval[1] == pytest.approx(0.3 + 4.303 * 0.1, abs=0.001)


def test_a_curve_is_straight_between_its_points_and_flat_beyond():
    curve = [point("a", 0.2, 100), point("b", 0.6, 200)]
    for tokens, accuracy in ((150, 0.4), (100, 0.2), (50, 0.2), (200, 0.6), (900, 0.6)):
        made = at_equal_tokens(curve, tokens)
        assert made.accuracy.value == pytest.approx(accuracy)
        assert made.accuracy_N.mean() == pytest.approx(accuracy)


def test_where_more_tokens_came_with_less():
    curve = [point("a", 0.2, 100), point("b", 0.6, 200), point("c", 0.3, 300)]
    (fall,) = falls(curve, decides=True)
    assert (fall.one, fall.other, fall.verdict) == ("c", "b", "below")
