"""Points of the study `thinking`: accuracy and tokens of one way to spend thinking tokens.

Every point has, for each problem, the mean over seeds of accuracy and of thinking tokens. So points
are paired, whatever they compare, and whole problems are drawn again for their intervals.

Control, Scaling and Performance are those of s1 (arXiv 2501.19393, section 3.2), over the points of
one method: the share of thoughts within their limits; the mean slope over all pairs of points; the
best accuracy.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aha.eval.statistics import over_seeds, pass_at_k
from aha.eval.yardstick import Curve
from aha.studies.cell_files import Result
from aha.studies.judgement import (
    Array,
    Judgement,
    Measured,
    of_difference,
    over_problems_drawn_again,
    over_seeds_and_problems,
    with_width,
)
from aha.studies.thinking_cells import Subject

PER_TOKENS = 1_000  # a slope is in points (hundredths) of accuracy over so many thinking tokens
MINIMUM_GAP = 1e-6  # tokens between two points of a slope


@dataclass(frozen=True)
class ThinkingPoint:
    """One setting of one method. `accuracy_N` and `tokens_N` are by problem, NaN where a problem
    has no completion that qualifies; `rates` and `lengths` are accuracy and tokens of each seed.

    `control`: share of thoughts within their limits. `closed`: share closed by the budget.
    `completion_tokens`: of a whole completion, answer included.
    """

    label: str
    accuracy_N: Array
    tokens_N: Array
    rates: list[float]
    lengths: list[float]
    control: float
    closed: float
    completion_tokens: float

    @property
    def tokens(self) -> float:
        """Thinking tokens of a problem, in the mean: of all its completions together."""
        return float(np.nanmean(self.tokens_N))

    @property
    def accuracy(self) -> Measured:
        """The mean over seeds, with the interval that every study uses."""
        problems = int(np.isfinite(self.accuracy_N).sum())
        mean_rate = sum(self.rates) / len(self.rates)
        return Measured(mean_rate, over_seeds(self.rates, problems))


def table_of(result: Result, key: str) -> Array:
    """[N, G] of a key of a cell's result."""
    return np.array(result[key], dtype=np.float64)


def point_of(label: str, results: Sequence[Result], most: int, waits: int = 0) -> ThinkingPoint:
    """The point of a budget, one completion of each problem at a time.

    Within limits is a thought of at most `most` tokens that has waited `waits` times, or until no
    further wait had room.
    """
    accuracy = [table_of(result, "right") for result in results]
    tokens = [table_of(result, "thinking") for result in results]
    kept = []
    for result, tokens_NG in zip(results, tokens, strict=True):
        waited_NG = table_of(result, "waits") == waits
        by_model_NG = np.array(result["closed"]) == "model"
        kept.append((tokens_NG <= most) & (waited_NG | ~by_model_NG | (tokens_NG >= most - 1)))
    closed = [(np.array(result["closed"]) == "budget").mean() for result in results]
    return ThinkingPoint(
        label,
        np.mean([table.mean(1) for table in accuracy], 0),
        np.mean([table.mean(1) for table in tokens], 0),
        [float(table.mean()) for table in accuracy],
        [float(table.mean()) for table in tokens],
        float(np.mean([table.mean() for table in kept])),
        float(np.mean(closed)),
        float(np.mean([table_of(result, "tokens").mean() for result in results])),
    )


# -- parallel ---------------------------------------------------------------------------------


def vote_is_right(answers: Sequence[str | None], right: Sequence[bool]) -> bool:
    """Whether the most frequent answer is right; of several the one that came first. A completion
    without an answer has no vote."""
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return False
    winner = votes.most_common(1)[0][0]  # in order of first votes, where counts are equal
    return bool(right[list(answers).index(winner)])


def voted(result: Result, k: int) -> Array:
    """[N]: the share of votes of k completions that are right, over as many sets of k as there
    are."""
    rates = []
    for answers, right in zip(result["answers"], result["right"], strict=True):
        starts = range(0, len(answers) - k + 1, k)
        wins = [vote_is_right(answers[at : at + k], right[at : at + k]) for at in starts]
        rates.append(sum(wins) / len(wins))
    return np.array(rates)


def passed(result: Result, k: int) -> Array:
    """[N]: pass@k, the chance that one of k completions is right."""
    return np.array([pass_at_k(len(right), sum(right), k) for right in result["right"]])


