"""Statistics of a rollout's draws, from what was recorded: do they look like draws from the policy?

For a token drawn from the distribution p, the mean of -log p is the entropy of p. So the mean of
(-log-prob - entropy) over a rollout is 0 but for chance, whatever the policy is. It is below 0
where tokens were drawn more greedily than is recorded (a lower temperature, top-k, top-p), and
above it where less greedily (a penalty on repetition).
"""

import math
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from aha.core.records import Graded

# Of two tokens: probability of the unlikelier one, the entropy in nats, the variance of -log p.
RARE_M = np.geomspace(1e-12, 0.5, 1000)
ENTROPIES_M = -RARE_M * np.log(RARE_M) - (1 - RARE_M) * np.log1p(-RARE_M)
VARIANCES_M = RARE_M * (1 - RARE_M) * np.log((1 - RARE_M) / RARE_M) ** 2


def draw_numbers(groups: Sequence[Sequence[Graded]]) -> dict[str, float]:
    """Of all completions of a rollout, for the step's report:

    `entropy`: mean of -log-prob, in nats a token. `draw_gap`: mean of (-log-prob - recorded
    entropy), in nats a token, and `draw_z`, the same in standard errors; both are absent where the
    engine records no entropies. `duplicates`: pairs of equal completions of one prompt, and
    `duplicates_expected`, their number by the recorded log-probs; absent for groups of one.
    """
    completions = [graded.completion for group in groups for graded in group]
    surprisals_N = -flat([completion.drawn(completion.logprobs) for completion in completions])
    numbers = {"entropy": float(surprisals_N.mean())}
    if all(completion.entropies for completion in completions):
        entropies_N = flat([one.drawn(one.entropies) for one in completions])
        gaps_N = surprisals_N - entropies_N
        numbers["draw_gap"] = float(gaps_N.mean())
        # Given the tokens before it, each gap has mean 0: the variance of the sum is the sum of the
        # squares, though the tokens of a completion depend on each other. A policy that is nearly
        # sure has few draws that matter, and a rollout without one of them has no squares either.
        least = least_variance(entropies_N).sum()
        deviation = math.sqrt(max(np.square(gaps_N).sum(), least))
        if deviation:
            numbers["draw_z"] = float(gaps_N.sum()) / deviation
    return numbers | duplicate_numbers(groups)


def least_variance(entropies_N: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """[N] The variance of -log p, in square nats, of draws from two tokens with these entropies; 0
    above log 2, which two tokens cannot have. More tokens of the same entropy vary more: the
    unlikely ones are more unlikely each."""
    variances_N: npt.NDArray[Any] = np.interp(
        entropies_N, ENTROPIES_M, VARIANCES_M, left=0.0, right=0.0
    )
    return variances_N


def flat(columns: Sequence[Sequence[float]]) -> npt.NDArray[Any]:
    """[N] of all numbers, in float64. By numpy: torch takes four times as long for a tuple."""
    return np.fromiter(chain.from_iterable(columns), np.float64)


def total_logprob(graded: Graded) -> float:
    """The log-prob of the completion's drawn tokens, in nats."""
    return sum(graded.completion.drawn(graded.completion.logprobs))


def duplicate_numbers(groups: Sequence[Sequence[Graded]]) -> dict[str, float]:
    """Pairs of equal completions, counted and expected.

    A completion of probability p has p * (G - 1) equals on average among the G - 1 others.
    """
    if all(len(group) < 2 for group in groups):
        return {}
    pairs = expected = 0.0
    for group in groups:
        counts = Counter(graded.completion.tokens for graded in group)
        pairs += sum(count * (count - 1) / 2 for count in counts.values())
        probability = sum(math.exp(min(0.0, total_logprob(graded))) for graded in group)
        expected += probability * (len(group) - 1) / 2
    return {"duplicates": pairs, "duplicates_expected": expected}
