"""The interface of every model that is trained here: ours, or one that `transformers` runs.

Shapes: B rows, T tokens, V vocabulary.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import nn

from aha.batching.layout import Layout


class Policy(Protocol):
    """A torch module: `aha.model.transformer.Transformer` or `aha.model.hf_policy.HfPolicy`.

    Rows begin at position 0 and are padded on the right. `dtype` is the type of the arithmetic;
    parameters that train stay float32. Log-probs and entropies are in nats, float32.
    """

    config: Any  # at least vocab_size, max_position_embeddings, model_type, architecture
    recompute: bool  # activations again in the backward pass: slower, less memory

    @property
    def supports_layout(self) -> bool:
        """Whether a `layout` saves work. A model without that support ignores it."""

    @property
    def device(self) -> torch.device: ...

    @property
    def adapter(self) -> nn.Module | None:
        """The first layer's LoRA adapter: None where the whole model trains."""

    def weights(self) -> dict[str, torch.Tensor]:
        """The tensors of the model itself, without adapters, under Hugging Face's names."""

    def trainable(self) -> list[nn.Parameter]:
        """The parameters for an optimiser."""

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...

    def num_parameters(self) -> int:
        """Without the adapters' own."""

    def to(self, *args: Any, **kwargs: Any) -> Any:
        """As `torch.nn.Module.to`."""

    def state_dict(self) -> dict[str, torch.Tensor]:
        """As `torch.nn.Module.state_dict`: weights and adapters."""

    def load_state_dict(self, state_dict: Mapping[str, torch.Tensor], strict: bool = True) -> Any:
        """As `torch.nn.Module.load_state_dict`."""

    def logits(
        self,
        tokens_BT: torch.Tensor,
        start: int = 1,
        dtype: torch.dtype = torch.float32,
        temperature: float = 1.0,
    ) -> torch.Tensor:
        """The logits that predict the tokens from `start` on: [B, T - start, V]."""

    def token_logprobs(
        self,
        tokens_BT: torch.Tensor,
        start: int = 1,
        dtype: torch.dtype = torch.float32,
        temperature: float = 1.0,
        layout: Layout | None = None,
    ) -> torch.Tensor:
        """log p(tokens[t] | tokens[<t]) for t >= start: [B, T - start]. With a layout only the
        values at the completions' own tokens mean something."""

    def logprobs_and_entropy(
        self,
        tokens_BT: torch.Tensor,
        start: int = 1,
        dtype: torch.dtype = torch.float32,
        temperature: float = 1.0,
        entropy: bool = False,
        layout: Layout | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """`token_logprobs`, and the entropy [B, T - start] of each token's distribution, or None if
        `entropy` is False."""
