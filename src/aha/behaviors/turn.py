"""The step at which a training turns from one way of searching to another, from its records.

    turn = find_turn(rows)          # rows of metrics.jsonl: step, groups, way_by_chance ...
    print(turn.sentence())          # step 37: from trying by chance to searching in order ...

Reads rows alone: no files, no model. `web.ways_of_run` gets them from a run folder.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from aha.behaviors.search_ways import LABELS, WAYS
from aha.behaviors.way_shares import PREFIX, WAY_COLUMNS

ENDS = 5  # steps at each end that are compared
LEAST_CHANGE = 3.0  # times
LEAST_SHARE = 0.1  # of the completions at the end: a way that fewer use has not won
Z95 = 1.959963984540054
MOST_GROUPS = 10**9  # of a step: a damaged file may have any number
DOING = {  # the ways as what somebody does, for a sentence
    "by_chance": "trying by chance",
    "in_order": "searching in order",
    "glance": "searching in order with a glance",
    "look": "searching in order with a look",
    "backward": "working back from the target",
    "none": "no search",
}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Share:
    """The share of completions of some steps, with its 95 % interval.

    The interval is Wilson's with `groups` for the number of trials: as if the completions of a
    group, which share a puzzle, were copies of one. So it is never too narrow for that reason.
    """

    share: float
    low: float
    high: float
    groups: int

    def __str__(self) -> str:
        return f"{100 * self.share:.0f} % [{100 * self.low:.0f}, {100 * self.high:.0f}]"


@dataclass(frozen=True)
class Turn:
    """A turn to the way that wins, which is the most frequent one in the last `ENDS` steps.

    `step` is the first step after the change. `before` is what was most frequent in the first
    `ENDS` steps: another way, or "none". `first` and `last` are the shares of `way` at the two
    ends; `ratio` is last over first, None where the first is 0.
    """

    step: int
    way: str
    before: str
    first: Share
    last: Share

    @property
    def ratio(self) -> float | None:
        """How many times as frequent the way is in the end."""
        return self.last.share / self.first.share if self.first.share else None

    def sentence(self) -> str:
        """`step 37: from trying by chance to searching in order with a look (2 % [1, 4] -> 81 %
        [75, 86] of the completions)`, on one line."""
        return (
            f"step {self.step}: from {DOING[self.before]} to {DOING[self.way]} "
            f"({self.first} -> {self.last} of the completions)"
        )


@dataclass(frozen=True)
class NoTurn:
    """No turn, with the reason in words; the way that wins and its shares where there are any."""

    reason: str
    way: str | None = None
    first: Share | None = None
    last: Share | None = None

    def sentence(self) -> str:
        """`no turn: ` and the reason."""
        return f"no turn: {self.reason}"


def find_turn(rows: Iterable[Row]) -> Turn | NoTurn | None:
    """The turn of a run, or why there is none; None if no row has the shares of the ways.

    It is a turn if the way that wins is at least LEAST_CHANGE times as frequent in the last `ENDS`
    steps as in the first, where it was not the most frequent one, and the two intervals do not
    touch. With fewer than two times `ENDS`
    steps nothing is compared.
    """
    measured = measured_rows(rows)
    if not measured:
        return None
    if len(measured) < 2 * ENDS:
        return NoTurn(f"{len(measured)} steps have shares, and {2 * ENDS} are needed to compare")
    start, end = measured[:ENDS], measured[-ENDS:]
    way = max(WAYS, key=lambda name: share_of(end, name).share)
    first, last = share_of(start, way), share_of(end, way)
    change = f"{LABELS[way]} {first} -> {last}"
    if last.share < LEAST_SHARE:
        return NoTurn(
            f"no way has a tenth of the completions in the end; {change}", way, first, last
        )
    if last.share < LEAST_CHANGE * first.share:
        reason = f"the way that wins changes less than {LEAST_CHANGE:.0f} times; {change}"
        return NoTurn(reason, way, first, last)
    if last.low <= first.high:
        return NoTurn(f"the intervals of the way that wins touch; {change}", way, first, last)
    names = [name for name in (*WAYS, "none") if name != way]
    before = max(names, key=lambda name: share_of(start, name).share)
    if not share_of(start, before).share:
        return NoTurn(f"the way of the first steps is not known; {change}", way, first, last)
    if first.share >= share_of(start, before).share:
        return NoTurn(f"the way that wins was the most frequent before; {change}", way, first, last)
    shares = [float(row[PREFIX + way]) for row in measured]
    weights = [groups_of(row) for row in measured]
    place = rising_step(shares, weights)
    assert place is not None, "a share that is larger in the end rises somewhere"
    return Turn(int(measured[place]["step"]), way, before, first, last)


def measured_rows(rows: Iterable[Row]) -> list[Row]:
    """The rows with a step and all seven shares, by step; of two with the same step the last."""
    by_step = {
        row["step"]: row
        for row in rows
        if is_number(row.get("step")) and all(is_share(row.get(name)) for name in WAY_COLUMNS)
    }
    return [by_step[step] for step in sorted(by_step)]


def is_number(value: object) -> bool:
    return type(value) is int or (type(value) is float and value.is_integer())


def is_share(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1  # type: ignore[operator]


def groups_of(row: Row) -> int:
    """The groups of a step. A row that does not say how many, or says nonsense, counts as
    one."""
    groups = row.get("groups")
    if is_number(groups) and 1 <= groups <= MOST_GROUPS:  # type: ignore[operator]
        return int(groups)  # type: ignore[arg-type]
    return 1


def share_of(rows: Sequence[Row], way: str) -> Share:
    """The share of one of the seven in these rows together."""
    groups = sum(map(groups_of, rows))
    share = sum(groups_of(row) * float(row[PREFIX + way]) for row in rows) / groups
    return Share(share, *interval(share, groups), groups)


def interval(share: float, trials: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share. Source: Wilson 1927."""
    z2 = Z95 * Z95
    centre = (share + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 * sqrt(share * (1 - share) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return (centre - half if share > 0 else 0.0), (centre + half if share < 1 else 1.0)


def rising_step(values: Sequence[float], weights: Sequence[float]) -> int | None:
    """The place of the first value after the change, by least squares: of all ways to cut the
    series in two, the one where two means leave the smallest sum of squares, the second mean being
    larger; None if it never is. A gradual rise is cut near its middle.

    Source: Hinkley 1970, 'Inference about the change-point in a sequence of random variables'.
    """
    total, weight = sum(v * w for v, w in zip(values, weights, strict=True)), sum(weights)
    best, place = 0.0, None
    left = left_weight = 0.0
    for index in range(len(values) - 1):
        left += values[index] * weights[index]
        left_weight += weights[index]
        right_weight = weight - left_weight
        rise = (total - left) / right_weight - left / left_weight
        # What the cut takes off the sum of squares about one mean.
        gain = left_weight * right_weight / weight * rise * rise
        if rise > 0 and gain > best:
            best, place = gain, index + 1
    return place
