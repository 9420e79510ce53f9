"""The native engine: batched generation in plain torch, on any device.

A prompt is read once for its whole group. Rows live side by side in one static cache; finished
rows are cleared away by closing the gaps, and waiting rows take their place. Every row draws from
a random stream of its own.

Shapes: B live rows, V vocabulary.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from aha.core.errors import ConfigError
from aha.core.records import Completion, Prompt
from aha.core.seeds import seed_for
from aha.model.compiled import NotCompiled
from aha.model.decode import InferenceWeights, KVCache, prefill, step
from aha.model.tokenizer import Tokenizer
from aha.model.transformer import Decoder
from aha.rollout.compiled import CompiledLoop
from aha.rollout.engine import Sampling, uniforms

Loop = Literal["auto", "compiled", "torch"]  # auto: the loop in C where it can be had
COMPACT_BELOW = 0.8  # close gaps when fewer than this share of the rows is alive


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """A recipe's `dtype` as torch's; "auto" is bf16 where the hardware multiplies it natively."""
    if name != "auto":
        return getattr(torch, name)
    fast = has_native_bf16() if device.type == "cpu" else device.type == "cuda"
    return torch.bfloat16 if fast else torch.float32


def has_native_bf16() -> bool:
    """Whether this CPU multiplies bf16 in hardware; without that, bf16 is slower than float32."""
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, bool)() for name in checks)


@dataclass
class Row:
    """One completion in the making: filled in when it ends."""

    prompt: Prompt
    place: int  # which prompt of the call
    seed: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    ended: bool = False


class Slots:
    """The live rows, side by side: row b of every tensor belongs to `rows[b]`.

    A row that has ended stays until the gaps are closed; its length is set to 0, so that what it
    goes on writing lands where nobody reads.
    """

    def __init__(self, cache: KVCache, size: int, longest_prompt: int, max_new: int):
        device = cache.lengths.device
        self.size, self.max_new = size, max_new
        self.cache = cache
        self.limit = longest_prompt + max_new
        self.rows: list[Row] = []
        self.alive = torch.zeros(size, dtype=torch.bool)
        self.used = torch.zeros(size, dtype=torch.long)
        self.noise = torch.zeros((size, max_new), dtype=torch.float64)
        self.tokens = torch.zeros((size, max_new), dtype=torch.long)
        self.logprobs = torch.zeros((size, max_new), dtype=torch.float32)
        self.entropies = torch.zeros((size, max_new), dtype=torch.float32)
        self.last = torch.zeros(size, dtype=torch.long, device=device)
        self.num_alive = 0
        self.longest = 0

    @property
    def free(self) -> int:
        return self.size - len(self.rows)

    def admit(self, rows: list[Row], prompts: KVCache, which: torch.Tensor) -> None:
        """Append rows whose prompts have been read: row i continues prompt `which[i]`."""
        first, last = len(self.rows), len(self.rows) + len(rows)
        self.cache.place(first, prompts, which)
        self.rows += rows
        self.alive[first:last] = True
        self.used[first:last] = 0
        noise = [torch.from_numpy(uniforms(row.seed, self.max_new)) for row in rows]
        self.noise[first:last] = torch.stack(noise)
        self.num_alive += len(rows)
        self.longest = max(self.longest, prompts.capacity)

    def write(
        self,
        first: int,
        tokens_B: torch.Tensor,
        logprobs_B: torch.Tensor,
        entropies_B: torch.Tensor,
    ) -> None:
        """Record one drawn token for each row from `first` on."""
        last = len(self.rows)
        places = self.used[first:last].clamp(max=self.max_new - 1)
        index = torch.arange(first, last)
        self.tokens[index, places] = tokens_B.cpu()
        # One way from the device for both: each is a wait for the GPU.
        both = torch.stack((logprobs_B, entropies_B)).cpu()
        self.logprobs[index, places], self.entropies[index, places] = both
        self.last[first:last] = tokens_B
        self.used[first:last] += 1

    def fill_in(self, b: int) -> None:
        """Give row b what it has drawn so far."""
        count = int(self.used[b])
        self.rows[b].tokens = self.tokens[b, :count].tolist()
        self.rows[b].logprobs = self.logprobs[b, :count].tolist()
        self.rows[b].entropies = self.entropies[b, :count].tolist()

    def retire(self, stop: torch.Tensor) -> None:
        """End the rows that drew a stop token or have no tokens left."""
        B = len(self.rows)
        used = self.used[:B]
        stopped = torch.isin(self.last[:B].cpu(), stop)
        ended = (self.alive[:B] & (stopped | (used >= self.max_new))).nonzero().flatten()
        if not len(ended):
            return
        for b in ended.tolist():
            self.fill_in(b)
            self.rows[b].ended = True
        self.alive[ended] = False
        self.cache.lengths[ended.to(self.cache.lengths.device)] = 0
        self.num_alive -= len(ended)

    def close_gaps(self) -> None:
        """Move the live rows together."""
        kept = self.alive[: len(self.rows)].nonzero().flatten()
        count = len(kept)
        for tensor in (self.used, self.noise, self.tokens, self.logprobs, self.entropies):
            tensor[:count] = tensor[kept]
        on_device = kept.to(self.last.device)
        self.last[:count] = self.last[on_device]
        self.cache.keep(on_device)
        self.rows = [self.rows[b] for b in kept.tolist()]
        self.alive[:count], self.alive[count:] = True, False
        self.longest = int(self.cache.lengths[:count].max()) if count else 0


class NativeEngine:
    """Implements `Engine` with our own decoder.

    `max_rows` bounds the cache: groups beyond it wait until there is room for a whole one, so
    that every prompt is read exactly once.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        dtype: str = "auto",
        max_rows: int = 512,
        loop: Loop = "auto",
    ):
        self.tokenizer, self.max_rows, self.loop = tokenizer, max_rows, loop
        self.dtype = compute_dtype(dtype, decoder.device)
        self.stop = torch.tensor(tokenizer.stop_ids)
        self.load(decoder, 0)

    def load(self, decoder: Decoder, version: int) -> None:
        self.weights = InferenceWeights.of(decoder, self.dtype)
        self.version = version
        self.compiled = None
        if self.loop != "torch":
            try:
                self.compiled = CompiledLoop(self.weights)
            except NotCompiled as reason:
                if self.loop == "compiled":
                    raise ConfigError(
                        f"rollout.loop 'compiled': {reason}", "a C compiler", "use 'torch'"
                    ) from None

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[list[Completion]]:
        groups = self.make_groups(prompts, sampling)
        if self.compiled:
            self.run_compiled(groups, sampling)
        else:
            for _ in self.run(groups, sampling):
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
            for b in slots.alive[: len(slots.rows)].nonzero().flatten().tolist():
                slots.fill_in(b)
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

    def run(self, groups: list[list[Row]], sampling: Sampling) -> Iterator[Slots]:
        """Fill in all rows; yields after every token, so that a caller can watch."""
        if not groups:
            return
        G = sampling.group_size
        size = min(max(self.max_rows // G, 1), len(groups)) * G
        longest_prompt = max(len(group[0].prompt.tokens) for group in groups)
        slots = Slots(self.new_cache(size), size, longest_prompt, sampling.max_new_tokens)
        waiting = deque(groups)
        while waiting or slots.num_alive:
            if waiting and (self.may_join(slots, G) or not slots.num_alive):
                coming = [waiting.popleft() for _ in range(self.fitting(slots.free // G, waiting))]
                first, logits = len(slots.rows), self.admit(slots, coming)
            else:
                first, B = 0, len(slots.rows)
                slots.cache.reserve(slots.longest + 1)
                logits = self.step(slots.cache, slots.last[:B])
                # An upper bound: the longest row may have ended since.
                slots.longest = min(slots.longest + 1, slots.limit)
            places = slots.used[first : len(slots.rows)].clamp(max=slots.max_new - 1)
            noise = slots.noise[first : len(slots.rows)].gather(1, places[:, None])
            slots.write(first, *draw(logits, noise.to(logits.device), sampling.temperature))
            slots.retire(self.stop)
            yield slots
            if slots.num_alive < COMPACT_BELOW * len(slots.rows):
                slots.close_gaps()

    def admit(self, slots: Slots, groups: list[list[Row]]) -> torch.Tensor:
        """Read the prompts of new groups; returns the logits [B, V] after them, row by row."""
        logits_PV, cache = self.prefill([group[0].prompt.tokens for group in groups])
        which = torch.arange(len(groups), device=logits_PV.device)
        which = which.repeat_interleave(len(groups[0]))
        slots.admit([row for group in groups for row in group], cache, which)
        return logits_PV[which]

    # What the engine of another back end does otherwise (see aha.rollout.hf).

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


def draw(logits_BV: torch.Tensor, noise_B1: torch.Tensor, temperature: float) -> tuple:
    """Tokens [B] by inverting the distribution at `noise`, with their log-probs [B] and the
    entropies [B] of the distribution, float32, in nats.

    Both are of the tempered distribution, the one that is sampled and trained;
    greedy drawing (temperature 0) records those at temperature 1.
    """
    if temperature == 0.0:
        tokens = logits_BV.argmax(-1)
    else:
        if temperature != 1.0:
            logits_BV = logits_BV / temperature
        cumulative = torch.softmax(logits_BV, -1).cumsum(-1, dtype=torch.float64)
        edge = noise_B1 * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, edge).squeeze(1)
        tokens = tokens.clamp_(max=logits_BV.shape[1] - 1)
    logprobs_BV = torch.log_softmax(logits_BV, -1)
    entropies = torch.special.entr(logprobs_BV.exp()).sum(-1)
    return tokens, logprobs_BV.gather(1, tokens[:, None]).squeeze(1), entropies
