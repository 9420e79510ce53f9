import pytest

from aha.eval.telling import telling_places


@pytest.mark.parametrize(
    ("order", "places"),
    [
        ([], {}),
        ([4], {"best": 4}),
        ([4, 1], {"best": 4, "worst": 1}),
        ([4, 1, 3], {"best": 4, "median": 1, "worst": 3}),
        ([4, 1, 3, 0], {"best": 4, "median": 3, "worst": 0}),
    ],
)
def test_best_median_and_worst_are_named_once_each(order, places):
    assert telling_places(order) == places
