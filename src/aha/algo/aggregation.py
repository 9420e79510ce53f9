"""Ways to add up the losses of an update's tokens.

An aggregation maps a mask [B, T] of 0 and 1 to weights [B, T], such that sum(weights * per-token
loss) over all micro-batches is the loss of the update. The denominators are those of the whole
update: with denominators of its own, a micro-batch would change the gradient. Rows that left the
loss are in none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from aha.algo.lazy_torch import torch
from aha.algo.registry import Registry


@dataclass(frozen=True)
class AggregationFacts:
    """Nothing has to be known of an aggregation but its name."""


AGGREGATIONS: Registry[AggregationFacts] = Registry(
    "aggregation", AggregationFacts, inputs=("prompts",), num_positional=2
)
aggregation = AGGREGATIONS  # @aggregation("name")


class Totals:
    """The denominators of one update. `prompt_tokens` has the tokens of each prompt's
    group by a key of the prompt, never by its text: two prompts may have the same text."""

    def __init__(
        self,
        rows: int,
        tokens: int,
        max_new_tokens: int,
        prompt_tokens: Mapping[int, int] | None = None,
    ):
        assert rows > 0 and tokens > 0, "an update without tokens"
        self.rows, self.tokens, self.max_new_tokens = rows, tokens, max_new_tokens
        self.prompt_tokens = prompt_tokens or {}

    @property
    def any_prompt(self) -> int:
        """The key of one of the prompts; 0 where none are counted."""
        return next(iter(self.prompt_tokens), 0)


@aggregation("token_mean")
def token_mean(mask_BT: torch.Tensor, totals: Totals) -> torch.Tensor:
    """1 / tokens of the update: every token counts alike.

    Source: DAPO (arXiv 2503.14476), as its code has it. Its formula, and that of CISPO, sums within
    the group of a prompt, which is `prompt_mean`.
    """
    return mask_BT / totals.tokens


@aggregation("sequence_mean")
def sequence_mean(mask_BT: torch.Tensor, totals: Totals) -> torch.Tensor:
    """1 / (rows * own length): every completion counts alike.  Source: GRPO (arXiv 2402.03300)."""
    lengths = mask_BT.sum(1, keepdim=True).clamp(min=1)
    return mask_BT / (totals.rows * lengths)


@aggregation("sequence_sum")
def sequence_sum(mask_BT: torch.Tensor, totals: Totals) -> torch.Tensor:
    """1 / (rows * max_new_tokens): long completions count for more.

    Source: Dr. GRPO (arXiv 2503.20783).
    """
    return mask_BT / (totals.rows * totals.max_new_tokens)


@aggregation("sequence_total")
def sequence_total(mask_BT: torch.Tensor, totals: Totals) -> torch.Tensor:
    """1 / rows: `sequence_sum` without the constant.  Source: REINFORCE, Williams 1992."""
    return mask_BT / totals.rows


@aggregation("prompt_mean")
def prompt_mean(
    mask_BT: torch.Tensor, totals: Totals, prompts: tuple[int, ...] = ()
) -> torch.Tensor:
    """1 / (prompts * tokens of its group): every prompt counts alike.

    `prompts` has the key of each row's prompt.  Source: ScaleRL (arXiv 2510.13786).
    """
    assert len(prompts) == len(mask_BT), "prompt_mean needs to know each row's prompt"
    tokens = mask_BT.new_tensor([totals.prompt_tokens[prompt] for prompt in prompts])
    return mask_BT / (len(totals.prompt_tokens) * tokens[:, None])


def token_weights(
    mask_BT: torch.Tensor, name: str, totals: Totals, prompts: tuple[int, ...] = ()
) -> torch.Tensor:
    """[B, T] weights of the aggregation `name`."""
    weights_BT: torch.Tensor = AGGREGATIONS[name](mask_BT, totals, prompts=prompts)
    return weights_BT
