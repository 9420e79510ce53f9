import random

import pytest

from aha.behaviors.agreement import agreement, cells_of, kappa, ranks, spearman


def test_kappa_by_hand():
    # 20 both, 5 and 10 alone, 15 neither: seen 35/50 = .7; chance .5 * .6 + .5 * .4 = .5
    assert kappa(20, 5, 10, 15) == pytest.approx(0.4)
    assert kappa(3, 0, 0, 3) == 1.0
    assert kappa(0, 3, 3, 0) == -1.0
    assert kappa(9, 0, 0, 0) is None and kappa(0, 0, 0, 9) is None and kappa(0, 0, 0, 0) is None


def test_the_cells():
    assert cells_of([2, 1, 0, 0, 5], [1, 0, 3, 0, 1]) == (2, 1, 1, 1)


def test_equal_values_share_a_rank():
    assert ranks([30, 10, 20, 10]) == [4.0, 1.5, 3.0, 1.5]


def test_spearman_by_hand():
    assert spearman([1, 2, 3], [10, 100, 1000]) == pytest.approx(1.0)
    assert spearman([1, 2, 3], [9, 8, 7]) == pytest.approx(-1.0)
    # Ranks 1.5 1.5 3 4 and 1 2 3 4: 4.5 / sqrt(4.5 * 5)
    assert spearman([0, 0, 1, 2], [1, 2, 3, 4]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)
    assert spearman([1, 1], [1, 2]) is None and spearman([], []) is None


def test_questions_without_an_answer_are_left_out_and_counted():
    found = agreement("checks", [1, 0, 2, 0], [1, None, 2, 1], [10, 20, 30, 40])
    assert (found.num_judged, found.unread) == (3, 1)
    assert (found.both, found.detector_only, found.judge_only, found.neither) == (2, 0, 1, 0)
    assert found.same_count == pytest.approx(2 / 3)
    assert found.detector_mean == 1.0 and found.judge_mean == pytest.approx(4 / 3)


def test_nothing_judged_has_no_numbers():
    found = agreement("checks", [1, 2], [None, None], [10, 20])
    assert found.num_judged == 0 and found.unread == 2
    assert (found.kappa, found.interval, found.same_count, found.rank) == (None,) * 4


def test_the_interval_holds_kappa_and_shrinks_with_more():
    rng = random.Random(1)

    def of(num: int):
        detected = [rng.randrange(2) for _ in range(num)]
        judge_counts = [value if rng.random() < 0.85 else 1 - value for value in detected]
        return agreement("checks", detected, judge_counts, list(range(num)))

    few, many = of(40), of(1000)
    for found in (few, many):
        low, high = found.interval
        assert -1 <= low < found.kappa < high <= 1
    assert many.interval[1] - many.interval[0] < few.interval[1] - few.interval[0]
    assert many.kappa == pytest.approx(0.7, abs=0.06)


def test_a_judge_that_counts_by_length_is_seen():
    lengths = list(range(10, 60))
    found = agreement("checks", [n % 3 for n in lengths], [n // 10 for n in lengths], lengths)
    assert found.judge_length > 0.95 and abs(found.detector_length) < 0.2
