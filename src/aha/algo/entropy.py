"""Entropy of the policy, and what keeps it from collapsing.

Reward is bought with entropy (arXiv 2505.22617). `tokens` of a mask here are those of the whole
step: a share taken of each micro-batch would depend on how the step was cut.
"""

import torch

from aha.algo.losses import ppo_clip, ratio_of


def token_entropy(logits_BTV: torch.Tensor) -> torch.Tensor:
    """-sum p log p, [B, T], in float32 or better: bfloat16 would lose the small ones (trap T23)."""
    dtype = torch.promote_types(logits_BTV.dtype, torch.float32)
    logprobs_BTV = torch.log_softmax(logits_BTV.to(dtype), -1)
    return -(logprobs_BTV.exp() * logprobs_BTV).sum(-1)


def entropy_bonus(entropies_BT: torch.Tensor, coef: float) -> torch.Tensor:
    """-coef H, to be added to the per-token loss.  Source: Williams and Peng 1991; 0.001 in
    TinyZero. A constant bonus moves the optimum (arXiv 2604.09676)."""
    return -coef * entropies_BT


def adapted_coef(coef: float, entropy: float, target: float, change: float = 0.005) -> float:
    """The bonus of the next step: more below the target entropy, less above it, never negative.

    Source: Skywork-OR1 (arXiv 2505.22312).
    """
    return max(0.0, coef + (change if entropy < target else -change))


def top_entropy(entropies_BT, mask_BT, share: float = 0.2) -> torch.Tensor:
    """Mask of the tokens whose entropy is among the top `share`: the forks of the text.

    Source: 'Beyond the 80/20 rule' (arXiv 2506.01939).
    """
    threshold = torch.quantile(entropies_BT[mask_BT.bool()], 1 - share)
    return (entropies_BT >= threshold).to(mask_BT.dtype) * mask_BT


def covariances(logprobs_BT, advantages_BT, mask_BT) -> torch.Tensor:
    """(A - mean A) (logp - mean logp): the tokens with much of it spend the entropy.

    Source: 'The entropy mechanism' (arXiv 2505.22617).
    """
    tokens = mask_BT.sum()
    logprobs_BT = logprobs_BT.detach()
    credits = advantages_BT - (advantages_BT * mask_BT).sum() / tokens
    return credits * (logprobs_BT - (logprobs_BT * mask_BT).sum() / tokens)


def kl_cov(logprobs_BT, old_logprobs_BT, advantages_BT, mask_BT, share=0.002, coef=1.0):
    """-A r, with coef |logp - old| added for the top `share` of tokens by covariance.

    Source: KL-Cov (arXiv 2505.22617): 0.002 for 7B, 0.0002 for 32B. At least one token is held.
    """
    losses_BT = -advantages_BT * ratio_of(logprobs_BT, old_logprobs_BT)
    covs_BT = covariances(logprobs_BT, advantages_BT, mask_BT)
    covs_BT = covs_BT.masked_fill(mask_BT == 0, -torch.inf)
    count = max(1, int(share * mask_BT.sum().item()))
    held_BT = torch.zeros_like(covs_BT).flatten()
    held_BT[covs_BT.flatten().topk(count).indices] = 1.0
    return losses_BT + coef * (logprobs_BT - old_logprobs_BT).abs() * held_BT.view_as(covs_BT)


def clip_cov(
    logprobs_BT,
    old_logprobs_BT,
    advantages_BT,
    mask_BT,
    share=2e-4,
    bounds=(1.0, 5.0),
    clips=(1, 1),
):
    """PPO's clip, with tokens taken out whose covariance lies inside `bounds`.

    Of those at most `share` of all tokens go, at least one.
    Source: Clip-Cov (arXiv 2505.22617). Differs: the largest covariances go, not a random draw,
    so that a step needs no generator.
    """
    losses_BT = ppo_clip(logprobs_BT, old_logprobs_BT, advantages_BT, *clips)
    unclipped_BT = -advantages_BT * ratio_of(logprobs_BT, old_logprobs_BT)
    covs_BT = covariances(logprobs_BT, advantages_BT, mask_BT)
    inside_BT = (covs_BT > bounds[0]) & (covs_BT < bounds[1]) & mask_BT.bool()
    inside_BT &= losses_BT <= unclipped_BT  # what PPO has clipped has no gradient to take away
    count = min(max(1, int(share * mask_BT.sum().item())), int(inside_BT.sum()))
    ranked = covs_BT.masked_fill(~inside_BT, -torch.inf).flatten().topk(count).indices
    keep_BT = torch.ones_like(losses_BT).flatten()
    keep_BT[ranked] = 0.0
    return losses_BT * keep_BT.view_as(losses_BT)
