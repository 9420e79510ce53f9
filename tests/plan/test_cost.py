"""Money and energy by hand."""

import pytest

from aha.plan.cost import MACHINES, Cost, money


def test_cost_by_hand():
    # half an hour at 8 cents an hour and 30 W: 4 cents, 15 Wh
    cost = Cost.of(1800, 0.08, 30.0)
    assert (cost.seconds, cost.usd, cost.kwh) == pytest.approx((1800, 0.04, 0.015))


def test_nothing_costs_nothing():
    assert Cost.of(0, 5.0, 300.0) == Cost(0, 0.0, 0.0)
    assert Cost.of(3600, *MACHINES["laptop"]).usd == 0.0


@pytest.mark.parametrize(
    ("usd", "text"),
    [
        (0.0, "0.00 cents"),
        (0.0004, "0.04 cents"),
        (0.123, "12.30 cents"),
        (0.9949, "99.49 cents"),
        (0.995, "$0.99"),
        (1.0, "$1.00"),
        (29.999, "$30.00"),
    ],
)
def test_money_is_in_cents_where_there_are_any(usd, text):
    assert money(usd) == text
