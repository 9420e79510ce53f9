"""The one rule for intervals and verdicts of every study, `lab` included.

A verdict needs MIN_SEEDS seeds. Two numbers that were measured apart differ where their whole 95 %
intervals do; a difference that was measured on the same problems is one where its interval leaves
out 0. A claim is reproduced where the whole interval is within the range that it names, and not
reproduced where the whole interval is outside; one that touches an end of the range is neither:
"rises" is not reproduced by an interval that begins at 0. Anything else is "no evidence".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isinf, isnan, sqrt
from typing import Literal

import numpy as np
import numpy.typing as npt

from aha.eval.statistics import student_half, wilson

MIN_SEEDS = 3  # for a verdict
DRAWS = 2_000  # of a bootstrap

Interval = tuple[float, float]
Judgement = Literal["above", "below", "no evidence"]
Reproduction = Literal["reproduced", "not reproduced", "no evidence"]
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A number with its 95 % interval; one without ends where nothing tells how wide it is."""

    value: float
    interval: Interval

    def text(self, digits: int = 3) -> str:
        """`0.842 [0.818, 0.863]`; `0.842, no interval` without ends."""
        # What rounds to -0.000 is shown as 0.000.
        value, low, high = (
            f"{round(number, digits) + 0.0:.{digits}f}" for number in (self.value, *self.interval)
        )
        return f"{value}, no interval" if isinf(self.interval[0]) else f"{value} [{low}, {high}]"


def compared(one: Interval, other: Interval) -> Judgement:
    """Where `one` is beside `other`, both measured by themselves."""
    if one[0] > other[1]:
        return "above"
    return "below" if one[1] < other[0] else "no evidence"


def of_difference(interval: Interval) -> Judgement:
    """Whether a paired difference is above or below 0."""
    return compared(interval, (0.0, 0.0))


def too_few_seeds(seeds: Mapping[str, int]) -> list[str]:
    """Why there is no verdict: a line where something has too few finished seeds, else nothing."""
    few = [name for name, count in seeds.items() if count < MIN_SEEDS]
    return [f"fewer than {MIN_SEEDS} finished seeds: {', '.join(few)}"] if few else []


@lru_cache(maxsize=2)
def drawn_again(problems: int) -> Array:
    """[DRAWS, problems]: how often each problem comes where as many are drawn, with replacement.
    Seeded: the same for the same number."""
    rng = np.random.default_rng(0)
    counts = rng.multinomial(problems, np.full(problems, 1 / problems), size=DRAWS)
    return counts.astype(np.float64)


def over_problems_drawn_again(problems: int, statistic: Callable[[Array], Array]) -> Measured:
    """A number of n problems, with the interval that it has when whole problems are drawn again
    (paired bootstrap).

    `statistic(counts_DN)` computes it [D] for problems of which each comes so often. All that it
    reads of a problem stays together: completions of the same problem, and several methods on it.
    Draws that have no value (NaN, as where no problem qualifies) are left out. Source: Davison &
    Hinkley 1997, section 2.4.
    """
    value = float(statistic(np.ones((1, problems)))[0])
    values = statistic(drawn_again(problems))
    values = values[np.isfinite(values)]
    if not len(values):
        return Measured(value, (value, value))
    low, high = np.quantile(values, (0.025, 0.975))
    return Measured(value, (float(low), float(high)))


def over_seeds_and_problems(
    by_seed: Sequence[float], problems: int, statistic: Callable[[Array], Array]
) -> Measured:
    """A mean over seeds with the wider of two intervals: Student's t over the seeds, and that of
    `over_problems_drawn_again`, in which all seeds read the same drawn problems.

    `by_seed` are the values of the seeds, `statistic` as there gives their mean. With one seed the
    second interval alone; where no draw has a value, the first one alone.
    """
    drawn = over_problems_drawn_again(problems, statistic)
    count, value = len(by_seed), mean(by_seed)
    if isnan(drawn.value):
        return mean_of_seeds(by_seed)
    low, high = drawn.interval
    if count > 1:
        half = student_half(by_seed)
        low, high = min(low, value - half), max(high, value + half)
    return Measured(value, (low, high))


