"""Policy losses, one number for every token.

A loss maps (logprobs, old_logprobs, advantages), all [B, T], to per-token losses [B, T] that are
to be minimised; `aha.algo.aggregation` adds them up. `logprobs` are the policy's now,
`old_logprobs` those under which the tokens were sampled; the latter never carry gradient. Defaults
are those of each method's paper. A loss gets more by naming a parameter exactly: `mask_BT`,
the mask of the completions' own tokens, and the recipe's `clip_low`, `clip_high`, `dual_clip` and
`tau`. A parameter of any other name keeps its default.

Shapes: B rows, T tokens; B1 one number for each row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from aha.algo.lazy_torch import torch
from aha.algo.ratios import bounded, ratio_of, row_mean
from aha.algo.registry import Registry

MAX_DPPO_RATIO = 20.0  # DPPO caps its constant ratio here, as in the paper's code


@dataclass(frozen=True)
class LossFacts:
    """What the rest of the program has to know of a loss."""

    unit: Literal["token", "sequence"] = "token"  # the ratio is per token, or per sequence
    ratio: bool = True  # False: ignores old_logprobs, so that only one update a rollout is right
    every_row: bool = False  # gives a gradient also where the advantage is 0: compute all rows
    aggregation: str | None = None  # the only one that it is correct with; None: any
    separable: bool = True  # each token's loss uses that token alone: some may be left out
    # (logprobs, old_logprobs, advantages, mask, clip_low, clip_high) -> [B, T] of bool: the tokens
    # that its bound acts on; None where it has no bound.
    clipped: Callable[..., Any] | None = field(default=None, repr=False)


LOSSES: Registry[LossFacts] = Registry(
    "loss",
    LossFacts,
    {key: (key,) for key in ("clip_low", "clip_high", "dual_clip", "tau")},
    inputs=("mask_BT",),
    num_positional=3,
)
loss = LOSSES  # @loss("name", unit=..., ratio=..., every_row=..., aggregation=..., separable=...)


@loss("pg", ratio=False)
def policy_gradient(
    logprobs_BT: torch.Tensor, old_logprobs_BT: torch.Tensor, advantages_BT: torch.Tensor
) -> torch.Tensor:
    """-A * logp: REINFORCE. Exact when each batch is used for one update, the default here.

    [B, T] -> [B, T].  Source: Williams 1992. `old_logprobs` are not used.
    """
    return -advantages_BT * logprobs_BT


@loss("ratio")
def importance_ratio(
    logprobs_BT: torch.Tensor, old_logprobs_BT: torch.Tensor, advantages_BT: torch.Tensor
) -> torch.Tensor:
    """-A r with r = exp(logp - old): the policy gradient for tokens of an older policy, unclipped.

    [B, T] -> [B, T].
    Source: the surrogate that PPO clips (arXiv 1707.06347); KL-Cov's loss (arXiv 2505.22617).
    """
    return -advantages_BT * ratio_of(logprobs_BT, old_logprobs_BT)


def clipped_surrogate(
    ratio_BT: torch.Tensor, advantages_BT: torch.Tensor, clip_low: float, clip_high: float
) -> torch.Tensor:
    """max(-A r, -A clip(r, 1 - low, 1 + high)), [B, T]."""
    clipped_BT = ratio_BT.clamp(1 - clip_low, 1 + clip_high)
    return torch.maximum(-advantages_BT * ratio_BT, -advantages_BT * clipped_BT)


def beyond(
    moved_BT: torch.Tensor, advantages_BT: torch.Tensor, low: float, high: float
) -> torch.Tensor:
    """Whether a token has moved beyond its bound on the side of its advantage: above `high` where
    that is positive, below `low` where it is negative. [B, T] of bool."""
    up_BT = (advantages_BT > 0) & (moved_BT > high)
    return up_BT | ((advantages_BT < 0) & (moved_BT < low))


def clipped_tokens(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> torch.Tensor:
    """Tokens without a gradient because their ratio is beyond the bound; [B, T] of bool. Those of
    the dual clip are not among them, as in TRL's `clip_ratio/region_mean`."""
    ratio_BT = ratio_of(logprobs_BT, old_logprobs_BT)
    return beyond(ratio_BT, advantages_BT, 1 - clip_low, 1 + clip_high)


