"""The turn of a run: planted ones are located, noise has none."""

import json
import math

import numpy as np
import pytest

from aha.behaviors.search_ways import NOT_WAYS, WAYS
from aha.behaviors.turn import NoTurn, Share, Turn, find_turn, interval, measured_rows, rising_step
from aha.eval.statistics import wilson

NAMES = (*WAYS, *NOT_WAYS)


def row(step: int, groups: int | None = 32, **shares: float) -> dict[str, float]:
    """A row of metrics.jsonl; what the shares leave of 1 is no search."""
    rest = {"none": 1 - sum(shares.values())} if "none" not in shares else {}
    ways = dict.fromkeys(NAMES, 0.0) | shares | rest
    found = {"step": step, **{f"way_{name}": share for name, share in ways.items()}}
    return found if groups is None else {**found, "groups": groups}


def rise(steps: int, middle: float, width: float, low=0.03, high=0.8) -> list[float]:
    return [
        low + (high - low) / (1 + math.exp(-(step - middle + 0.5) / width))
        for step in range(1, steps + 1)
    ]


def drawn(rng, shares, groups=32, group_size=16, spread=1.0):
    """Rows with the shares that are counted in groups that differ: `shares` (steps, 7)."""
    alpha = np.maximum(np.repeat(shares[:, None], groups, 1), 1e-3) / spread
    chances = rng.gamma(alpha) + 1e-12
    chances /= chances.sum(-1, keepdims=True)
    counts = rng.multinomial(group_size, chances).sum(1) / (groups * group_size)
    return [
        {"step": i + 1, "groups": groups, **dict(zip((f"way_{n}" for n in NAMES), c, strict=True))}
        for i, c in enumerate(counts.tolist())
    ]


def test_a_turn_by_hand():
    rows = [row(s, by_chance=0.3, look=0.05) for s in range(1, 13)]
    rows += [row(s, by_chance=0.1, look=0.7) for s in range(13, 31)]
    turn = find_turn(rows)
    assert isinstance(turn, Turn)
    assert (turn.step, turn.way, turn.before) == (13, "look", "none")
    assert (turn.first.share, turn.last.share) == (pytest.approx(0.05), pytest.approx(0.7))
    assert turn.ratio == pytest.approx(14)
    assert turn.first.groups == 160
    assert turn.sentence() == (
        "step 13: from no search to searching in order with a look "
        "(5 % [3, 10] -> 70 % [62, 77] of the completions)"
    )


def test_what_was_most_frequent_before_is_never_a_search_too_short_to_tell():
    rows = [row(s, unclear=0.6, by_chance=0.3) for s in range(1, 11)]
    turn = find_turn([*rows, *(row(s, backward=0.9) for s in range(11, 21))])
    assert isinstance(turn, Turn)
    assert (turn.before, turn.way, turn.ratio) == ("by_chance", "backward", None)
    assert turn.first == Share(0.0, 0.0, pytest.approx(wilson(0, 160)[1]), 160)


@pytest.mark.parametrize(
    ("reason", "shares"),
    [
        ("less than 3 times", [0.3] * 10 + [0.8] * 10),
        ("less than 3 times", [0.8] * 20),
        ("intervals of the way that wins touch", [0.05] * 10 + [0.16] * 10),
        ("no way has a tenth", [0.0] * 10 + [0.09] * 10),
        ("20 steps", [0.0] * 4 + [0.9] * 4),
    ],
)
def test_no_turn_has_a_reason(reason, shares):
    groups = 8 if "touch" in reason else 32
    found = find_turn([row(step, groups, glance=share) for step, share in enumerate(shares, 1)])
    assert isinstance(found, NoTurn)
    assert reason.replace("20 steps", "8 steps have shares, and 10 are needed") in found.reason
    assert found.sentence().startswith("no turn: ")
    assert (found.way == "glance") == (len(shares) > 8)


