"""The engine for what `transformers` runs: rows, drawing and records are the native engine's, the
maths is the model's own, with its own cache.

Prompts are padded on the left, and rows begin together: a cache of theirs has one length for all.
A model whose padding shows gets prompts of one length at a time; one without a cache of keys and
values reads its rows anew for every token. Slow, and right.

Shapes: P prompts, B rows, S positions, V vocabulary.
"""

import copy
from collections import deque

import torch

from aha.core.errors import ConfigError
from aha.model.hf_policy import HfPolicy, HfShape
from aha.rollout.native import NativeEngine
from aha.rollout.slots import Row, Slots

MAX_TRACE = 1e-3  # of padding in a logit, against the logits' deviation: rounding leaves less


class HfWeights:
    """A frozen copy of a decoder in the type that generation wants."""

    def __init__(self, policy: HfPolicy, dtype: torch.dtype):
        # In eval mode: layers that train would drop their cache to be computed again.
        self.net = copy.deepcopy(policy.net).requires_grad_(False).eval()
        # Parameters alone: a rotary frequency in bf16 is off by a turn after a few hundred tokens.
        for parameter in self.net.parameters():
            parameter.data = parameter.data.to(dtype)
        self.config: HfShape = policy.config
        self.device, self.dtype, self.takes = policy.device, dtype, policy.takes

    @torch.no_grad()
    def read(self, tokens_BS, mask_BS, new: int, past=None):
        """(logits [B, V] in float32 after the last `new` tokens, the cache behind them or None).

        `mask_BS` is 0 on the left of a row that is shorter than others.
        """
        places_BS = (mask_BS.cumsum(1) - 1).clamp(min=0)
        given = {"attention_mask": mask_BS, "use_cache": True}
        optional = {
            "position_ids": places_BS[:, -new:],
            "past_key_values": past,
            "logits_to_keep": 1,
        }
        given |= {name: value for name, value in optional.items() if name in self.takes}
        found = self.net(input_ids=tokens_BS[:, -new:], **given)
        return found.logits[:, -1].float(), getattr(found, "past_key_values", None)


class HfCache:
    """The rows' tokens so far, which of them are padding, and what the model keeps of them."""

    def __init__(self, tokens_BS: torch.Tensor, mask_BS: torch.Tensor, past=None):
        self.tokens, self.mask, self.past = tokens_BS, mask_BS, past
        self.lengths = mask_BS.sum(1)

    @property
    def capacity(self) -> int:
        return self.tokens.shape[1]

    def reserve(self, positions: int) -> None:
        """Nothing to do: these caches grow by themselves."""

    def keep(self, rows: torch.Tensor) -> None:
        """Row i becomes what row `rows[i]` was; a row may come several times."""
        self.tokens, self.mask = self.tokens[rows], self.mask[rows]
        self.lengths = self.lengths[rows]
        if self.past is not None and len(rows):
            self.past.reorder_cache(rows)

    def place(self, first: int, source: "HfCache", rows: torch.Tensor) -> None:
        """Continue the prompts of `source`, repeated as `rows` says."""
        assert first == 0, "rows that begin beside others"
        source.keep(rows)
        self.tokens, self.mask, self.past = source.tokens, source.mask, source.past
        self.lengths = source.lengths

    def append(self, tokens_B: torch.Tensor) -> None:
        self.tokens = torch.cat([self.tokens, tokens_B[:, None]], 1)
        self.mask = torch.cat([self.mask, torch.ones_like(tokens_B[:, None])], 1)
        self.lengths = self.lengths + 1


class HfEngine(NativeEngine):
    """Implements `Engine` with any causal model of `transformers`."""

    weights: HfWeights

    def load(self, policy: HfPolicy, version: int) -> None:
        if self.loop in ("compiled", "graphs"):
            raise ConfigError(
                f"rollout.loop {self.loop!r} with {policy.config.architecture}",
                "a model of our own decoder",
                "--rollout.loop auto",
            )
        first = not hasattr(self, "weights")
        self.weights, self.compiled = HfWeights(policy, self.dtype), None
        self.version = version
        if first:
            self.pads = not self.padding_shows()

    def padding_shows(self) -> bool:
        """Whether padding on the left changes what comes after it."""
        vocabulary = self.weights.config.vocab_size
        long = tuple(token % vocabulary for token in range(1, 12))
        row = long[:5]
        both, _ = self.prefill([row, long])
        alone, _ = self.prefill([row])
        return not (both[0] - alone[0]).abs().max() <= MAX_TRACE * alone.std()

    @property
    def uses_graphs(self) -> bool:
        return False

    def new_cache(self, rows: int) -> HfCache:
        empty = torch.zeros((rows, 0), dtype=torch.long, device=self.weights.device)
        return HfCache(empty, empty)

    def prefill(self, prompts: list[tuple[int, ...]]) -> tuple[torch.Tensor, HfCache]:
        """Read P prompts side by side: (logits [P, V] after each, their cache)."""
        width = max(map(len, prompts))
        rows = [[0] * (width - len(prompt)) + [*prompt] for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        tokens_PS, mask_PS = (torch.tensor(x, device=self.weights.device) for x in (rows, mask))
        logits_PV, past = self.weights.read(tokens_PS, mask_PS, width)
        return logits_PV, HfCache(tokens_PS, mask_PS, past)

    def step(self, cache: HfCache, tokens_B: torch.Tensor) -> torch.Tensor:
        cache.append(tokens_B)
        new = cache.capacity if cache.past is None else 1
        logits_BV, cache.past = self.weights.read(cache.tokens, cache.mask, new, cache.past)
        return logits_BV

    def may_join(self, slots: Slots, group_size: int) -> bool:
        return False

    def fitting(self, room: int, waiting: deque[list[Row]]) -> int:
        room = min(room, len(waiting))
        if self.pads:
            return room
        sizes = [len(waiting[place][0].prompt.tokens) for place in range(room)]
        return next((place for place, size in enumerate(sizes) if size != sizes[0]), room)