def mean_of_seeds(by_seed: Sequence[float]) -> Measured:
    """The mean of numbers of which every seed has one, with Student's t over the seeds alone: of
    counts, say, that are not kept by problem. Of one seed the interval has no ends."""
    half = student_half(by_seed) if len(by_seed) > 1 else inf
    value = mean(by_seed)
    return Measured(value, (value - half, value + half))


def mean_over_seeds(rates_SN: Sequence[Array]) -> Measured:
    """The mean of seeds that were tested on the same problems: an array [problems] for each."""
    together = np.mean(np.stack(rates_SN), axis=0)
    by_seed = [float(rates.mean()) for rates in rates_SN]
    problems = len(together)
    return over_seeds_and_problems(
        by_seed, problems, lambda counts_DN: counts_DN @ together / problems
    )


def rate_over_seeds(rates_SN: Sequence[Array]) -> Measured:
    """`mean_over_seeds` of rates. Where all problems have the same one in all seeds, as where all
    are solved, the interval is Wilson's: drawn again they would give one without a width."""
    rate = mean_over_seeds(rates_SN)
    low, high = rate.interval
    if low < high:
        return Measured(rate.value, (max(0.0, low), min(1.0, high)))
    problems = len(rates_SN[0])
    return Measured(rate.value, wilson(rate.value * problems, problems))


def difference_over_seeds(one: Sequence[Array], other: Sequence[Array]) -> Measured:
    """one - other, seed by seed and problem by problem. Each has an array [problems] for every
    seed; the seeds stand in the same order."""
    gap = mean_over_seeds([first - second for first, second in zip(one, other, strict=True)])
    return with_width(gap, len(one[0]))


def with_width(gap: Measured, problems: int) -> Measured:
    """The difference. Where no problem differs in any seed, the interval is that of Wilson for none
    of n: nothing was seen to differ, which n problems do not prove."""
    if gap.interval != (0.0, 0.0):
        return gap
    half = wilson(0, problems)[1]
    return Measured(0.0, (-half, half))


def difference_apart(one: Sequence[Array], other: Sequence[Array]) -> Measured:
    """The mean of `one` less that of `other`, tested on other problems with the same seeds.

    The wider of two intervals: Student's t over the differences of the seeds, and the two samples
    of problems drawn again, each by itself (their half widths add as roots of sums of squares).
    """
    sides = [mean_over_seeds([np.mean(np.stack(rates_SN), axis=0)]) for rates_SN in (one, other)]
    value = sides[0].value - sides[1].value
    by_seed = [np.array([a.mean() - b.mean()]) for a, b in zip(one, other, strict=True)]
    low, high = mean_over_seeds(by_seed).interval
    halves = [(side.interval[1] - side.interval[0]) / 2 for side in sides]
    half = sqrt(halves[0] ** 2 + halves[1] ** 2)
    gap = Measured(value, (min(low, value - half), max(high, value + half)))
    return with_width(gap, min(len(one[0]), len(other[0])))


def ratio_over_seeds(one: Sequence[Array], other: Sequence[Array]) -> Measured | None:
    """The mean of `one` over the mean of `other`, seed by seed and over the same problems, as
    `difference_over_seeds` has them. None where `other` is 0 everywhere in some seed."""
    by_seed = [(float(a.mean()), float(b.mean())) for a, b in zip(one, other, strict=True)]
    if not all(below for _, below in by_seed):
        return None
    above, below = (np.mean(np.stack(side), axis=0) for side in (one, other))

    def ratio(counts_DN: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((counts_DN @ above) / (counts_DN @ below))

    return over_seeds_and_problems([a / b for a, b in by_seed], len(above), ratio)


def reproduction(interval: Interval, least: float = -inf, most: float = inf) -> Reproduction:
    """Whether a number is within the range that a claim names."""
    if least < interval[0] and interval[1] < most:
        return "reproduced"
    outside = interval[1] < least or most < interval[0]
    return "not reproduced" if outside else "no evidence"


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one value."""
    return sum(values) / len(values)
