"""Batched generation in slots, whatever computes the logits.

A prompt is read once for its whole group. Rows are generated side by side; rows that have ended are
removed from time to time, and waiting rows take their slots. Each row draws from a random stream of
its own, so it does not matter when it begins and what is generated with it.

Shapes: B rows, P prompts, V vocabulary.
"""

from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any, Literal, Protocol

import torch

from aha.core.errors import ConfigError
from aha.core.records import Completion, Prompt
from aha.core.seeds import seed_for
from aha.machine.device import compute_dtype
from aha.model.policy import Policy
from aha.model.tokenizer import Tokenizer
from aha.rollout.cuda_graphs import CACHE_BLOCK, STEPS_PER_SYNC, DecodeSteps
from aha.rollout.engine import Sampling
from aha.rollout.forcing import ForcingTables
from aha.rollout.slots import Cache, SlotRow, Slots
from aha.rollout.thinking_budget import check_thought_is_open

# auto: the loop in C on a CPU, where it can be built; CUDA graphs on a GPU.
Loop = Literal["auto", "compiled", "graphs", "torch"]
COMPACT_BELOW = 0.8  # remove ended rows when less than this share of the rows is alive


class LoadedWeights(Protocol):
    """The weights of one version, in the form that the engine computes with."""

    config: Any  # at least vocab_size and max_position_embeddings

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...


