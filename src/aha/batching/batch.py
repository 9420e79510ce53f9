"""Graded completions as tensors: whole groups, cut into parts that fit a token budget.

Text is never tokenised again: the ids that were drawn are the ids that are trained.
"""

from dataclasses import dataclass

import torch

from aha.algo.aggregation import Totals
from aha.batching.layout import Layout
from aha.core.records import Graded


@dataclass(frozen=True)
class Batch:
    """B rows `prompt + completion`, padded on the right.

    Column t of the [B, T] tensors speaks about the token at position `start + t`; the mask is 1
    exactly on the completion's own tokens, its stop token included. It is built from lengths,
    never from the pad id, which may equal the stop token's.
    """

    tokens_BT: torch.Tensor  # [B, start + T]
    start: int
    mask_BT: torch.Tensor
    old_logprobs_BT: torch.Tensor
    advantages_BT: torch.Tensor
    prompts: tuple[int, ...] = ()  # a key of each row's prompt, the same within a group
    chosen_BT: torch.Tensor | None = None  # what `algo.entropy` chose among the whole update's
    layout: Layout | None = None  # what of the rows is the same, and what is padding

    @property
    def num_tokens(self) -> int:
        return int(self.mask_BT.sum())

    def to(self, device) -> "Batch":
        moved = (self.tokens_BT, self.mask_BT, self.old_logprobs_BT, self.advantages_BT)
        tokens, mask, old, advantages = (tensor.to(device) for tensor in moved)
        chosen = None if self.chosen_BT is None else self.chosen_BT.to(device)
        layout = self.layout and self.layout.to(device)
        return Batch(tokens, self.start, mask, old, advantages, self.prompts, chosen, layout)


def prompt_key(graded: Graded) -> int:
    """The object, not its text: two problems of a step may read alike (trap T6)."""
    return id(graded.completion.prompt)


def totals_of(rows: list[tuple], max_new_tokens: int) -> Totals:
    """The denominators of a step that consists of these `(graded, anything)` rows."""
    prompt_tokens: dict[int, int] = {}
    for graded, *_ in rows:
        key, own = prompt_key(graded), len(graded.completion.tokens)
        prompt_tokens[key] = prompt_tokens.get(key, 0) + own
    return Totals(len(rows), sum(prompt_tokens.values()), max_new_tokens, prompt_tokens)


def spread(rows: list[torch.Tensor], mask_BT: torch.Tensor) -> torch.Tensor:
    """[B, T]: one number for each own token of each row at its place in a batch; 0 elsewhere."""
    spread_BT = torch.zeros_like(mask_BT)
    spread_BT[mask_BT.bool()] = torch.cat(rows).to(mask_BT)
    return spread_BT


def gather(values_BT: torch.Tensor, mask_BT: torch.Tensor) -> list[torch.Tensor]:
    """The way back: each row's numbers at its own tokens alone."""
    own_BT = mask_BT.bool()
    return list(values_BT[own_BT].split(own_BT.sum(1).tolist()))


def pack(rows: list[tuple], pad_id: int) -> Batch:
    """One batch of `(graded, advantage)` rows; one advantage for all tokens, or one for each. What
    was chosen among the tokens may follow in each row."""
    completions = [row[0].completion for row in rows]
    prompts = [len(completion.prompt.tokens) for completion in completions]
    start = min(prompts)
    ends = [p + len(c.tokens) for p, c in zip(prompts, completions, strict=True)]
    shape = (len(rows), max(ends) - start)
    tokens_BT = torch.full((len(rows), max(ends)), pad_id)
    mask_BT, old_BT, advantages_BT = (torch.zeros(shape) for _ in range(3))
    for b, (row, completion) in enumerate(zip(rows, completions, strict=True)):
        own = slice(prompts[b] - start, ends[b] - start)
        tokens_BT[b, : ends[b]] = torch.tensor(completion.prompt.tokens + completion.tokens)
        mask_BT[b, own] = 1.0
        old_BT[b, own] = torch.tensor(completion.logprobs)
        advantages_BT[b, own] = row[1]
    keys = tuple(prompt_key(row[0]) for row in rows)
    # Only where something was chosen is there a third thing in a row.
    chosen_BT = spread([row[2] for row in rows], mask_BT) if len(rows[0]) > 2 else None
    layout = Layout.of(keys, prompts, [len(completion.tokens) for completion in completions])
    return Batch(tokens_BT, start, mask_BT, old_BT, advantages_BT, keys, chosen_BT, layout)


def cut(rows: list[tuple], max_tokens: int, shared: bool = True) -> list[list[tuple]]:
    """`(graded, anything)` rows in parts of at most `max_tokens`; one row may exceed it.

    Where prompts are shared, a token counts where it is computed: those of a completion, and once
    in each part those of a prompt. Groups stay together unless one alone is too large, those whose
    longest completions are alike come together, and in a part the longest row is first. Otherwise
    padding counts too, and rows of like length come together.
    The sum over the parts is the same whatever the cut.
    """
    return cut_groups(rows, max_tokens) if shared else cut_padded(rows, max_tokens)


def length(row: tuple) -> int:
    """Tokens of the whole row."""
    return len(row[0].completion.prompt.tokens) + len(row[0].completion.tokens)


def cut_groups(rows: list[tuple], max_tokens: int) -> list[list[tuple]]:
    groups: dict[int, list[tuple]] = {}
    for row in rows:
        groups.setdefault(prompt_key(row[0]), []).append(row)
    parts: list[list[tuple]] = [[]]
    room = max_tokens
    for group in sorted(groups.values(), key=lambda group: max(map(length, group))):
        prompt = len(group[0][0].completion.prompt.tokens)
        whole = prompt + sum(length(row) - prompt for row in group)
        if whole > room:
            parts.append([])
            room = max_tokens
        room -= prompt
        for row in sorted(group, key=length, reverse=True):
            own = length(row) - prompt
            if parts[-1] and own > room:
                parts.append([])
                room = max_tokens - prompt
            parts[-1].append(row)
            room -= own
    return [sorted(part, key=length, reverse=True) for part in parts if part]


def cut_padded(rows: list[tuple], max_tokens: int) -> list[list[tuple]]:
    parts: list[list] = [[]]
    for row in sorted(rows, key=length):
        if parts[-1] and (len(parts[-1]) + 1) * length(row) > max_tokens:
            parts.append([])
        parts[-1].append(row)
    return [part for part in parts if part]


def pack_parts(rows: list[tuple], pad_id: int, max_tokens: int, shared: bool = True) -> list[Batch]:
    """Batches of `(graded, advantage)` rows, cut to fit."""
    return [pack(part, pad_id) for part in cut(rows, max_tokens, shared)]
