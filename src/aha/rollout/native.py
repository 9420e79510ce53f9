"""The native engine: batched generation with our own transformer, on any device.

On a CPU the whole loop runs in C, if that can be built. On a GPU decode steps are CUDA graphs. In
all other cases it is plain torch. `open_engine` chooses between this engine and `HfEngine`.
"""

import torch

from aha.core.errors import ConfigError
from aha.machine.c_build import NotCompiled
from aha.model.decode import InferenceWeights, KVCache, decode_step, prefill
from aha.model.hf_policy import HfPolicy
from aha.model.lora import as_transformer
from aha.model.policy import Policy
from aha.model.tokenizer import Tokenizer
from aha.rollout.c_loop import CompiledLoop
from aha.rollout.engine import Sampling
from aha.rollout.hf_engine import HfEngine
from aha.rollout.slot_engine import Loop, SlotEngine
from aha.rollout.slots import Cache, SlotRow, Slots


class NativeEngine(SlotEngine):
    """Implements `Engine` with `Transformer`."""

    weights: InferenceWeights | None
    compiled: CompiledLoop | None

    def load(self, policy: Policy, version: int) -> None:
        # On a GPU memory is scarce; on a CPU the loop in C needs all weights packed, adapters
        # merged.
        share = policy.device.type != "cpu"
        self.weights = InferenceWeights.of(as_transformer(policy), self.dtype, share)
        self.version = version
        self.compiled = None
        if self.loop in ("auto", "compiled"):
            try:
                self.compiled = CompiledLoop(self.weights)
            except NotCompiled as reason:
                if self.loop == "compiled":
                    raise ConfigError(
                        f"rollout.loop 'compiled': {reason}", "a C compiler", "use 'torch'"
                    ) from None

    def loaded(self) -> InferenceWeights:
        assert self.weights is not None, "generate() after release()"
        return self.weights

    def release(self) -> None:
        self.weights = self.compiled = None

    @property
    def uses_graphs(self) -> bool:
        on_gpu = self.loaded().device.type == "cuda"
        return self.loop == "graphs" or (self.loop == "auto" and on_gpu)

    def fill_groups(self, groups: list[list[SlotRow]], sampling: Sampling) -> None:
        if self.compiled is not None:
            self.run_compiled(self.compiled, groups, sampling)
        else:
            super().fill_groups(groups, sampling)

    def run_compiled(
        self, compiled: CompiledLoop, groups: list[list[SlotRow]], sampling: Sampling
    ) -> None:
        """Generate all rows in calls into C of at most `max_rows` rows, and of one group at least:
        a call holds the caches of all its prompts."""
        at_once = max(self.max_rows // sampling.group_size, 1)
        for first in range(0, len(groups), at_once):
            self.call_compiled(compiled, groups[first : first + at_once], sampling)

    def call_compiled(
        self, compiled: CompiledLoop, groups: list[list[SlotRow]], sampling: Sampling
    ) -> None:
        """Generate the rows of some groups in one call into C."""
        generated = compiled.generate(
            [group[0].prompt.tokens for group in groups],
            [[row.seed for row in group] for group in groups],
            self.stop.tolist(),
            sampling,
            self.tables_of(sampling),
        )
        rows = [row for group in groups for row in group]
        for b, row in enumerate(rows):
            count = generated.counts[b]
            row.tokens = generated.tokens[b, :count].tolist()
            row.logprobs = generated.logprobs[b, :count].tolist()
            row.entropies = generated.entropies[b, :count].tolist()
            row.forced = generated.forced[b, :count].astype(bool).tolist()

    def new_cache(self, rows: int) -> KVCache:
        return KVCache(self.loaded(), rows, 0)

    def prefill(self, prompts: list[tuple[int, ...]]) -> tuple[torch.Tensor, KVCache]:
        return prefill(self.loaded(), prompts)

    def decode_step(self, cache: Cache, tokens_B: torch.Tensor) -> torch.Tensor:
        assert isinstance(cache, KVCache)
        return decode_step(self.loaded(), cache, tokens_B)

    def can_join(self, slots: Slots, group_size: int) -> bool:
        return slots.free >= max(group_size, slots.size // 8)


def open_engine(
    policy: Policy,
    tokenizer: Tokenizer,
    dtype: str = "auto",
    max_rows: int = 512,
    loop: Loop = "auto",
) -> SlotEngine:
    """The native engine for our own transformer; the slower `HfEngine` for all other models."""
    kind: type[SlotEngine] = HfEngine if isinstance(policy, HfPolicy) else NativeEngine
    return kind(policy, tokenizer, dtype, max_rows, loop)
