"""Policy losses, one number for every token, and the ways to add them up.

A loss maps (logprobs, old_logprobs, advantages), all [B, T], to per-token losses [B, T] that are
to be minimised. `logprobs` are the policy's now, `old_logprobs` those under which the tokens were
drawn; the latter never carry gradient.
"""

from collections.abc import Callable

import torch

LOSSES: dict[str, Callable] = {}
MAX_LOG_RATIO = 20.0  # keeps exp() finite; no sane ratio comes near e^20


def loss(name: str):
    """Register a loss under the name that recipes use."""

    def register(function: Callable) -> Callable:
        LOSSES[name] = function
        return function

    return register


@loss("pg")
def policy_gradient(logprobs_BT, old_logprobs_BT, advantages_BT, clip_low=0.2, clip_high=0.2):
    """-A * logp: REINFORCE. Exact when each batch is used for one update, the default here.

    Source: Williams 1992. `old_logprobs` and the clips are not used.
    """
    return -advantages_BT * logprobs_BT


@loss("ppo_clip")
def ppo_clip(logprobs_BT, old_logprobs_BT, advantages_BT, clip_low=0.2, clip_high=0.2):
    """max(-A r, -A clip(r, 1 - low, 1 + high)) with r = exp(logp - old).

    Source: Schulman et al. 2017 (arXiv 1707.06347); separate bounds as in DAPO (arXiv 2503.14476).
    """
    log_ratio = (logprobs_BT - old_logprobs_BT).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    ratio = log_ratio.exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return torch.maximum(-advantages_BT * ratio, -advantages_BT * clipped)


AGGREGATIONS = ("token_mean", "sequence_mean", "sequence_sum")


def token_weights(mask_BT, aggregation: str, totals: "Totals") -> torch.Tensor:
    """[B, T] weights such that sum(weights * per-token loss) over all parts is the step's loss.

    The denominators are those of the whole step, all micro-batches and ranks, so that slicing
    cannot change the gradient (traps T8-T10).
      token_mean     1 / tokens of the step: every token counts alike        (DAPO)
      sequence_mean  1 / (rows * own length): every completion counts alike  (GRPO)
      sequence_sum   1 / (rows * max_new_tokens): long ones count for more   (Dr. GRPO)
    """
    if aggregation == "token_mean":
        return mask_BT / totals.tokens
    if aggregation == "sequence_mean":
        lengths = mask_BT.sum(1, keepdim=True).clamp(min=1)
        return mask_BT / (totals.rows * lengths)
    assert aggregation == "sequence_sum", aggregation
    return mask_BT / (totals.rows * totals.max_new_tokens)


class Totals:
    """The denominators of one optimiser step."""

    def __init__(self, rows: int, tokens: int, max_new_tokens: int):
        assert rows > 0 and tokens > 0, "a step without tokens"
        self.rows, self.tokens, self.max_new_tokens = rows, tokens, max_new_tokens
