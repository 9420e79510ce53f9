"""The engine for models that `transformers` runs: slots, drawing and records are those of the
native engine; the model computes the logits, with its own cache.

Prompts are padded on the left, and all rows begin together: a cache of `transformers` has one
length for all of them. Where padding changes a model's logits, only prompts of one length begin
together; a model without a cache of keys and values computes its rows again for every token. That
is slow, and right.

Shapes: P prompts, B rows, S positions, V vocabulary.
"""

import copy
from collections import deque
from typing import Any

import torch

from aha.core.errors import ConfigError
from aha.model.hf_policy import HfPolicy, HfShape
from aha.model.policy import Policy
from aha.rollout.engine import Sampling
from aha.rollout.forcing import ForcingTables
from aha.rollout.slot_engine import SlotEngine
from aha.rollout.slots import Cache, SlotRow

MAX_CHANGE = (
    1e-3  # of a logit by padding, over the logits' standard deviation: more is not rounding
)


class HfWeights:
    """A frozen copy of a policy in the type of the rollout."""

    def __init__(self, policy: HfPolicy, dtype: torch.dtype):
        # In eval mode: layers in training mode would drop their cache to recompute it.
        self.net = copy.deepcopy(policy.net).requires_grad_(False).eval()
        # Parameters alone: a rotary frequency in bf16 is off by a turn after a few hundred tokens.
        for parameter in self.net.parameters():
            parameter.data = parameter.data.to(dtype)
        self.config: HfShape = policy.config
        self.device, self.dtype, self.options = policy.device, dtype, policy.options

    @torch.no_grad()
    def read(
        self, tokens_BS: torch.Tensor, mask_BS: torch.Tensor, new: int, past: Any = None
    ) -> tuple[torch.Tensor, Any]:
        """(logits [B, V] in float32 after the last `new` tokens, the cache after them, or None).

        `mask_BS` is 0 on the left of a row that is shorter than others.
        """
        positions_BS = (mask_BS.cumsum(1) - 1).clamp(min=0)
        options: dict[str, Any] = {"attention_mask": mask_BS, "use_cache": True}
        optional = {
            "position_ids": positions_BS[:, -new:],
            "past_key_values": past,
            "logits_to_keep": 1,
        }
        options |= {name: value for name, value in optional.items() if name in self.options}
        output = self.net(input_ids=tokens_BS[:, -new:], **options)
        logits_BSV: torch.Tensor = output.logits
        return logits_BSV[:, -1].float(), getattr(output, "past_key_values", None)


class HfCache:
    """The rows' tokens so far, a mask of padding, and the model's own cache."""

    block = 1

    def __init__(self, tokens_BS: torch.Tensor, mask_BS: torch.Tensor, past: Any = None):
        self.tokens, self.mask, self.past = tokens_BS, mask_BS, past
        self.lengths = mask_BS.sum(1)

    @property
    def capacity(self) -> int:
        return self.tokens.shape[1]

    def reserve(self, positions: int) -> None:
        """Nothing to do: these caches grow by themselves."""

    def compact(self, rows: torch.Tensor) -> None:
        """Row i becomes row `rows[i]`; a row may come several times."""
        self.tokens, self.mask = self.tokens[rows], self.mask[rows]
        self.lengths = self.lengths[rows]
        if self.past is not None and len(rows):
            self.past.reorder_cache(rows)

    def rewind(self, first: int, counts_B: torch.Tensor) -> None:
        """The positions stay, and are masked as padding is."""
        rows = slice(first, first + counts_B.shape[0])
        written_BS = self.mask[rows].cumsum(1)
        # Not from `lengths`, which are 0 for rows that have ended: nothing of them would be left.
        self.mask[rows] *= written_BS <= written_BS[:, -1:] - counts_B[:, None]
        self.lengths[rows] -= counts_B

    def copy_prompts(self, first: int, source: "HfCache", rows: torch.Tensor) -> None:
        """Row i becomes row `rows[i]` of the prompts; nothing else may be in the cache."""
        assert first == 0, "rows that begin while others are being generated"
        source.compact(rows)
        self.tokens, self.mask, self.past = source.tokens, source.mask, source.past
        self.lengths = source.lengths

    def append(self, tokens_B: torch.Tensor) -> None:
        """One more token for each row."""
        self.tokens = torch.cat([self.tokens, tokens_B[:, None]], 1)
        self.mask = torch.cat([self.mask, torch.ones_like(tokens_B[:, None])], 1)
        self.lengths = self.lengths + 1


class HfEngine(SlotEngine):
    """Implements `Engine` with any causal model of `transformers`."""

    weights: HfWeights | None
    pads: bool  # whether prompts of different lengths may begin together

    def load(self, policy: Policy, version: int) -> None:
        assert isinstance(policy, HfPolicy), type(policy)
        if self.loop in ("compiled", "graphs"):
            raise ConfigError(
                f"rollout.loop {self.loop!r} with {policy.config.architecture}",
                "one of Qwen2.5, Qwen3, Llama-3.2, SmolLM2 and Mistral",
                "--rollout.loop auto",
            )
        first = not hasattr(self, "pads")
        self.release()  # at a resume there is a version already, and no memory for two
        self.weights = HfWeights(policy, self.dtype)
        self.version = version
        if first:
            self.pads = not self.padding_changes_logits()

    def loaded(self) -> HfWeights:
        assert self.weights is not None, "generate() after release()"
        return self.weights

    def padding_changes_logits(self) -> bool:
        """Whether padding on the left changes the logits of a row."""
        vocabulary = self.loaded().config.vocab_size
        long = tuple(token % vocabulary for token in range(1, 12))
        short = long[:5]
        padded, _ = self.prefill([short, long])
        alone, _ = self.prefill([short])
        return not bool((padded[0] - alone[0]).abs().max() <= MAX_CHANGE * alone.std())

    def new_cache(self, rows: int) -> HfCache:
        empty = torch.zeros((rows, 0), dtype=torch.long, device=self.loaded().device)
        return HfCache(empty, empty)

    def prefill(self, prompts: list[tuple[int, ...]]) -> tuple[torch.Tensor, HfCache]:
        width = max(map(len, prompts))
        rows = [[0] * (width - len(prompt)) + [*prompt] for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        tokens_PS, mask_PS = (torch.tensor(x, device=self.loaded().device) for x in (rows, mask))
        logits_PV, past = self.loaded().read(tokens_PS, mask_PS, width)
        return logits_PV, HfCache(tokens_PS, mask_PS, past)

    def decode_step(self, cache: Cache, tokens_B: torch.Tensor) -> torch.Tensor:
        assert isinstance(cache, HfCache)
        cache.append(tokens_B)
        new = cache.capacity if cache.past is None else 1
        logits_BV, cache.past = self.loaded().read(cache.tokens, cache.mask, new, cache.past)
        return logits_BV

    def tables_of(self, sampling: Sampling) -> ForcingTables | None:
        tables = super().tables_of(sampling)
        if tables is not None and tables.waits and not self.pads:
            raise ConfigError(
                f"waits in a thought of {self.loaded().config.architecture}",
                "a model that ignores masked positions, so that an end can be taken back",
                "a maximum of thinking alone",
            )
        return tables

    def num_groups_to_start(self, free: int, waiting: deque[list[SlotRow]]) -> int:
        count = min(free, len(waiting))
        if self.pads:
            return count
        sizes = [len(waiting[index][0].prompt.tokens) for index in range(count)]
        return next((index for index, size in enumerate(sizes) if size != sizes[0]), count)
