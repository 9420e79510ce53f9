"""Entropy of the policy, and what keeps it from collapsing.

Reward is bought with entropy (arXiv 2505.22617). A control that selects tokens looks at the N
tokens of a whole update: a share taken of each micro-batch would depend on how the update was
divided. It names what it looks at, `entropies_N` or `logprobs_N` and `advantages_N`, all as
recorded when the tokens were sampled, and returns [N] of 0 and 1.

Shapes: B rows, T tokens, V vocabulary, N tokens of an update.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from aha.algo.lazy_torch import torch
from aha.algo.registry import Algorithm, Registry


def token_entropy(logits_BTV: torch.Tensor) -> torch.Tensor:
    """-sum p log p, [B, T], in float32 or better: bfloat16 would lose the small ones."""
    dtype = torch.promote_types(logits_BTV.dtype, torch.float32)
    logprobs_BTV = torch.log_softmax(logits_BTV.to(dtype), -1)
    return -(logprobs_BTV.exp() * logprobs_BTV).sum(-1)


def entropy_bonus(entropies_BT: torch.Tensor, coef: float) -> torch.Tensor:
    """-coef H, [B, T], to be added to the per-token loss.

    Source: Williams and Peng 1991; 0.001 in TinyZero. A constant bonus moves the optimum (arXiv
    2604.09676).
    """
    return -coef * entropies_BT


@dataclass(frozen=True)
class ControlFacts:
    """What an entropy control does with its result.

    "keep": 1 for tokens that stay in the loss, 0 for those that leave it. "hold": 1 for tokens that
    are held where they were sampled, by a second term of the loss. "bonus": the coefficients of the
    entropy bonus, of this step and of the next.
    """

    role: Literal["keep", "hold", "bonus"]


CONTROLS: Registry[ControlFacts] = Registry(
    "entropy_control",
    ControlFacts,
    {"entropy_limit": ("share", "target")},
    absent="none",
    gradient=False,
    # "keep" and "hold" get tensors of all tokens of an update; "bonus" two numbers by position.
    inputs=("entropies_N", "logprobs_N", "advantages_N", "coef", "entropy"),
    num_positional=0,
)
control = CONTROLS  # @control("name", role=...)


def needs_entropies(control: Algorithm[ControlFacts] | None) -> bool:
    """Whether the engine has to record the entropy of each token's distribution."""
    return control is not None and (
        control.facts.role == "bonus" or "entropies_N" in control.parameters
    )


@control("top_entropy", role="keep")
def top_entropy(entropies_N: torch.Tensor, share: float = 0.2) -> torch.Tensor:
    """1 for the tokens whose entropy is among the top `share`: the forks of the text. [N] -> [N].

    Source: 'Beyond the 80/20 rule' (arXiv 2506.01939). Equals all count, so that more than the
    share may be kept.
    """
    # The place of torch.quantile(1 - share), which takes no more than 16 million numbers.
    place = math.ceil(round((1 - share) * (len(entropies_N) - 1), 6))
    return (entropies_N >= entropies_N.kthvalue(place + 1).values).to(entropies_N.dtype)


def covariances(logprobs_N: torch.Tensor, advantages_N: torch.Tensor) -> torch.Tensor:
    """(A - mean A) (logp - mean logp): the tokens with much of it spend the entropy. [N] -> [N].

    Source: 'The entropy mechanism' (arXiv 2505.22617).
    """
    return (advantages_N - advantages_N.mean()) * (logprobs_N - logprobs_N.mean())


def largest(values_N: torch.Tensor, count: int) -> torch.Tensor:
    """1 for the `count` largest values, else 0."""
    selected_N = torch.zeros_like(values_N)
    selected_N[values_N.topk(count).indices] = 1.0
    return selected_N


@control("kl_cov", role="hold")
def kl_cov(
    logprobs_N: torch.Tensor, advantages_N: torch.Tensor, share: float = 0.002
) -> torch.Tensor:
    """1 for the top `share` of tokens by covariance, at least one: those that `held` holds.

    [N] -> [N].  Source: KL-Cov (arXiv 2505.22617): 0.002 for 7B, 0.0002 for 32B.
    """
    covs_N = covariances(logprobs_N, advantages_N)
    return largest(covs_N, max(1, int(share * len(covs_N))))


def held(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    selected_BT: torch.Tensor,
    coef: float = 1.0,
) -> torch.Tensor:
    """coef |logp - old| for the selected tokens, [B, T], to be added to the per-token loss.

    Source: KL-Cov (arXiv 2505.22617), where the loss that it is added to is `ratio`.
    """
    return coef * (logprobs_BT - old_logprobs_BT).abs() * selected_BT


@control("clip_cov", role="keep")
def clip_cov(
    logprobs_N: torch.Tensor,
    advantages_N: torch.Tensor,
    share: float = 2e-4,
    bounds: tuple[float, float] = (1.0, 5.0),
) -> torch.Tensor:
    """0 for tokens whose covariance lies inside `bounds`, at most `share` of all and at least one,
    if there is any; 1 for the rest, which stays in the loss. [N] -> [N].

    Source: Clip-Cov (arXiv 2505.22617). Differs: the largest covariances go, not a random draw,
    so that a step needs no generator.
    """
    covs_N = covariances(logprobs_N, advantages_N)
    inside_N = (covs_N > bounds[0]) & (covs_N < bounds[1])
    count = min(max(1, int(share * len(covs_N))), int(inside_N.sum()))
    return 1 - largest(covs_N.masked_fill(~inside_N, -torch.inf), count)


@control("adaptive", role="bonus")
def bonus_near(
    coef: float, entropy: float, target: float = 0.2, change: float = 0.005
) -> tuple[float, float]:
    """(bonus of this step, coef of the next): it is paid while the entropy is not above the target,
    and grows below it, shrinks above it, never negative. Entropies in nats a token.

    Source: Skywork-OR1 (arXiv 2505.22312), which says that the target has to be tuned for each
    model; 0.2 as in TRL.
    """
    bonus = coef if entropy <= target else 0.0
    return bonus, max(0.0, coef + (change if entropy < target else -change))