def test_a_way_that_was_the_most_frequent_already_is_no_turn():
    """The others share the rest among them, so that it grows more than three times."""
    rest = {"by_chance": 0.23, "in_order": 0.23, "unclear": 0.23}
    rows = [row(s, look=0.31, none=0.0, **rest) for s in range(1, 11)]
    found = find_turn([*rows, *(row(s, look=1.0) for s in range(11, 21))])
    assert isinstance(found, NoTurn) and "most frequent before" in found.reason


def test_from_a_way_that_is_not_known_there_is_no_turn():
    rows = [row(s, unclear=1.0, by_chance=0.0) for s in range(1, 11)]
    found = find_turn([*rows, *(row(s, look=1.0) for s in range(11, 21))])
    assert isinstance(found, NoTurn) and "is not known" in found.reason


@pytest.mark.parametrize("groups", [10**400, 1e308, -1, 0.5, math.inf, math.nan, "many", True])
def test_a_nonsense_number_of_groups_counts_as_one(groups):
    found = find_turn([row(s, groups, look=0.0 if s < 11 else 0.9) for s in range(1, 21)])
    assert isinstance(found, Turn) and found.last.groups == 5


def test_without_shares_nothing_is_measured():
    assert find_turn([]) is None
    assert find_turn([{"step": 1, "solve_rate": 0.5}]) is None
    whole = row(1)
    for broken in (None, "a", 1.5, -0.1, True, math.nan):
        assert measured_rows([{**whole, "way_look": broken}]) == []
    assert measured_rows([{**whole, "step": None}]) == []
    assert measured_rows([{k: v for k, v in whole.items() if k != "way_none"}]) == []


def test_rows_in_any_order_and_the_last_of_a_step():
    rows = [row(s, look=0.0 if s < 11 else 0.9) for s in range(1, 21)]
    assert find_turn([*reversed(rows)]) == find_turn(rows)
    assert find_turn([row(20, look=0.0), *rows]) == find_turn(rows)


def test_rows_without_a_number_of_groups_count_as_one():
    found = find_turn([row(s, None, look=0.0 if s < 11 else 0.9) for s in range(1, 21)])
    assert isinstance(found, Turn) and found.last.groups == 5


def test_the_interval_is_wilsons():
    for successes, trials in ((0, 5), (3, 7), (7, 7), (80, 160)):
        assert interval(successes / trials, trials) == pytest.approx(wilson(successes, trials))


def test_a_fall_is_no_rise():
    assert rising_step([0.9] * 5 + [0.1] * 5, [1.0] * 10) is None
    # Up at place 4 and half down again at 7: the larger of the two changes is the rise.
    assert rising_step([0.0] * 4 + [0.9] * 3 + [0.6] * 3, [1.0] * 10) == 4


@pytest.mark.parametrize("width", [0.2, 1.0, 2.5])
@pytest.mark.parametrize("middle", [10, 37, 80])
def test_a_planted_turn_is_located(middle, width):
    rng = np.random.default_rng(41)
    for _ in range(20):
        win = np.array(rise(100, middle, width))
        shares = np.zeros((100, 7))
        shares[:, NAMES.index("look")] = win
        shares[:, NAMES.index("by_chance")] = 0.4 * (1 - win)
        shares[:, NAMES.index("none")] = 0.6 * (1 - win)
        turn = find_turn(drawn(rng, shares))
        assert isinstance(turn, Turn)
        assert (turn.way, turn.before) == ("look", "none")
        assert abs(turn.step - middle) <= 3


def test_noise_has_no_turn():
    """Flat shares in groups that differ much, 1,000 runs, among them shares near 0."""
    rng, turns = np.random.default_rng(42), 0
    for number in range(1000):
        shares = rng.dirichlet(np.full(7, 0.5 if number % 2 else 2.0))
        rows = drawn(rng, np.tile(shares, (12, 1)), groups=8 if number % 3 else 32, spread=0.5)
        turns += isinstance(find_turn(rows), Turn)
    assert turns <= 10


def test_a_turn_is_plain_json():
    turn = find_turn([row(s, look=0.0 if s < 11 else 0.9) for s in range(1, 21)])
    assert isinstance(turn, Turn)
    assert json.loads(json.dumps(vars(turn.last))) == vars(turn.last)
