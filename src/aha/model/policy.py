"""What every model that is trained here can do, ours or one that `transformers` runs.

Shapes: B rows, T tokens, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import nn

from aha.batching.layout import Layout


class Policy(Protocol):
    """A torch module: `aha.model.transformer.Transformer` or `aha.model.hf_policy.HfPolicy`.

    Rows begin at position 0 and are padded on the right. `dtype` is the type of the arithmetic;
    what trains stays float32. Log-probs and entropies are in nats, float32.
    """

    config: Any  # at least vocab_size, max_position_embeddings, model_type, architecture
    recompute: bool  # activations again in the backward pass: slower, less memory
    supports_layout: bool  # whether a layout spares it the work; it may take no notice of one

    @property
    def device(self) -> torch.device: ...

    @property
    def adapter(self) -> nn.Module | None:
        """The first layer's LoRA adapter: None where the whole model trains."""

    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors of the model itself, without adapters, under Hugging Face's names."""

    def trainable(self) -> list[nn.Parameter]: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def logits(
        self, tokens_BT, start: int = 1, dtype=torch.float32, temperature: float = 1.0
    ) -> torch.Tensor:
        """What decides about the tokens from `start` on: [B, T - start, V]."""

    def token_logprobs(
        self,
        tokens_BT,
        start: int = 1,
        dtype=torch.float32,
        temperature: float = 1.0,
        layout: Layout | None = None,
    ) -> torch.Tensor:
        """log p(tokens[t] | tokens[<t]) for t >= start: [B, T - start]. With a layout only those of
        the completions' own tokens are wanted; what stands elsewhere is some number."""

    def logprobs_and_entropy(
        self,
        tokens_BT,
        start: int = 1,
        dtype=torch.float32,
        temperature: float = 1.0,
        entropy: bool = False,
        layout: Layout | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`token_logprobs`, and the entropy [B, T - start] of each choice, or None."""
