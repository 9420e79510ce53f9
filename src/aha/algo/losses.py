"""Policy losses, one number for every token, and the ways to add them up.

A loss maps (logprobs, old_logprobs, advantages), all [B, T], to per-token losses [B, T] that are
to be minimised. `logprobs` are the policy's now, `old_logprobs` those under which the tokens were
drawn; the latter never carry gradient. Defaults are those of each method's paper. A loss that
looks at a whole completion asks for its mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aha.algo.lazy_torch import torch
from aha.algo.registry import Registry


@dataclass(frozen=True)
class LossFacts:
    """What the rest of the program has to know of a loss."""

    unit: Literal["token", "sequence"] = "token"  # what its ratio is taken of
    ratio: bool = True  # knows that the policy may have moved since the tokens were drawn
    every_row: bool = False  # moves something where the advantage is 0: no row may be skipped
    aggregation: str | None = None  # the only one it goes with; None: any
    separable: bool = True  # a token's loss is its own, so that some tokens may be left out


LOSSES: Registry[LossFacts] = Registry(
    "loss",
    LossFacts,
    {key: (key,) for key in ("clip_low", "clip_high", "dual_clip", "tau")},
)
loss = LOSSES  # @loss("name")
MAX_LOG_RATIO = 20.0  # keeps exp() finite; no sane ratio comes near e^20


def log_ratio_of(logprobs_BT, old_logprobs_BT) -> torch.Tensor:
    return (logprobs_BT - old_logprobs_BT).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)


def ratio_of(logprobs_BT, old_logprobs_BT) -> torch.Tensor:
    return log_ratio_of(logprobs_BT, old_logprobs_BT).exp()


def row_mean(values_BT, mask_BT) -> torch.Tensor:
    """[B, 1]: the mean over a completion's own tokens; 0 for a row without any."""
    return (values_BT * mask_BT).sum(1, keepdim=True) / mask_BT.sum(1, keepdim=True).clamp(min=1)


@loss("pg", ratio=False)
def policy_gradient(logprobs_BT, old_logprobs_BT, advantages_BT):
    """-A * logp: REINFORCE. Exact when each batch is used for one update, the default here.

    Source: Williams 1992. `old_logprobs` are not used.
    """
    return -advantages_BT * logprobs_BT


@loss("ratio")
def importance_ratio(logprobs_BT, old_logprobs_BT, advantages_BT):
    """-A r with r = exp(logp - old): the policy gradient for tokens of an older policy, unclipped.

    Source: the surrogate that PPO clips (arXiv 1707.06347); KL-Cov's loss (arXiv 2505.22617).
    """
    return -advantages_BT * ratio_of(logprobs_BT, old_logprobs_BT)


def clipped_surrogate(ratio_BT, advantages_BT, clip_low, clip_high) -> torch.Tensor:
    clipped = ratio_BT.clamp(1 - clip_low, 1 + clip_high)
    return torch.maximum(-advantages_BT * ratio_BT, -advantages_BT * clipped)