def clipped_sequences(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> torch.Tensor:
    """As `clipped_tokens`, by the ratio of the whole completion."""
    ratio_B1 = bounded(row_mean(logprobs_BT - old_logprobs_BT, mask_BT)).exp()
    ratio_BT = ratio_B1.expand_as(logprobs_BT)
    return beyond(ratio_BT, advantages_BT, 1 - clip_low, 1 + clip_high)


def clipped_log_ratios(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> torch.Tensor:
    """As `clipped_tokens`, for bounds of the log-ratio."""
    return beyond(logprobs_BT - old_logprobs_BT, advantages_BT, -clip_low, clip_high)


@loss("ppo_clip", clipped=clipped_tokens)
def ppo_clip(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    dual_clip: float | None = None,
) -> torch.Tensor:
    """max(-A r, -A clip(r, 1 - low, 1 + high)) with r = exp(logp - old). [B, T] -> [B, T].

    `dual_clip` c bounds the loss of a negative advantage at -A c: a token that became far likelier
    though it was bad would else push without limit.
    Source: Schulman et al. 2017 (arXiv 1707.06347); separate bounds as in DAPO (arXiv 2503.14476);
    dual clip Ye et al. 2019 (arXiv 1912.09729), the same as INTELLECT-2's two-sided clip.
    """
    losses_BT = clipped_surrogate(
        ratio_of(logprobs_BT, old_logprobs_BT), advantages_BT, clip_low, clip_high
    )
    if dual_clip is None:
        return losses_BT
    bounded_BT = torch.minimum(losses_BT, -advantages_BT * dual_clip)
    return torch.where(advantages_BT < 0, bounded_BT, losses_BT)


@loss("gspo", unit="sequence", aggregation="sequence_mean", clipped=clipped_sequences)
def gspo(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    clip_low: float = 3e-4,
    clip_high: float = 4e-4,
    *,
    mask_BT: torch.Tensor,
) -> torch.Tensor:
    """PPO's clip on the completion's ratio s = exp(mean_t(logp - old)). [B, T] -> [B, T].

    Each token's ratio is s in value and carries its own token's gradient. Goes with sequence_mean:
    a sum over tokens would multiply by the length once more.
    Source: Zheng et al. 2025, GSPO (arXiv 2507.18071).
    """
    mean_B1 = row_mean(logprobs_BT - old_logprobs_BT, mask_BT).detach()
    log_ratio_BT = mean_B1 + logprobs_BT - logprobs_BT.detach()
    return clipped_surrogate(bounded(log_ratio_BT).exp(), advantages_BT, clip_low, clip_high)


@loss("cispo", clipped=clipped_tokens)
def cispo(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    clip_low: float = 1.0,
    clip_high: float = 4.0,
) -> torch.Tensor:
    """-clip(r) A logp with the clipped ratio as a constant: no token loses its gradient.

    [B, T] -> [B, T].
    Source: MiniMax-M1 (arXiv 2506.13585). No lower bound (1 - 1 = 0); high 4 caps r at 5.
    """
    ratio_BT = ratio_of(logprobs_BT, old_logprobs_BT).detach()
    return -ratio_BT.clamp(1 - clip_low, 1 + clip_high) * advantages_BT * logprobs_BT


@loss("sapo", aggregation="sequence_mean")
def sapo(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    tau_good: float = 1.0,
    tau_bad: float = 1.05,
) -> torch.Tensor:
    """-A (4 / tau) sigmoid(tau (r - 1)): a gate that fades in place of a clip that cuts.

    [B, T] -> [B, T]; tau by the sign of the advantage. Goes with sequence_mean.
    Source: SAPO (arXiv 2511.20347).
    """
    good_BT = torch.full_like(advantages_BT, tau_good)
    tau_BT = torch.where(advantages_BT > 0, good_BT, torch.full_like(good_BT, tau_bad))
    gate_BT = torch.sigmoid(tau_BT * (ratio_of(logprobs_BT, old_logprobs_BT) - 1))
    return -advantages_BT * gate_BT * 4 / tau_BT


def kept_policy_gradient(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    keep_BT: torch.Tensor,
) -> torch.Tensor:
    """-A r logp where `keep`, r a capped constant. [B, T] -> [B, T]."""
    ratio_BT = ratio_of(logprobs_BT, old_logprobs_BT).clamp(max=MAX_DPPO_RATIO)
    return -advantages_BT * (ratio_BT * keep_BT).detach() * logprobs_BT


def dropped_by_tv(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    mask_BT: torch.Tensor | None,
    clip_low: float,
    clip_high: float,
) -> torch.Tensor:
    """Tokens that dppo_tv leaves out; [B, T] of bool."""
    moved_BT = logprobs_BT.exp() - old_logprobs_BT.exp()
    return beyond(moved_BT, advantages_BT, -clip_low, clip_high)


@loss("dppo_tv", clipped=dropped_by_tv)
def dppo_tv(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    clip_low: float = 0.15,
    clip_high: float = 0.15,
) -> torch.Tensor:
    """Tokens drop out once their probability has moved by more than the bound, in the direction of
    their advantage. [B, T] -> [B, T].

    A difference, not a ratio: a rare token may double without leaving.
    Source: DPPO (arXiv 2602.04879), total variation.
    """
    tensors = (logprobs_BT, old_logprobs_BT, advantages_BT)
    return kept_policy_gradient(*tensors, ~dropped_by_tv(*tensors, None, clip_low, clip_high))


def dropped_by_kl(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    mask_BT: torch.Tensor | None,
    clip_low: float,
    clip_high: float,
) -> torch.Tensor:
    """Tokens that dppo_kl leaves out; [B, T] of bool."""
    # Probabilities of 1 would make log(1 - p) infinite.
    now_BT, old_BT = (p.detach().exp().clamp(max=1 - 1e-7) for p in (logprobs_BT, old_logprobs_BT))
    kl_BT = old_BT * (old_logprobs_BT - logprobs_BT.detach())
    kl_BT = kl_BT + (1 - old_BT) * (torch.log1p(-old_BT) - torch.log1p(-now_BT))
    # The distance has no sign of its own; the direction gives it one.
    return beyond(kl_BT * (now_BT - old_BT).sign(), advantages_BT, -clip_low, clip_high)


@loss("dppo_kl", clipped=dropped_by_kl)
def dppo_kl(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    clip_low: float = 0.05,
    clip_high: float = 0.05,
) -> torch.Tensor:
    """As dppo_tv, with the KL of sampling this token or another as the distance.

    [B, T] -> [B, T].  Source: DPPO (arXiv 2602.04879), binary KL(old || now).
    """
    tensors = (logprobs_BT, old_logprobs_BT, advantages_BT)
    return kept_policy_gradient(*tensors, ~dropped_by_kl(*tensors, None, clip_low, clip_high))


@loss(
    "gmpo",
    unit="sequence",
    aggregation="sequence_mean",
    separable=False,
    clipped=clipped_log_ratios,
)
def gmpo(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    clip_low: float = 0.4,
    clip_high: float = 0.4,
    *,
    mask_BT: torch.Tensor,
) -> torch.Tensor:
    """-A exp(mean_t of log ratios, each clipped on the side of its advantage first).

    [B, T] -> [B, T]: the completion's one number stands at each of its tokens, so that it goes with
    sequence_mean.
    Source: GMPO (arXiv 2507.20673).
    """
    log_ratio_BT = logprobs_BT - old_logprobs_BT
    clipped_BT = log_ratio_BT.clamp(-clip_low, clip_high)
    good_BT = torch.minimum(log_ratio_BT, clipped_BT)
    bad_BT = torch.maximum(log_ratio_BT, clipped_BT)
    ratio_B1 = row_mean(torch.where(advantages_BT > 0, good_BT, bad_BT), mask_BT).exp()
    return -row_mean(advantages_BT, mask_BT) * ratio_B1.expand_as(logprobs_BT)


@loss("quadratic", every_row=True)
def quadratic(
    logprobs_BT: torch.Tensor,
    old_logprobs_BT: torch.Tensor,
    advantages_BT: torch.Tensor,
    tau: float = 0.1,
) -> torch.Tensor:
    """-(A logp - tau/2 (logp - old)^2): a policy gradient with a square that holds the policy where
    the tokens were sampled. [B, T] -> [B, T].

    Source: online policy mirror descent, Kimi k1.5 (arXiv 2501.12599); veRL's DRO.
    Differs from Kimi: the square is taken of each token, not of the whole completion.
    """
    moved_BT = logprobs_BT - old_logprobs_BT
    return -(advantages_BT * logprobs_BT - 0.5 * tau * moved_BT.square())
