"""How far two readers of the same completions agree: the exact detector and a judge.

Agreement by chance is taken off (Cohen's kappa, on whether a behaviour is there at all), because
where nearly every completion checks itself, two readers agree without reading.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass

DRAWS = 1_000


@dataclass(frozen=True)
class Agreement:
    """Of one behaviour over `judged` completions; a number without a denominator is None.

    `both`, `detector_only`, `judge_only`, `neither`: completions in which it is there. `same_count`
    is the share with equal counts, `rank` Spearman's correlation of the counts. `detector_length`
    and `judge_length` correlate counts with the length: counts that merely follow it are no news.
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

    def as_row(self) -> dict:
        return asdict(self)


def agreement(
    behaviour: str,
    detected: Sequence[int],
    num_judged: Sequence[int | None],
    lengths: Sequence[int],
    seed: int = 0,
) -> Agreement:
    """Compare two columns of counts; where the judge said nothing, the completion is left out."""
    rows = [
        (ours, theirs, length)
        for ours, theirs, length in zip(detected, num_judged, lengths, strict=True)
        if theirs is not None
    ]
    ours, theirs, kept = (list(column) for column in zip(*rows, strict=True)) if rows else ([],) * 3
    cells = cells_of(ours, theirs)
    num = len(rows)
    return Agreement(
        behaviour,
        num,
        len(detected) - num,
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
    """Completions with the behaviour: (for both, for us alone, for them alone, for neither)."""
    pairs = [(a > 0, b > 0) for a, b in zip(ours, theirs, strict=True)]
    kinds = ((True, True), (True, False), (False, True), (False, False))
    return tuple(pairs.count(kind) for kind in kinds)


def kappa(both: int, ours: int, theirs: int, neither: int) -> float | None:
    """Cohen's kappa of two readers: (seen - chance) / (1 - chance); 1 is full agreement, 0 that of
    chance. None where chance alone agrees always, as when nobody sees anything.

    Source: Cohen 1960, 'A coefficient of agreement for nominal scales'.
    """
    num = both + ours + theirs + neither
    if not num:
        return None
    seen = (both + neither) / num
    first, second = (both + ours) / num, (both + theirs) / num
    chance = first * second + (1 - first) * (1 - second)
    return None if chance == 1 else (seen - chance) / (1 - chance)


def kappa_interval(cells: tuple[int, int, int, int], seed: int) -> tuple[float, float] | None:
    """95 % of kappa over completions drawn again; None where most draws have no kappa."""
    num, rng = sum(cells), random.Random(seed)
    if kappa(*cells) is None:
        return None
    found = []
    for _ in range(DRAWS):
        drawn = rng.choices(range(4), weights=cells, k=num)
        one = kappa(*(drawn.count(cell) for cell in range(4)))
        if one is not None:
            found.append(one)
    if len(found) < DRAWS / 2:
        return None
    found.sort()
    return found[int(0.025 * len(found))], found[int(0.975 * len(found))]


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
    """Places from 1 up."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    first = 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for place in order[first : last + 1]:
            found[place] = (first + last) / 2 + 1
        first = last + 1
    return found
