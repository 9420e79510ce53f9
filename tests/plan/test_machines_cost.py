"""Money and energy by hand."""

import pytest

from aha.core.errors import ConfigError
from aha.plan.machines import Budget, Cost, budget_seconds, money


def test_cost_by_hand():
    # half an hour at 8 cents an hour and 30 W: 4 cents, 15 Wh
    cost = Cost.of(1800, 0.08, 30.0)
    assert (cost.seconds, cost.usd, cost.kwh) == pytest.approx((1800, 0.04, 0.015))


def test_nothing_costs_nothing():
    assert Cost.of(0, 5.0, 300.0) == Cost(0, 0.0, 0.0)
    assert Cost.of(3600, 0.0, 25.0).usd == 0.0


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


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2h", 7200),
        ("30min", 1800),
        ("30m", 1800),
        ("90s", 90),
        ("1.5 h", 5400),
        ("5usd", 36_000),
        ("$5", 36_000),
        ("0.25 USD", 1800),
    ],
)
def test_a_budget_is_time_at_half_a_dollar_an_hour(text, seconds):
    assert budget_seconds(text, 0.5) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "h", "-2h", "0h", "2 days", "$2h", "five usd", "1e3s"])
def test_what_is_no_budget_is_refused(text):
    with pytest.raises(ConfigError, match="--budget 2h"):
        budget_seconds(text, 0.5)


def test_money_buys_no_time_that_is_free():
    with pytest.raises(ConfigError, match=r"\$0 an hour"):
        budget_seconds("5usd", 0.0)
    assert budget_seconds("1h", 0.0) == 3600


def test_a_budget_ends_before_the_step_that_would_go_past_it():
    budget = Budget(10.0, before=2.0)
    assert [budget.spent_by(now) for now in (4.0, 6.0, 8.0)] == [False, False, False]
    assert budget.spent_by(9.5), "a step of 1.5 s more would end at 11"
    assert not Budget().spent_by(1e9)
