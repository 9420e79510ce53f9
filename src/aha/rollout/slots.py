"""The rows that are being written, side by side: row b of every tensor belongs to `rows[b]`.

All of it lives where the model computes (on the CPU where that has no float64, as Apple's GPUs).
`advance` draws, records and ends without a word to the host, so that a CUDA graph can hold it;
`look` is where the host waits and asks what ended.

Shapes: B rows, V vocabulary.
"""

from dataclasses import dataclass, field

import torch

from aha.core.records import Prompt
from aha.model.decode import KVCache
from aha.rollout.engine import Sampling, draw, uniforms


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
    """Room for `size` rows over a cache.

    A row that has ended stays until the gaps are closed, and so does what no row has taken yet: it
    is computed along with the others, records nothing, and its length is kept at 0, so that what it
    writes into the cache lands where nobody reads.
    """

    def __init__(
        self, cache: KVCache, size: int, longest_prompt: int, sampling: Sampling, stop: torch.Tensor
    ):
        theirs = cache.lengths.device
        self.device = torch.device("cpu") if theirs.type == "mps" else theirs
        self.cache, self.size, self.temperature = cache, size, sampling.temperature
        self.max_new = sampling.max_new_tokens
        self.limit = longest_prompt + self.max_new
        self.stop = stop.to(self.device)
        self.rows: list[Row] = []
        self.longest = 0  # an upper bound of the rows' lengths
        self.live = torch.zeros(size, dtype=torch.bool)  # `alive` when the host last looked
        wide = (size, self.max_new)
        self.alive = self.zeros(size, torch.bool)
        self.used, self.last = self.zeros(size, torch.long), self.zeros(size, torch.long)
        self.noise = self.zeros(wide, torch.float64)
        self.tokens = self.zeros(wide, torch.long)
        self.logprobs = self.zeros(wide, torch.float32)
        self.entropies = self.zeros(wide, torch.float32)

    def zeros(self, shape, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    @property
    def free(self) -> int:
        return self.size - len(self.rows)

    @property
    def num_alive(self) -> int:
        return int(self.live.sum())

    def admit(self, rows: list[Row], prompts: KVCache, which: torch.Tensor) -> None:
        """Append rows whose prompts have been read: row i continues prompt `which[i]`."""
        first, last = len(self.rows), len(self.rows) + len(rows)
        self.cache.place(first, prompts, which)
        self.rows += rows
        self.alive[first:last] = self.live[first:last] = True
        self.used[first:last] = 0
        noise = [torch.from_numpy(uniforms(row.seed, self.max_new)) for row in rows]
        self.noise[first:last] = torch.stack(noise).to(self.device)
        self.longest = max(self.longest, prompts.capacity)

    def advance(self, first: int, logits_BV: torch.Tensor) -> None:
        """Draw a token for each of the B rows from `first` on, record it, and end those that drew a
        stop token or have no tokens left."""
        some, logits_BV = slice(first, first + logits_BV.shape[0]), logits_BV.to(self.device)
        alive_B, used_B = self.alive[some], self.used[some]
        place_B1 = used_B.clamp(max=self.max_new - 1)[:, None]
        drawn = draw(logits_BV, self.noise[some].gather(1, place_B1), self.temperature)
        for kept, new_B in zip((self.tokens, self.logprobs, self.entropies), drawn, strict=True):
            old_B1 = kept[some].gather(1, place_B1)
            kept[some].scatter_(1, place_B1, torch.where(alive_B[:, None], new_B[:, None], old_B1))
        self.last[some] = drawn[0]
        used_B += alive_B
        stopped_B = (drawn[0][:, None] == self.stop).any(1)
        alive_B &= ~stopped_B & (used_B < self.max_new)
        self.cache.lengths[some] *= alive_B.to(self.cache.lengths.device)

    def look(self) -> None:
        """Wait for the device, and hand their tokens to the rows that have ended."""
        now = self.alive.to("cpu", copy=True)
        ended = (self.live & ~now).nonzero().flatten()
        self.live = now
        self.fill_in(ended)
        for b in ended.tolist():
            self.rows[b].ended = True

    def fill_in(self, which: torch.Tensor) -> None:
        """Give these rows what they have drawn so far."""
        where = which.to(self.device)
        kept = (self.tokens, self.logprobs, self.entropies)
        tokens, logprobs, entropies = (tensor[where].tolist() for tensor in kept)
        for i, (b, count) in enumerate(zip(which.tolist(), self.used[where].tolist(), strict=True)):
            row = self.rows[b]
            row.tokens, row.logprobs = tokens[i][:count], logprobs[i][:count]
            row.entropies = entropies[i][:count]

    def close_gaps(self) -> None:
        """Move the live rows together."""
        kept = self.live[: len(self.rows)].nonzero().flatten()
        count, where = len(kept), kept.to(self.device)
        tensors = (self.used, self.last, self.noise, self.tokens, self.logprobs, self.entropies)
        for tensor in tensors:
            tensor[:count] = tensor[where]
        self.cache.keep(kept.to(self.cache.lengths.device))
        self.cache.lengths[count:] = 0
        self.rows = [self.rows[b] for b in kept.tolist()]
        for flags in (self.alive, self.live):
            flags[:count], flags[count:] = True, False
        self.longest = int(self.cache.lengths[:count].max()) if count else 0
