"""The native engine: batched generation in plain torch, on any device.

A prompt is read once for its whole group. Rows live side by side in one static cache; finished
rows are cleared away by closing the gaps, and waiting rows take their place. Every row draws from
a random stream of its own.

Shapes: B rows, V vocabulary.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import torch

from aha.core.errors import ConfigError
from aha.core.records import Completion, Prompt
from aha.core.seeds import seed_for
from aha.machine.c_build import NotCompiled
from aha.machine.dtype import compute_dtype
from aha.model.decode import InferenceWeights, KVCache, prefill, step
from aha.model.tokenizer import Tokenizer
from aha.model.transformer import Transformer
from aha.rollout.c_loop import CompiledLoop
from aha.rollout.cuda_graphs import CACHE_BLOCK, LOOK, Ticks
from aha.rollout.engine import Sampling
from aha.rollout.slots import Row, Slots

# auto: the loop in C on a CPU, where it can be had; graphs on a GPU.
Loop = Literal["auto", "compiled", "graphs", "torch"]
COMPACT_BELOW = 0.8  # close gaps when fewer than this share of the rows is alive


class NativeEngine:
    """Implements `Engine` with our own decoder.

    `max_rows` bounds the cache: groups beyond it wait until there is room for a whole one, so
    that every prompt is read exactly once.
    """

    def __init__(
        self,
        policy: Transformer,
        tokenizer: Tokenizer,
        dtype: str = "auto",
        max_rows: int = 512,
        loop: Loop = "auto",
    ):
        self.tokenizer, self.max_rows, self.loop = tokenizer, max_rows, loop
        self.dtype = compute_dtype(dtype, policy.device)
        self.stop = torch.tensor(tokenizer.stop_ids)
        self.load(policy, 0)

    def load(self, policy: Transformer, version: int) -> None:
        # On a GPU memory is what there is least of; on a CPU the loop in C wants all in one.
        share = policy.device.type != "cpu"
        self.weights = InferenceWeights.of(policy, self.dtype, share)
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

    def release(self) -> None:
        self.weights = self.compiled = None

    @property
    def uses_graphs(self) -> bool:
        return self.loop == "graphs" or (self.loop == "auto" and self.weights.device.type == "cuda")

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[list[Completion]]:
        groups = self.make_groups(prompts, sampling)
        if self.compiled:
            self.run_compiled(groups, sampling)
        else:
            for _ in self.run(groups, sampling, LOOK if self.uses_graphs else 1):
                pass
        return [[self.completed(row) for row in group] for group in groups]

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[str]:
        """The text of one completion, token by token: the same one that `generate` returns."""
        sampling = replace(sampling, group_size=1)
        told = text = ""
        for slots in self.run(self.make_groups([prompt], sampling), sampling):
            text = self.tokenizer.decode(slots.tokens[0, : int(slots.used[0])].tolist())
            # A character of several tokens reads as U+FFFD until it is whole: not told before.
            if not text.endswith("\ufffd"):
                yield text[len(told) :]
                told = text
        yield text[len(told) :]

    def watch(self, prompts: list[Prompt], sampling: Sampling) -> Iterator[list[list[Row]]]:
        """What `generate` returns, in the making: after every token the groups' rows, filled in
        up to there. `completed` makes a record of a row at any time after its first token."""
        groups = self.make_groups(prompts, sampling)
        for slots in self.run(groups, sampling):
            slots.fill_in(slots.live.nonzero().flatten())
            yield groups

    def make_groups(self, prompts: list[Prompt], sampling: Sampling) -> list[list[Row]]:
        return make_groups(prompts, sampling, self.weights.config.max_position_embeddings)

    def run_compiled(self, groups: list[list[Row]], sampling: Sampling) -> None:
        """Fill in all rows in one call."""
        if not groups:
            return
        tokens, logprobs, entropies, counts = self.compiled.generate(
            [group[0].prompt.tokens for group in groups],
            [[row.seed for row in group] for group in groups],
            self.stop.tolist(),
            sampling,
        )
        rows = [row for group in groups for row in group]
        for b, row in enumerate(rows):
            row.tokens = tokens[b, : counts[b]].tolist()
            row.logprobs = logprobs[b, : counts[b]].tolist()
            row.entropies = entropies[b, : counts[b]].tolist()

    def run(self, groups: list[list[Row]], sampling: Sampling, look: int = 1) -> Iterator[Slots]:
        """Fill in all rows; yields after every `look` tokens, so that a caller can watch."""
        if not groups:
            return
        G = sampling.group_size
        size = min(max(self.max_rows // G, 1), len(groups)) * G
        longest_prompt = max(len(group[0].prompt.tokens) for group in groups)
        slots = Slots(self.new_cache(size), size, longest_prompt, sampling, self.stop)
        if look > 1:
            slots.cache.block = CACHE_BLOCK
        ticks = Ticks(slots, lambda width: self.tick(slots, width))
        waiting = deque(groups)
        while waiting or slots.num_alive:
            if waiting and (self.may_join(slots, G) or not slots.num_alive):
                coming = [waiting.popleft() for _ in range(self.fitting(slots.free // G, waiting))]
                first = len(slots.rows)
                slots.advance(first, self.admit(slots, coming))
            else:
                # The longest row may have ended since: an upper bound.
                slots.longest = min(slots.longest + look, slots.limit)
                slots.cache.reserve(slots.longest)
                if look > 1:
                    ticks.run(look)
                else:
                    self.tick(slots, len(slots.rows))
            slots.look()
            yield slots
            if slots.num_alive < COMPACT_BELOW * len(slots.rows):
                slots.close_gaps()

    def tick(self, slots: Slots, width: int) -> None:
        """One more token for the first `width` rows."""
        last_B = slots.last[:width].to(slots.cache.lengths.device)
        slots.advance(0, self.step(slots.cache, last_B))

    def admit(self, slots: Slots, groups: list[list[Row]]) -> torch.Tensor:
        """Read the prompts of new groups; returns the logits [B, V] after them, row by row."""
        logits_PV, cache = self.prefill([group[0].prompt.tokens for group in groups])
        which = torch.arange(len(groups), device=logits_PV.device)
        which = which.repeat_interleave(len(groups[0]))
        slots.admit([row for group in groups for row in group], cache, which)
        return logits_PV[which]

    # What the engine of another back end does otherwise (see aha.rollout.hf_engine).

    def new_cache(self, rows: int) -> KVCache:
        return KVCache(self.weights, rows, 0)

    def prefill(self, prompts: list[tuple[int, ...]]) -> tuple[torch.Tensor, KVCache]:
        return prefill(self.weights, prompts)

    def step(self, cache: KVCache, tokens_B: torch.Tensor) -> torch.Tensor:
        return step(self.weights, cache, tokens_B)

    def may_join(self, slots: Slots, group_size: int) -> bool:
        """Whether groups may begin beside rows that are under way."""
        return slots.free >= max(group_size, slots.size // 8)

    def fitting(self, room: int, waiting: deque[list[Row]]) -> int:
        """How many of the groups that wait begin together, where there is room for some."""
        return min(room, len(waiting))

    def completed(self, row: Row) -> Completion:
        ended = row.tokens[-1] in self.tokenizer.stop_ids
        return Completion(
            prompt=row.prompt,
            tokens=tuple(row.tokens),
            logprobs=tuple(row.logprobs),
            text=self.tokenizer.decode(row.tokens),
            finish="stop" if ended else "length",
            version=self.version,
            entropies=tuple(row.entropies),
        )


def make_groups(prompts: list[Prompt], sampling: Sampling, room: int) -> list[list[Row]]:
    """A row for every completion; a prompt that is asked twice draws other seeds each time."""
    groups, met = [], Counter()
    for place, prompt in enumerate(prompts):
        if len(prompt.tokens) + sampling.max_new_tokens > room:
            raise ConfigError(
                f"max_new_tokens {sampling.max_new_tokens} after a prompt of "
                f"{len(prompt.tokens)} tokens",
                f"at most the model's {room} positions together",
                f"max_new_tokens = {max(1, room - len(prompt.tokens))}",
            )
        name = (prompt.problem.id, met[prompt.problem.id])
        met[prompt.problem.id] += 1
        members = range(sampling.group_size)
        groups.append([Row(prompt, place, seed_for(sampling.seed, *name, g)) for g in members])
    return groups
