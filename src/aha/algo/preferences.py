"""Losses of preference pairs: of two completions of one prompt, one is to become likelier.

One function serves every method: -log sigmoid(beta (s_chosen - s_rejected) - gamma). The methods
differ in the score s of a completion and in gamma.

Shapes: N pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

from aha.algo.lazy_torch import torch


@dataclass(frozen=True)
class PreferenceMethod:
    """What the score of a completion is, and the usual strengths.

    `reference`: log-probs of the model before training are taken off; `per_token`: the mean over
    the tokens is the score, not the sum. `source` is the paper.
    """

    reference: bool
    per_token: bool
    beta: float
    gamma: float
    source: str


METHODS = {
    "simpo": PreferenceMethod(
        False, True, 2.0, 0.5, "SimPO (arXiv 2405.14734); beta and gamma of Sky-T1-Flash"
    ),
    "dpo": PreferenceMethod(True, False, 0.1, 0.0, "DPO (arXiv 2305.18290)"),
}


def preference_score(
    method: PreferenceMethod,
    logprobs_N: torch.Tensor,
    reference_N: torch.Tensor,
    tokens_N: torch.Tensor,
) -> torch.Tensor:
    """The score of completions, [N], from the sums of their log-probs now and before training.

    `tokens_N` are their lengths. SimPO: the mean of log p, so that a longer completion has no
    lower score by its length alone. DPO: log p / p_reference of the whole completion.
    """
    score_N = logprobs_N - reference_N if method.reference else logprobs_N
    return score_N / tokens_N if method.per_token else score_N


def preference_loss(
    chosen_N: torch.Tensor, rejected_N: torch.Tensor, beta: float, gamma: float = 0.0
) -> torch.Tensor:
    """-log sigmoid(beta (chosen - rejected) - gamma) of the scores, [N], at least 0.

    Example: equal scores and gamma 0 give log 2 = 0.693.
    Source: Bradley-Terry, as in DPO (arXiv 2305.18290, equation 7) and with a margin gamma in SimPO
    (arXiv 2405.14734, equation 6).
    """
    return torch.nn.functional.softplus(gamma - beta * (chosen_N - rejected_N))