class SlotEngine(ABC):
    """The part of an `Engine` that all models share. A subclass loads weights, reads prompts and
    computes the next logits.

    `max_rows` bounds the slots: groups beyond it wait until there are free slots for a whole one,
    so that every prompt is read exactly once.
    """

    weights: LoadedWeights | None

    def __init__(
        self,
        policy: Policy,
        tokenizer: Tokenizer,
        dtype: str = "auto",
        max_rows: int = 512,
        loop: Loop = "auto",
    ):
        self.tokenizer, self.max_rows, self.loop = tokenizer, max_rows, loop
        self.dtype = compute_dtype(dtype, policy.device)
        self.stop = torch.tensor(tokenizer.stop_ids)
        self.version = 0
        self.last_tables: tuple[Any, ForcingTables] | None = None
        self.load(policy, 0)

    # -- for subclasses --------------------------------------------------------------------

    @abstractmethod
    def load(self, policy: Policy, version: int) -> None:
        """Take a policy's weights; completions from now on carry this version."""

    @abstractmethod
    def new_cache(self, rows: int) -> Cache:
        """An empty cache for so many rows."""

    @abstractmethod
    def prefill(self, prompts: list[tuple[int, ...]]) -> tuple[torch.Tensor, Cache]:
        """Read P prompts side by side: (logits [P, V] after each, their cache)."""

    @abstractmethod
    def decode_step(self, cache: Cache, tokens_B: torch.Tensor) -> torch.Tensor:
        """The next logits [B, V] of the first B rows, each continued by its token."""

    @property
    def uses_graphs(self) -> bool:
        """Whether decode steps are CUDA graphs."""
        return False

    def can_join(self, slots: Slots, group_size: int) -> bool:
        """Whether waiting groups may begin while other rows are being generated."""
        return False

    def num_groups_to_start(self, free: int, waiting: deque[list[SlotRow]]) -> int:
        """How many of the waiting groups begin together, where so many have free slots."""
        return min(free, len(waiting))

    # -- the engine ------------------------------------------------------------------------

    def loaded(self) -> LoadedWeights:
        assert self.weights is not None, "generate() after release()"
        return self.weights

    def release(self) -> None:
        """Free the memory of the weights: nothing is generated before the next `load`."""
        self.weights = None

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """`group_size` completions of every prompt, see `Engine`."""
        groups = self.make_groups(prompts, sampling)
        self.fill_groups(groups, sampling)
        return [[self.completed(row) for row in group] for group in groups]

    def fill_groups(self, groups: list[list[SlotRow]], sampling: Sampling) -> None:
        """Generate all rows to their ends."""
        for _ in self.run(groups, sampling, STEPS_PER_SYNC if self.uses_graphs else 1):
            pass

    def stream(self, prompt: Prompt, sampling: Sampling) -> Iterator[str]:
        """The text of one completion, token by token: the same one that `generate` returns."""
        sampling = replace(sampling, group_size=1)
        sent = text = ""
        for slots in self.run(self.make_groups([prompt], sampling), sampling):
            text = self.tokenizer.decode(slots.tokens[0, : int(slots.used[0])].tolist())
            # A character of several tokens decodes to U+FFFD until the last of them has come.
            if not text.endswith("\ufffd"):
                yield text[len(sent) :]
                sent = text
        yield text[len(sent) :]

    def watch(
        self, prompts: list[Prompt], sampling: Sampling
    ) -> Generator[list[list[SlotRow]], None, None]:
        """`generate` step by step: after every token the groups' rows with what they have drawn so
        far. `completed` makes a record of a row at any time after its first token."""
        groups = self.make_groups(prompts, sampling)
        for slots in self.run(groups, sampling):
            slots.fill_rows(slots.live.nonzero().flatten())
            yield groups

    def make_groups(self, prompts: list[Prompt], sampling: Sampling) -> list[list[SlotRow]]:
        return make_groups(prompts, sampling, self.loaded().config.max_position_embeddings)

    def tables_of(self, sampling: Sampling) -> ForcingTables | None:
        """The thinking budget in this vocabulary's tokens; the last one is kept."""
        budget, limit = sampling.budget, sampling.max_new_tokens
        if budget is None:
            return None
        if self.last_tables is None or self.last_tables[0] != (budget, limit):
            vocabulary = self.loaded().config.vocab_size
            tables = ForcingTables.of(self.tokenizer, vocabulary, budget, limit)
            self.last_tables = ((budget, limit), tables)
        return self.last_tables[1]

    def run(
        self, groups: list[list[SlotRow]], sampling: Sampling, steps_per_sync: int = 1
    ) -> Iterator[Slots]:
        """Generate all rows; yields after every `steps_per_sync` tokens."""
        if not groups:
            return
        G = sampling.group_size
        size = min(max(self.max_rows // G, 1), len(groups)) * G
        longest_prompt = max(len(group[0].prompt.tokens) for group in groups)
        cache = self.new_cache(size)
        tables = self.tables_of(sampling)
        slots = Slots(cache, size, longest_prompt, sampling, self.stop, tables)
        if steps_per_sync > 1:
            cache.block = CACHE_BLOCK
        steps = DecodeSteps(slots, lambda width: self.step(slots, width))
        waiting = deque(groups)
        while waiting or slots.num_live:
            if waiting and (self.can_join(slots, G) or not slots.num_live):
                count = self.num_groups_to_start(slots.free // G, waiting)
                starting = [waiting.popleft() for _ in range(count)]
                first = len(slots.rows)
                slots.append(first, self.start(slots, starting))
            else:
                # The longest row may have ended since the last sync: this is an upper bound.
                slots.longest = min(slots.longest + steps_per_sync, slots.limit)
                slots.cache.reserve(slots.longest)
                if steps_per_sync > 1:
                    steps.run(steps_per_sync)
                else:
                    self.step(slots, len(slots.rows))
            slots.sync()
            yield slots
            if slots.num_live < COMPACT_BELOW * len(slots.rows):
                slots.compact()

    def step(self, slots: Slots, width: int) -> None:
        """One more token for the first `width` slots."""
        last_B = slots.last[:width].to(slots.cache.lengths.device)
        slots.append(0, self.decode_step(slots.cache, last_B))

    def start(self, slots: Slots, groups: list[list[SlotRow]]) -> torch.Tensor:
        """Read the prompts of groups and give their rows slots; returns the logits [B, V] after the
        prompts, row by row."""
        logits_PV, cache = self.prefill([group[0].prompt.tokens for group in groups])
        prompt_B = torch.arange(len(groups), device=logits_PV.device)
        prompt_B = prompt_B.repeat_interleave(len(groups[0]))
        slots.add([row for group in groups for row in group], cache, prompt_B)
        return logits_PV[prompt_B]

    def completed(self, row: SlotRow) -> Completion:
        """The record of a row."""
        ended = row.tokens[-1] in self.tokenizer.stop_ids
        return Completion(
            prompt=row.prompt,
            tokens=tuple(row.tokens),
            logprobs=tuple(row.logprobs),
            text=self.tokenizer.decode(row.tokens),
            finish="stop" if ended else "length",
            version=self.version,
            entropies=tuple(row.entropies),
            forced=tuple(place for place, is_forced in enumerate(row.forced) if is_forced),
        )


def make_groups(prompts: list[Prompt], sampling: Sampling, positions: int) -> list[list[SlotRow]]:
    """One row for every completion, with a seed of its own. A prompt that comes twice in the call
    gets other seeds the second time.

    Raises `ConfigError` where a prompt and its new tokens need more than `positions`, or where a
    thinking budget is for a prompt without a thought.
    """
    groups, occurrences = [], Counter[str]()
    for index, prompt in enumerate(prompts):
        if sampling.budget is not None:
            check_thought_is_open(prompt.text)
        if len(prompt.tokens) + sampling.max_new_tokens > positions:
            raise ConfigError(
                f"max_new_tokens {sampling.max_new_tokens} after a prompt of "
                f"{len(prompt.tokens)} tokens",
                f"at most the model's {positions} positions together",
                f"--rollout.max_new_tokens {max(1, positions - len(prompt.tokens))}",
            )
        name = (prompt.problem.id, occurrences[prompt.problem.id])
        occurrences[prompt.problem.id] += 1
        members = range(sampling.group_size)
        groups.append([SlotRow(prompt, index, seed_for(sampling.seed, *name, g)) for g in members])
    return groups
