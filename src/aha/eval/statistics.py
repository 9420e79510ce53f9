"""Intervals and unbiased estimates for results that are right or wrong."""

from collections.abc import Sequence
from math import comb, sqrt
from random import Random

Z95 = 1.959963984540054  # two-sided 95 % of the normal distribution


def wilson(successes: float, trials: int) -> tuple[float, float]:
    """95 % interval of the rate successes / trials; useful at 0 and at 1, where the normal
    approximation has no width. (0, 1) without trials.

    Source: Wilson 1927; Brown, Cai & DasGupta 2001.
    """
    if trials == 0:
        return 0.0, 1.0
    rate, z2 = successes / trials, Z95 * Z95
    centre = (rate + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z95 * sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    # The ends are exact, where rounding would leave the rate itself outside its interval.
    low = centre - half if successes else 0.0
    high = centre + half if successes < trials else 1.0
    return low, high


def over_problems(
    groups: Sequence[Sequence[bool]], draws: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the solve rate where each problem has a group of completions.

    `groups[i]` says which completions of problem i are right; the groups are of one size. Whole
    problems are drawn again (cluster bootstrap): the completions of a problem are alike, so 16 of
    them are not 16 trials. Seeded: one result per input. Wilson's interval for groups of one, and,
    with a trial for each problem, where all problems have the same rate: drawn again they would
    give an interval without a width.

    Source: Davison & Hinkley 1997, section 3.8; Miller 2024 (arXiv 2411.00640) for language models.
    """
    assert groups and groups[0], "no completion"
    n, size = len(groups), len(groups[0])
    right = [sum(group) for group in groups]
    if size == 1 or len({*right}) == 1:
        return wilson(sum(right) / size, n)
    rng = Random(seed)
    rates = sorted(sum(rng.choices(right, k=n)) / (n * size) for _ in range(draws))
    return rates[int(0.025 * draws)], rates[int(0.975 * draws) - 1]


def pass_at_k(trials: int, successes: int, k: int) -> float:
    """Unbiased estimate of the chance that at least one of k completions is right.

    1 - C(n - c, k) / C(n, k), with c = `successes` of n = `trials`. Source: Chen et al. 2021 (arXiv
    2107.03374).
    """
    assert 0 < k <= trials, "k completions cannot be drawn from fewer"
    return 1.0 - comb(trials - successes, k) / comb(trials, k)


def paired_bootstrap(
    before: list[bool], after: list[bool], draws: int = 2_000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the mean difference after - before over the same problems.

    `before[i]` and `after[i]` belong to problem i. The bootstrap is seeded: one result per input.
    """
    assert len(before) == len(after) and before, "pairs are needed"
    differences = [int(b) - int(a) for a, b in zip(before, after, strict=True)]
    rng, n = Random(seed), len(differences)
    means = sorted(sum(rng.choices(differences, k=n)) / n for _ in range(draws))
    return means[int(0.025 * draws)], means[int(0.975 * draws) - 1]


# Student's t, two-sided 95 %, by degrees of freedom from 1; the last one is used above 10.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def student_half(values: Sequence[float]) -> float:
    """Half of the width of the 95 % interval of a mean by Student's t; of two values at least."""
    n, mean = len(values), sum(values) / len(values)
    deviation = sqrt(sum((one - mean) ** 2 for one in values) / (n - 1))
    return T95[min(n - 1, len(T95)) - 1] * deviation / sqrt(n)


def over_seeds(rates: list[float], problems: int) -> tuple[float, float]:
    """95 % interval of a mean rate over seeds that were tested on the same problems.

    The wider of two intervals: Student's t over the seeds, and Wilson's over the problems, each
    counted once. With one seed, Wilson's alone.
    """
    n, mean = len(rates), sum(rates) / len(rates)
    # Wilson's formula takes any rate; a mean of seeds need not be a whole number of problems.
    low, high = wilson(mean * problems, problems)
    if n > 1:
        deviation = sqrt(sum((rate - mean) ** 2 for rate in rates) / (n - 1))
        half = T95[min(n - 1, len(T95)) - 1] * deviation / sqrt(n)
        low, high = min(low, max(0.0, mean - half)), max(high, min(1.0, mean + half))
    return low, high