@loss("ppo_clip")
def ppo_clip(
    logprobs_BT, old_logprobs_BT, advantages_BT, clip_low=0.2, clip_high=0.2, dual_clip=None
):
    """max(-A r, -A clip(r, 1 - low, 1 + high)) with r = exp(logp - old).

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
    bounded = torch.minimum(losses_BT, -advantages_BT * dual_clip)
    return torch.where(advantages_BT < 0, bounded, losses_BT)


@loss("gspo", unit="sequence", aggregation="sequence_mean")
def gspo(logprobs_BT, old_logprobs_BT, advantages_BT, clip_low=3e-4, clip_high=4e-4, *, mask_BT):
    """PPO's clip on the completion's ratio s = exp(mean_t(logp - old)).

    Each token's ratio is s in value and carries its own token's gradient. Goes with sequence_mean:
    a sum over tokens would multiply by the length once more (trap T13).
    Source: Zheng et al. 2025, GSPO (arXiv 2507.18071).
    """
    mean_B1 = row_mean(logprobs_BT - old_logprobs_BT, mask_BT).detach()
    log_ratio = mean_B1 + logprobs_BT - logprobs_BT.detach()
    ratio_BT = log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    return clipped_surrogate(ratio_BT, advantages_BT, clip_low, clip_high)


@loss("cispo")
def cispo(logprobs_BT, old_logprobs_BT, advantages_BT, clip_low=1.0, clip_high=4.0):
    """-clip(r) A logp with the clipped ratio as a constant: no token loses its gradient.

    Source: MiniMax-M1 (arXiv 2506.13585). No lower bound (1 - 1 = 0); high 4 caps r at 5.
    """
    ratio_BT = ratio_of(logprobs_BT, old_logprobs_BT).detach()
    return -ratio_BT.clamp(1 - clip_low, 1 + clip_high) * advantages_BT * logprobs_BT


@loss("sapo", aggregation="sequence_mean")
def sapo(logprobs_BT, old_logprobs_BT, advantages_BT, tau_good=1.0, tau_bad=1.05):
    """-A (4 / tau) sigmoid(tau (r - 1)): a gate that fades in place of a clip that cuts.

    Source: SAPO (arXiv 2511.20347). Goes with sequence_mean.
    """
    good = torch.full_like(advantages_BT, tau_good)
    tau_BT = torch.where(advantages_BT > 0, good, torch.full_like(good, tau_bad))
    gate_BT = torch.sigmoid(tau_BT * (ratio_of(logprobs_BT, old_logprobs_BT) - 1))
    return -advantages_BT * gate_BT * 4 / tau_BT


MAX_DPPO_RATIO = 20.0


def kept_policy_gradient(logprobs_BT, old_logprobs_BT, advantages_BT, keep_BT) -> torch.Tensor:
    """-A r logp where `keep`, r a capped constant."""
    ratio_BT = ratio_of(logprobs_BT, old_logprobs_BT).clamp(max=MAX_DPPO_RATIO)
    return -advantages_BT * (ratio_BT * keep_BT).detach() * logprobs_BT


@loss("dppo_tv")
def dppo_tv(logprobs_BT, old_logprobs_BT, advantages_BT, clip_low=0.15, clip_high=0.15):
    """Tokens drop out once their probability has moved by more than the bound, the good way.

    A difference, not a ratio: a rare token may double without leaving.
    Source: DPPO (arXiv 2602.04879), total variation.
    """
    moved_BT = logprobs_BT.exp() - old_logprobs_BT.exp()
    keep_BT = torch.where(advantages_BT > 0, moved_BT <= clip_high, -moved_BT <= clip_low)
    return kept_policy_gradient(logprobs_BT, old_logprobs_BT, advantages_BT, keep_BT)


@loss("dppo_kl")
def dppo_kl(logprobs_BT, old_logprobs_BT, advantages_BT, clip_low=0.05, clip_high=0.05):
    """As dppo_tv, with the KL of drawing this token or another as the distance.

    Source: DPPO (arXiv 2602.04879), binary KL(old || now).
    """
    # Probabilities of 1 would make log(1 - p) infinite.
    now_BT, old_BT = (p.detach().exp().clamp(max=1 - 1e-7) for p in (logprobs_BT, old_logprobs_BT))
    kl_BT = old_BT * (old_logprobs_BT - logprobs_BT.detach())
    kl_BT = kl_BT + (1 - old_BT) * (torch.log1p(-old_BT) - torch.log1p(-now_BT))
    good_BT = (kl_BT <= clip_high) | (now_BT <= old_BT)
    bad_BT = (kl_BT <= clip_low) | (now_BT >= old_BT)
    keep_BT = torch.where(advantages_BT > 0, good_BT, bad_BT)
    return kept_policy_gradient(logprobs_BT, old_logprobs_BT, advantages_BT, keep_BT)


@loss("gmpo", unit="sequence", aggregation="sequence_mean", separable=False)
def gmpo(logprobs_BT, old_logprobs_BT, advantages_BT, clip_low=0.4, clip_high=0.4, *, mask_BT):
    """-A exp(mean_t of log ratios, each clipped on the side of its advantage first).

    The completion's one number stands at each of its tokens: goes with sequence_mean.
    Source: GMPO (arXiv 2507.20673).
    """
    log_ratio = logprobs_BT - old_logprobs_BT
    clipped = log_ratio.clamp(-clip_low, clip_high)
    good_BT, bad_BT = torch.minimum(log_ratio, clipped), torch.maximum(log_ratio, clipped)
    ratio_B1 = row_mean(torch.where(advantages_BT > 0, good_BT, bad_BT), mask_BT).exp()
    return -row_mean(advantages_BT, mask_BT) * ratio_B1.expand_as(logprobs_BT)


@loss("quadratic", every_row=True)
def quadratic(logprobs_BT, old_logprobs_BT, advantages_BT, tau=0.1):
    """-(A logp - tau/2 (logp - old)^2): a policy gradient held by the square of the way gone.

    Source: online policy mirror descent, Kimi k1.5 (arXiv 2501.12599); veRL's DRO.
    Differs from Kimi: the square is taken of each token, not of the whole completion.
    """
    moved_BT = logprobs_BT - old_logprobs_BT
    return -(advantages_BT * logprobs_BT - 0.5 * tau * moved_BT.square())