def parallel_point(
    label: str, results: Sequence[Result], k: int, most: int | None, by_vote: bool
) -> ThinkingPoint:
    """The point of k completions side by side; their tokens are added up."""
    rates = [(voted if by_vote else passed)(result, k) for result in results]
    tokens = [table_of(result, "thinking") for result in results]
    kept = [1.0 if most is None else float((table <= most).mean()) for table in tokens]
    closed = [(np.array(result["closed"]) == "budget").mean() for result in results]
    return ThinkingPoint(
        label,
        np.mean(rates, 0),
        k * np.mean([table.mean(1) for table in tokens], 0),
        [float(rate.mean()) for rate in rates],
        [k * float(table.mean()) for table in tokens],
        float(np.mean(kept)),
        float(np.mean(closed)),
        k * float(np.mean([table_of(result, "tokens").mean() for result in results])),
    )


# -- rejection by length ----------------------------------------------------------------------


def rejection_point(label: str, results: Sequence[Result], most: int) -> ThinkingPoint | None:
    """The point of drawing until a thought without a budget has at most `most` tokens. `control` is
    the share of problems with such a one; the others have no value. None where none has."""
    accuracy, tokens, lengths = [], [], []
    for result in results:
        thinking_NG = table_of(result, "thinking")
        fits_NG = thinking_NG <= most
        counts_N = fits_NG.sum(1)
        with np.errstate(invalid="ignore", divide="ignore"):
            accuracy.append((table_of(result, "right") * fits_NG).sum(1) / counts_N)
            tokens.append((thinking_NG * fits_NG).sum(1) / counts_N)
        lengths.append(table_of(result, "tokens")[fits_NG])
    if any(not np.isfinite(rates).any() for rates in accuracy):
        return None
    return ThinkingPoint(
        label,
        mean_of_known(accuracy),
        mean_of_known(tokens),
        [float(np.nanmean(rates)) for rates in accuracy],
        [float(np.nanmean(counts)) for counts in tokens],
        float(np.mean([np.isfinite(rates).mean() for rates in accuracy])),
        0.0,
        float(np.concatenate(lengths).mean()),
    )


def mean_of_known(tables: Sequence[Array]) -> Array:
    """[N]: the mean over the seeds in which a problem has a value, NaN where it has none."""
    stacked = np.stack(tables)
    known_N = np.isfinite(stacked).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_N: Array = np.nansum(stacked, 0) / known_N
    return mean_N


# -- Control, Scaling, Performance ------------------------------------------------------------


@dataclass(frozen=True)
class MethodMetrics:
    """Of one method: `control` a share, `scaling` in points of accuracy over PER_TOKENS thinking
    tokens (None where no two points differ in tokens), `performance` the best accuracy of its
    points."""

    control: float
    scaling: Measured | None
    performance: Measured


def slopes(tokens_DP: Array, accuracy_DP: Array) -> Array:
    """[D]: the mean slope over all pairs of points, in points of accuracy over PER_TOKENS tokens;
    NaN where no two points differ in tokens.

    Example: accuracies .2 .5 at 100 and 200 tokens: .3 / 100 tokens, which is 300 points over
    1,000 tokens.
    """
    first, second = np.triu_indices(tokens_DP.shape[1], 1)
    run = tokens_DP[:, second] - tokens_DP[:, first]
    rise = accuracy_DP[:, second] - accuracy_DP[:, first]
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.where(np.abs(run) > MINIMUM_GAP, rise / run, np.nan)
        known = np.isfinite(each)
        mean_D: Array = np.where(known, each, 0.0).sum(1) / known.sum(1)
    return 100 * PER_TOKENS * mean_D


