"""The rows that are being generated: slot b of every tensor belongs to `rows[b]`.

The tensors are on the device of the model (on the CPU where that has no float64, as Apple's GPUs).
`append` draws and records a token and ends rows without asking the device for a number, so a CUDA
graph can contain it; `sync` is where the host waits for the device and reads which rows have ended.

Shapes: B rows, V vocabulary, T new tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, Self

import torch

from aha.core.records import Prompt
from aha.rollout.engine import Sampling, draw, uniforms
from aha.rollout.forcing import Forcing, ForcingTables


class Cache(Protocol):
    """What a model keeps of each row: `KVCache`, or `HfCache` for what `transformers` runs."""

    lengths: torch.Tensor  # [B]
    block: int  # positions by which it grows

    @property
    def capacity(self) -> int:
        """Positions that a row can have."""

    def reserve(self, positions: int) -> None:
        """Make the capacity at least that large."""

    def compact(self, rows: torch.Tensor) -> None:
        """Row i becomes row `rows[i]`."""

    def rewind(self, first: int, counts_B: torch.Tensor) -> None:
        """Forget the last `counts_B[i]` positions of row first + i."""

    def copy_prompts(self, first: int, source: Self, rows: torch.Tensor) -> None:
        """Row first + i becomes row `rows[i]` of a cache of prompts."""


@dataclass
class SlotRow:
    """One completion: filled in when it has ended."""

    prompt: Prompt
    prompt_index: int  # which prompt of the call
    seed: int
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    entropies: list[float] = field(default_factory=list)
    forced: list[bool] = field(default_factory=list)  # by token; empty without a budget
    ended: bool = False


class Slots:
    """Memory for `size` rows over a cache. Rows are in the first slots, without gaps.

    A row that has ended keeps its slot until `compact`, and the slots after the last row are
    empty; both are computed with the others, as a batch has one size. They record nothing, and
    their length in the cache is set to 0: the keys and values that they write land at position 0 of
    their own slot, where nobody reads. The next row in that slot overwrites them with its prompt.
    """

    def __init__(
        self,
        cache: Cache,
        size: int,
        longest_prompt: int,
        sampling: Sampling,
        stop: torch.Tensor,
        tables: ForcingTables | None = None,
    ):
        cache_device = cache.lengths.device
        self.device = torch.device("cpu") if cache_device.type == "mps" else cache_device
        self.cache, self.size, self.temperature = cache, size, sampling.temperature
        self.max_new = sampling.max_new_tokens
        self.limit = longest_prompt + self.max_new
        self.stop = stop.to(self.device)
        self.rows: list[SlotRow] = []
        self.longest = 0  # an upper bound of the rows' lengths
        self.live = torch.zeros(size, dtype=torch.bool)  # on the host: `alive` at the last `sync`
        self.alive = self.zeros((size,), torch.bool)
        self.used = self.zeros((size,), torch.long)  # tokens drawn
        self.last = self.zeros((size,), torch.long)  # the token drawn last
        self.forcing = None if tables is None else Forcing(tables, size, self.device)
        self.num_draws = self.max_new + (tables.extra_draws(self.max_new) if tables else 0)
        self.noise = self.zeros((size, self.num_draws), torch.float64)
        self.tokens = self.zeros((size, self.max_new), torch.long)
        self.logprobs = self.zeros((size, self.max_new), torch.float32)
        self.entropies = self.zeros((size, self.max_new), torch.float32)
        self.forced = self.zeros((size, self.max_new if tables else 0), torch.bool)

    def zeros(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    @property
    def free(self) -> int:
        """Slots after the last row."""
        return self.size - len(self.rows)

    @property
    def num_live(self) -> int:
        """Rows that had not ended at the last `sync`."""
        return int(self.live.sum())

    def add(self, rows: list[SlotRow], prompts: Cache, prompt_B: torch.Tensor) -> None:
        """Append rows whose prompts have been read: row i continues prompt `prompt_B[i]`."""
        first, last = len(self.rows), len(self.rows) + len(rows)
        self.cache.copy_prompts(first, prompts, prompt_B)
        self.rows += rows
        self.alive[first:last] = self.live[first:last] = True
        self.used[first:last] = 0
        if self.forcing is not None:
            self.forcing.begin(slice(first, last), [row.prompt for row in rows])
        noise = [torch.from_numpy(uniforms(row.seed, self.num_draws)) for row in rows]
        self.noise[first:last] = torch.stack(noise).to(self.device)
        self.longest = max(self.longest, prompts.capacity)

    def append(self, first: int, logits_BV: torch.Tensor) -> None:
        """Draw a token for each of the B rows from slot `first` on, record it, and end the rows
        that drew a stop token or have reached their limit.

        No operation depends on which rows are alive: indexing by a mask, or `if alive`, would need
        a number from the device. Dead rows go through the same operations, and `where` and `alive`
        turn their results into what was there before:

            place    min(used, limit - 1), also for a row that has used all its tokens
            token    written at `place` if alive, else the old one written again
            used     + alive, so + 0 for a dead row
            alive    and not stopped, and used < limit
            length   * alive, so 0 as soon as the row has ended

        Example: stop token 9, limit 3. A row draws 5, 9: used 1 2, alive 1 0, length 12 0. In the
        next step it draws some token, records nothing, and used stays 2.
        """
        slots = slice(first, first + logits_BV.shape[0])
        logits_BV = logits_BV.to(self.device)
        alive_B, used_B = self.alive[slots], self.used[slots]  # views: changed in place below
        records, forced = [self.tokens, self.logprobs, self.entropies], list[torch.Tensor]()
        index_B, replace = used_B, self.replacing(first, forced)
        if self.forcing is not None:
            index_B = self.forcing.draws[slots]
            records.append(self.forced)
        noise_B1 = self.noise[slots].gather(1, index_B.clamp(max=self.num_draws - 1)[:, None])
        drawn = draw(logits_BV, noise_B1, self.temperature, replace)
        place_B1 = used_B.clamp(max=self.max_new - 1)[:, None]
        for record, new_B in zip(records, [*drawn, *forced], strict=True):
            old_B1 = record[slots].gather(1, place_B1)
            new_B1 = torch.where(alive_B[:, None], new_B[:, None], old_B1)
            record[slots].scatter_(1, place_B1, new_B1)
        tokens_B = drawn[0]
        self.last[slots] = tokens_B
        used_B += alive_B
        stopped_B = (tokens_B[:, None] == self.stop).any(1)
        alive_B &= ~stopped_B & (used_B < self.max_new)
        self.cache.lengths[slots] *= alive_B.to(self.cache.lengths.device)

    def replacing(
        self, first: int, forced: list[torch.Tensor]
    ) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """What puts forced tokens in the place of drawn ones; None without a budget."""
        return None if self.forcing is None else partial(self.force, first, forced)

    def force(self, first: int, forced: list[torch.Tensor], drawn_B: torch.Tensor) -> torch.Tensor:
        """The tokens to record by the thinking budget, in place of those that were drawn; which of
        them are forced is appended to `forced`. What is taken back leaves record and cache."""
        assert self.forcing is not None
        slots = slice(first, first + drawn_B.shape[0])
        tokens_B, forced_B, back_B = self.forcing.choose(slots, drawn_B, self.used[slots])
        if self.forcing.tables.waits:
            back_B = back_B * self.alive[slots]
            self.used[slots] -= back_B
            self.cache.rewind(first, back_B.to(self.cache.lengths.device))
        forced.append(forced_B)
        return tokens_B

    def sync(self) -> None:
        """Wait for the device, and copy their tokens to the rows that have ended."""
        now = self.alive.to("cpu", copy=True)
        ended = (self.live & ~now).nonzero().flatten()
        self.live = now
        self.fill_rows(ended)
        for b in ended.tolist():
            self.rows[b].ended = True

    def fill_rows(self, slots: torch.Tensor) -> None:
        """Copy to the rows in these slots what they have drawn so far."""
        index = slots.to(self.device)
        records = (self.tokens, self.logprobs, self.entropies)
        tokens, logprobs, entropies = (record[index].tolist() for record in records)
        counts, forced = self.used[index].tolist(), self.forced[index].tolist()
        for i, (b, count) in enumerate(zip(slots.tolist(), counts, strict=True)):
            row = self.rows[b]
            row.tokens, row.logprobs = tokens[i][:count], logprobs[i][:count]
            row.entropies = entropies[i][:count]
            if self.forcing is not None:
                row.forced = forced[i][:count]

    def compact(self) -> None:
        """Remove the rows that have ended: the live ones move to the first slots, in their order.

        Example: five rows, of which 1 and 4 have ended: `kept` is [0, 2, 3], so slot 1 becomes row
        2 and slot 2 row 3; slots 3 and 4 become empty: not alive, and of length 0. All of it
        happens in place, as CUDA graphs hold the addresses. `kept` increases and the right side is
        a copy, so no row is overwritten before it has moved.
        """
        kept = self.live[: len(self.rows)].nonzero().flatten()
        count, index = len(kept), kept.to(self.device)
        tensors = [self.used, self.last, self.noise, self.tokens, self.logprobs, self.entropies]
        if self.forcing is not None:
            tensors += [self.forced, *self.forcing.tensors]
        for tensor in tensors:
            tensor[:count] = tensor[index]
        self.cache.compact(kept.to(self.cache.lengths.device))
        self.cache.lengths[count:] = 0
        self.rows = [self.rows[b] for b in kept.tolist()]
        for flags in (self.alive, self.live):
            flags[:count], flags[count:] = True, False
        self.longest = int(self.cache.lengths[:count].max()) if count else 0
