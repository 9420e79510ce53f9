"""Rollout correction: weights for tokens that another policy sampled than the one that is trained.

`log_rho_BT` = log-prob by the trainer - log-prob as recorded when the token was sampled. Every
correction maps (log_rho_BT, mask_BT) to weights [B, T] without gradient, within the bounds `low`
and `high` that it names. With a gradient, the policy could raise its objective by moving away from
the policy that sampled the tokens.

Why weights: the mean of x over tokens that q sampled is the mean of x under q. Weighted by rho =
p / q it is the mean under p, the policy that is trained, as sum(q * p / q * x) = sum(p * x).
Example: q = (.5, .5) and p = (.8, .2) weigh the first token by 1.6 and the second by .4. A rare
token that q sampled by luck may weigh a thousand times as much, and a row multiplies its tokens'
weights: so weights are capped or rows left out, each of which trades variance for bias in its own
way. log rho is clamped to +-20 before exp, so that no weight is infinite.

Never multiply them into a ratio that is already taken against the recorded log-probs: that would
correct twice.
"""

from __future__ import annotations

from dataclasses import dataclass

from aha.algo.lazy_torch import torch
from aha.algo.ratios import bounded, row_mean, row_sum
from aha.algo.registry import Registry, without_gradient


@dataclass(frozen=True)
class CorrectionFacts:
    """Nothing has to be known of a correction but its name and the bounds that it reads."""


CORRECTIONS: Registry[CorrectionFacts] = Registry(
    "correction",
    CorrectionFacts,
    {"correction_low": ("low",), "correction_high": ("high",)},
    absent="none",
    gradient=False,
    inputs=(),
    num_positional=2,
)
correction = CORRECTIONS  # @correction("name")
DEFAULT = "token_tis"  # of what vLLM samples, where the recipe leaves it open


def mismatch_of(log_rho_N: torch.Tensor) -> dict[str, float]:
    """How far the trainer is from the policy that sampled the tokens, before any bound is applied.

    `mismatch_kl`: k3 estimate of KL(sampled || trained), nats a token. `mismatch_ess`: the share of
    the tokens that would say as much without weights. `mismatch_max`: the largest ratio.
    """
    if not len(log_rho_N):
        return {}
    rho_N = bounded(log_rho_N.double()).exp()
    return {
        "mismatch_kl": float((rho_N - 1 - log_rho_N).mean()),
        "mismatch_ess": float(rho_N.sum() ** 2 / (len(rho_N) * rho_N.square().sum())),
        "mismatch_max": float(rho_N.max()),
    }


def inside(values: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """1 where a value lies within the bounds, else 0."""
    return ((values >= low) & (values <= high)).to(values.dtype)


@correction("token_tis")
def token_tis(
    log_rho_BT: torch.Tensor, mask_BT: torch.Tensor, low: float = 0.0, high: float = 2.0
) -> torch.Tensor:
    """min(rho_t, high): truncated importance weights, token by token. Low variance, biased.

    [B, T] -> [B, T]. A `low` above 0 bounds the weight from below as well.
    Source: Yao et al. 2025, 'Your efficient RL framework secretly brings you off-policy RL'.
    """
    return bounded(log_rho_BT).exp().clamp(low, high) * mask_BT


@correction("sequence_tis")
def sequence_tis(
    log_rho_BT: torch.Tensor, mask_BT: torch.Tensor, low: float = 0.0, high: float = 2.0
) -> torch.Tensor:
    """min(product of rho, high), the same weight for all tokens of a completion. [B, T] -> [B, T].

    Source: as token_tis; unbiased but for the cap.
    """
    return bounded(row_sum(log_rho_BT, mask_BT)).exp().clamp(low, high) * mask_BT


@correction("icepop")
def icepop(
    log_rho_BT: torch.Tensor, mask_BT: torch.Tensor, low: float = 0.5, high: float = 5.0
) -> torch.Tensor:
    """rho_t inside [low, high], else 0: tokens on which the two disagree are left out.

    [B, T] -> [B, T].  Source: IcePop (Ling team 2025).
    """
    rho_BT = bounded(log_rho_BT).exp()
    return rho_BT * inside(rho_BT, low, high) * mask_BT


@correction("sequence_mis")
def sequence_mis(
    log_rho_BT: torch.Tensor, mask_BT: torch.Tensor, low: float = 0.5, high: float = 2.0
) -> torch.Tensor:
    """1 for completions whose product of rho lies inside [low, high], else 0. [B, T] -> [B, T].

    Source: masked importance sampling of veRL's rollout correction. Long completions leave the
    bounds by length alone; the geometric one does not depend on it.
    """
    return inside(bounded(row_sum(log_rho_BT, mask_BT)).exp(), low, high) * mask_BT


@correction("geometric")
def geometric(
    log_rho_BT: torch.Tensor, mask_BT: torch.Tensor, low: float = 0.999, high: float = 1.001
) -> torch.Tensor:
    """1 for completions whose geometric mean of rho lies inside [low, high], else 0.

    [B, T] -> [B, T].  Source: as sequence_mis.
    """
    return inside(bounded(row_mean(log_rho_BT, mask_BT)).exp(), low, high) * mask_BT


@correction("k3_rejection")
def k3_rejection(
    log_rho_BT: torch.Tensor, mask_BT: torch.Tensor, low: float = 0.0, high: float = 0.01
) -> torch.Tensor:
    """1 for completions whose mean of rho - log rho - 1 is at most `high`, else 0.

    [B, T] -> [B, T].
    Source: as sequence_mis; the mean is the k3 estimate of KL(sampled || trained), always >= 0.
    """
    k3_BT = bounded(log_rho_BT).exp() - log_rho_BT - 1
    return inside(row_mean(k3_BT, mask_BT), low, high) * mask_BT


def normalised(weights_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """Weights with mean 1 over the tokens of the mask, so that a cap does not shrink the step."""
    mean = (weights_BT * mask_BT).sum() / mask_BT.sum().clamp(min=1)
    return weights_BT / mean.clamp(min=1e-8)


@without_gradient
def disagreement(log_rho_BT: torch.Tensor, mask_BT: torch.Tensor) -> dict[str, float]:
    """What to watch, from raw weights: capped ones would look well whatever happens.

    gap mean |log rho|, kl and k3 of KL(sampled || trained), chi2, ess the effective share of
    tokens, max the largest ratio.
    """
    tokens = mask_BT.sum()
    rho_BT = bounded(log_rho_BT).exp()

    def mean(values_BT: torch.Tensor) -> float:
        return float((values_BT * mask_BT).sum() / tokens)

    return {
        "gap": mean(log_rho_BT.abs()),
        "kl": mean(-log_rho_BT),
        "k3": mean(rho_BT - log_rho_BT - 1),
        "chi2": mean(rho_BT.square()) - 1,
        "ess": mean(rho_BT) ** 2 / mean(rho_BT.square()),
        "max": float((rho_BT * mask_BT).max()),
    }
