"""The agreement of two readers of the same completions: the exact detector and an LLM judge.

Agreement by chance is subtracted (Cohen's kappa, on whether a behaviour occurs): if nearly every
completion has checks, two readers agree even if they guess.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

DRAWS = 1_000


@dataclass(frozen=True)
class Agreement:
    """The agreement on one behaviour over `num_judged` completions.

    `unread`: completions without an answer of the judge; all other fields leave them out. `both`,
    `detector_only`, `judge_only`, `neither`: completions in which these readers count it at least
    once. `same_count` is the share with equal counts, `rank` Spearman's correlation of the counts.
    `detector_length` and `judge_length` correlate the counts with the length of the completion:
    counts that depend only on the length have no meaning. A ratio with a denominator of 0 is None.
    """

    behaviour: str
    num_judged: int
    unread: int
    both: int
    detector_only: int
    judge_only: int
    neither: int
    kappa: float | None
    interval: tuple[float, float] | None
    same_count: float | None
    detector_mean: float | None
    judge_mean: float | None
    rank: float | None
    detector_length: float | None
    judge_length: float | None

    def as_row(self) -> dict[str, Any]:
        """The fields for `--json`; `num_judged` has the key `judged`."""
        return {"judged" if key == "num_judged" else key: v for key, v in asdict(self).items()}


def agreement(
    behaviour: str,
    detector_counts: Sequence[int],
    judge_counts: Sequence[int | None],
    lengths: Sequence[int],
    seed: int = 0,
) -> Agreement:
    """Compare two columns of counts; a completion with a None of the judge is left out.

    `lengths` are those of the completions, in any unit; `seed` draws the bootstrap.
    """
    rows = [
        (ours, theirs, length)
        for ours, theirs, length in zip(detector_counts, judge_counts, lengths, strict=True)
        if theirs is not None
    ]
    ours, theirs, kept = (
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
    )
    cells = cells_of(ours, theirs)
    num = len(rows)
    return Agreement(
        behaviour,
        num,
        len(detector_counts) - num,
        *cells,
        kappa=kappa(*cells),
        interval=kappa_interval(cells, seed),
        same_count=sum(a == b for a, b in zip(ours, theirs, strict=True)) / num if num else None,
        detector_mean=sum(ours) / num if num else None,
        judge_mean=sum(theirs) / num if num else None,
        rank=spearman(ours, theirs),
        detector_length=spearman(ours, kept),
        judge_length=spearman(theirs, kept),
    )


def cells_of(ours: Sequence[int], theirs: Sequence[int]) -> tuple[int, int, int, int]:
    """Completions in which the behaviour is counted: (by both, by `ours` alone, by `theirs` alone,
    by neither)."""
    pairs = [(a > 0, b > 0) for a, b in zip(ours, theirs, strict=True)]
    both, neither = pairs.count((True, True)), pairs.count((False, False))
    return both, pairs.count((True, False)), pairs.count((False, True)), neither


def kappa(both: int, ours: int, theirs: int, neither: int) -> float | None:
    """Cohen's kappa of two readers: (observed - chance) / (1 - chance); 1 is full agreement, 0 that
    of chance. None where chance alone always agrees, as when neither reader counts anything.

    Source: Cohen 1960, 'A coefficient of agreement for nominal scales'.
    """
    num = both + ours + theirs + neither
    if not num:
        return None
    observed = (both + neither) / num
    first, second = (both + ours) / num, (both + theirs) / num
    chance = first * second + (1 - first) * (1 - second)
    return None if chance == 1 else (observed - chance) / (1 - chance)


def kappa_interval(cells: tuple[int, int, int, int], seed: int) -> tuple[float, float] | None:
    """95 % interval of kappa by bootstrap over completions; None where most draws have no kappa."""
    num, rng = sum(cells), random.Random(seed)
    if kappa(*cells) is None:
        return None
    values = []
    for _ in range(DRAWS):
        drawn = rng.choices(range(4), weights=cells, k=num)
        value = kappa(*(drawn.count(cell) for cell in range(4)))
        if value is not None:
            values.append(value)
    if len(values) < DRAWS / 2:
        return None
    values.sort()
    return values[int(0.025 * len(values))], values[int(0.975 * len(values))]


def spearman(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Spearman's rank correlation, equal values sharing their mean rank; None where one column
    never changes."""
    if len(set(xs)) < 2 or len(set(ys)) < 2:
        return None
    a, b = ranks(xs), ranks(ys)
    mean = (len(a) + 1) / 2
    products = sum((x - mean) * (y - mean) for x, y in zip(a, b, strict=True))
    sizes = (sum((x - mean) ** 2 for x in column) for column in (a, b))
    return products / math.sqrt(math.prod(sizes))


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value, from 1 for the smallest; equal values share their mean rank."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranked = [0.0] * len(values)
    first = 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for place in order[first : last + 1]:
            ranked[place] = (first + last) / 2 + 1
        first = last + 1
    return ranked