def metrics_of(points: Sequence[ThinkingPoint]) -> MethodMetrics:
    """The metrics of a method's points, with intervals over seeds and from problems drawn again."""
    accuracy_PN = np.stack([point.accuracy_N for point in points])
    tokens_PN = np.stack([point.tokens_N for point in points])
    known_PN = np.isfinite(accuracy_PN).astype(np.float64)
    problems = accuracy_PN.shape[1]

    def means(table_PN: Array, counts_DN: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            means_DP: Array = (counts_DN @ np.nan_to_num(table_PN).T) / (counts_DN @ known_PN.T)
        return means_DP

    def scaling(counts_DN: Array) -> Array:
        return slopes(means(tokens_PN, counts_DN), means(accuracy_PN, counts_DN))

    def performance(counts_DN: Array) -> Array:
        best_D: Array = np.fmax.reduce(means(accuracy_PN, counts_DN), axis=1)  # NaN if all are
        return best_D

    lengths_SP = np.array([point.lengths for point in points]).T
    rates_SP = np.array([point.rates for point in points]).T
    by_seed = slopes(lengths_SP, rates_SP)
    best = max((point.accuracy for point in points), key=lambda accuracy: accuracy.value)
    drawn = over_problems_drawn_again(problems, performance).interval
    return MethodMetrics(
        control=float(np.mean([point.control for point in points])),
        scaling=over_seeds_and_problems([*map(float, by_seed)], problems, scaling)
        if np.isfinite(by_seed).all()
        else None,
        # The best of several is chosen anew in every draw; its seeds widen the interval.
        performance=Measured(
            best.value, (min(best.interval[0], drawn[0]), max(best.interval[1], drawn[1]))
        ),
    )


# -- comparisons ------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairedDifference:
    """The accuracy of one point less that of another on the same problems; `verdict` says whether
    the first one is above, None where there are too few seeds for any."""

    one: str
    other: str
    difference: Measured
    verdict: Judgement | None


def paired(one: ThinkingPoint, other: ThinkingPoint, decides: bool) -> PairedDifference:
    """The difference of two points. `decides`: there are seeds enough for a verdict."""
    gaps_N = one.accuracy_N - other.accuracy_N
    by_seed = [first - second for first, second in zip(one.rates, other.rates, strict=True)]
    drawn = over_seeds_and_problems(
        by_seed, len(gaps_N), lambda counts_DN: counts_DN @ gaps_N / len(gaps_N)
    )
    gap = with_width(drawn, len(gaps_N))
    verdict = of_difference(gap.interval) if decides else None
    return PairedDifference(one.label, other.label, gap, verdict)


def at_equal_tokens(curve: Sequence[ThinkingPoint], tokens: float) -> ThinkingPoint:
    """The curve of budgets at this mean number of thinking tokens: between its two neighbouring
    points in a straight line, problem by problem; beyond its ends the last point.

    As in s1, a method is a function of tokens that is straight between its points.
    """
    points = sorted(curve, key=lambda point: point.tokens)
    above = next((i for i, p in enumerate(points) if p.tokens >= tokens), len(points) - 1)
    high, low = points[above], points[max(above - 1, 0)]
    gap = high.tokens - low.tokens
    share = 1.0 if gap < MINIMUM_GAP else min(1.0, max(0.0, (tokens - low.tokens) / gap))

    def between(a: float, b: float) -> float:
        return (1 - share) * a + share * b

    return ThinkingPoint(
        f"budgets at {tokens:.0f} tokens",
        (1 - share) * low.accuracy_N + share * high.accuracy_N,
        (1 - share) * low.tokens_N + share * high.tokens_N,
        [between(a, b) for a, b in zip(low.rates, high.rates, strict=True)],
        [between(a, b) for a, b in zip(low.lengths, high.lengths, strict=True)],
        between(low.control, high.control),
        between(low.closed, high.closed),
        between(low.completion_tokens, high.completion_tokens),
    )


def search_curve(result: Result) -> Curve:
    """The curve of a search cell."""
    return Curve(result["n"], result["longest"], result["solved_ends"], result["all_ends"])


def falls(points: Sequence[ThinkingPoint], decides: bool) -> list[PairedDifference]:
    """Where more tokens have come with lower accuracy: from each point to the next."""
    pairs = zip(points[1:], points, strict=False)
    return [
        paired(later, earlier, decides)
        for later, earlier in pairs
        if later.accuracy.value < earlier.accuracy.value
    ]


def point_row(point: ThinkingPoint) -> Mapping[str, object]:
    """A point for study.json."""
    accuracy = point.accuracy
    return {
        "label": point.label,
        "thinking_tokens": point.tokens,
        "accuracy": accuracy.value,
        "interval": list(accuracy.interval),
        "rates": point.rates,
        "control": point.control,
        "closed_by_budget": point.closed,
        "completion_tokens": point.completion_tokens,
    }


# -- a subject --------------------------------------------------------------------------------

Methods = dict[str, list[ThinkingPoint]]


@dataclass
class SubjectResult:
    """What is known of one subject so far. `methods` has the points of each way to spend tokens;
    `searches` has for each search its rows at the tokens of the points of `maximum`."""

    subject: Subject
    seeds: int
    methods: Methods
    metrics: dict[str, MethodMetrics] = field(default_factory=dict)
    against_parallel: list[PairedDifference] = field(default_factory=list)
    of_waits: list[PairedDifference] = field(default_factory=list)
    falls: list[PairedDifference] = field(default_factory=list)
    searches: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
