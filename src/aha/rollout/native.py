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

    weights: InferenceWeights | CompiledLoop | None
    unpacked: InferenceWeights | None

    def load(self, policy: Policy, version: int) -> None:
        # On a GPU memory is scarce; on a CPU the loop in C needs all weights packed, adapters
        # merged.
        share = policy.device.type != "cpu"
        self.release()  # at a resume there is a version already, and no memory for two
        weights = InferenceWeights.of(as_transformer(policy), self.dtype, share)
        self.weights, self.version, self.unpacked = weights, version, None
        if self.loop in ("auto", "compiled"):
            try:
                self.weights = CompiledLoop(weights)
            except NotCompiled as reason:
                if self.loop == "compiled":
                    raise ConfigError(
                        f"rollout.loop 'compiled': {reason}",
                        "a machine and a model for the loop in C",
                        "--rollout.loop auto",
                    ) from None

    @property
    def compiled(self) -> CompiledLoop | None:
        """The loop in C, where it generates."""
        return self.weights if isinstance(self.weights, CompiledLoop) else None

    def in_torch(self) -> InferenceWeights:
        """The weights for the loop in torch, which streams token by token. Those of the loop in C
        are unpacked once, and only where they are asked for: they take the same memory again."""
        weights = self.loaded()
        if isinstance(weights, CompiledLoop):
            self.unpacked = self.unpacked or weights.unpacked()
            return self.unpacked
        assert isinstance(weights, InferenceWeights)
        return weights

    def release(self) -> None:
        self.weights = self.unpacked = None

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
        return KVCache(self.in_torch(), rows, 0)

    def prefill(self, prompts: list[tuple[int, ...]]) -> tuple[torch.Tensor, KVCache]:
        return prefill(self.in_torch(), prompts)

    def decode_step(self, cache: Cache, tokens_B: torch.Tensor) -> torch.Tensor:
        assert isinstance(cache, KVCache)
        return decode_step(self.in_torch(), cache, tokens_B)

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
