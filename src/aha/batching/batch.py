"""Graded completions as tensors: rows, and micro-batches that fit a token budget.

The token ids that were sampled are the ids that are trained: text is never tokenised again.

Shapes: B rows of a micro-batch, T token columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeVar

import torch

from aha.algo.aggregation import Totals
from aha.batching.layout import Layout
from aha.core.records import Graded


class Row(Protocol):
    """Anything that carries one graded completion can be split into micro-batches."""

    @property
    def graded(self) -> Graded: ...


RowType = TypeVar("RowType", bound=Row)


class TrainingRow(NamedTuple):
    """One completion with what its loss needs besides the log-probs.

    `advantages_T` has a number for each of the completion's drawn tokens. `selected_T` is 1 for the
    tokens that an entropy control selected among all tokens of the update, else 0; None where the
    recipe has no such control.
    """

    graded: Graded
    advantages_T: torch.Tensor
    selected_T: torch.Tensor | None = None

    @classmethod
    def of(cls, graded: Graded, advantage: float) -> "TrainingRow":
        """A row in which every token has the advantage of its completion."""
        return cls(graded, torch.full((num_drawn_tokens(graded),), advantage))


class PlacedRow(NamedTuple):
    """A completion with its index, so that results can be put back in order."""

    graded: Graded
    place: int


@dataclass(frozen=True)
class MicroBatch:
    """B rows `prompt + completion`, padded on the right.

    Column t of the [B, T] tensors is about the token at position `start + t`; the mask is 1
    exactly on the completion's own tokens, its stop token included, but for forced ones, which
    nobody has drawn. The mask is built from lengths, never from the pad id, which may equal the
    stop token's.
    """

    tokens_BT: torch.Tensor  # [B, start + T]
    start: int
    mask_BT: torch.Tensor
    old_logprobs_BT: torch.Tensor
    advantages_BT: torch.Tensor
    prompt_keys: tuple[int, ...] = ()  # of each row's prompt; the same within a group
    selected_BT: torch.Tensor | None = None  # as `TrainingRow.selected_T`
    layout: Layout | None = None  # which tokens are the same in several rows, which are padding

    @property
    def num_tokens(self) -> int:
        """Drawn tokens of all completions."""
        return int(self.mask_BT.sum())

    def to(self, device: torch.device | str) -> "MicroBatch":
        """The same batch with every tensor on `device`."""
        return replace(
            self,
            tokens_BT=self.tokens_BT.to(device),
            mask_BT=self.mask_BT.to(device),
            old_logprobs_BT=self.old_logprobs_BT.to(device),
            advantages_BT=self.advantages_BT.to(device),
            selected_BT=None if self.selected_BT is None else self.selected_BT.to(device),
            layout=self.layout and self.layout.to(device),
        )


def num_own_tokens(graded: Graded) -> int:
    """Tokens of the completion alone."""
    return len(graded.completion.tokens)


def num_drawn_tokens(graded: Graded) -> int:
    """Tokens of the completion that the policy has drawn: all but the forced ones."""
    return len(graded.completion.tokens) - len(graded.completion.forced)


def num_prompt_tokens(graded: Graded) -> int:
    return len(graded.completion.prompt.tokens)


def num_row_tokens(row: Row) -> int:
    """Tokens of prompt and completion together."""
    return num_prompt_tokens(row.graded) + num_own_tokens(row.graded)


def num_completion_tokens(row: Row) -> int:
    """Tokens of the row's completion: what it costs to compute the row beside its group, whose
    prompt is computed once."""
    return num_own_tokens(row.graded)


def prompt_key(graded: Graded) -> int:
    """A key of the completion's prompt object.

    Not of its text: two problems of a step may have the same text, and grouping by text would
    merge their groups.
    """
    return id(graded.completion.prompt)


def totals_of(rows: Sequence[Row], max_new_tokens: int) -> Totals:
    """The denominators of an update that consists of these rows."""
    prompt_tokens: dict[int, int] = {}
    for row in rows:
        key = prompt_key(row.graded)
        prompt_tokens[key] = prompt_tokens.get(key, 0) + num_drawn_tokens(row.graded)
    return Totals(len(rows), sum(prompt_tokens.values()), max_new_tokens, prompt_tokens)


def scatter_rows(rows: Sequence[torch.Tensor], mask_BT: torch.Tensor) -> torch.Tensor:
    """[B, T]: each row's numbers at its drawn tokens, 0 elsewhere."""
    values_BT = torch.zeros_like(mask_BT)
    if rows:
        values_BT[mask_BT.bool()] = torch.cat(list(rows)).to(mask_BT)
    return values_BT


def gather_rows(values_BT: torch.Tensor, mask_BT: torch.Tensor) -> list[torch.Tensor]:
    """The inverse of `scatter_rows`: each row's numbers at its drawn tokens."""
    own_BT = mask_BT.bool()
    return list(values_BT[own_BT].split(own_BT.sum(1).tolist()))


def pack(rows: Sequence[TrainingRow], pad_id: int) -> MicroBatch:
    """One batch of these rows, in their order."""
    completions = [row.graded.completion for row in rows]
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
        if completion.forced:
            mask_BT[b, own][list(completion.forced)] = 0.0
        old_BT[b, own] = torch.tensor(completion.logprobs)
        advantages_BT[b][mask_BT[b].bool()] = row.advantages_T
    keys = tuple(prompt_key(row.graded) for row in rows)
    selected = [row.selected_T for row in rows if row.selected_T is not None]
    selected_BT = scatter_rows(selected, mask_BT) if selected else None
    layout = Layout.of(list(keys), prompts, [len(completion.tokens) for completion in completions])
    return MicroBatch(tokens_BT, start, mask_BT, old_BT, advantages_BT, keys, selected_BT, layout)


def pack_graded(graded: Sequence[Graded], pad_id: int) -> MicroBatch:
    """A batch that is only read: all advantages are 0."""
    return pack([TrainingRow.of(one, 0.0) for one in graded], pad_id)


def blank_batch(pad_id: int, prompt: int = 0) -> MicroBatch:
    """The smallest batch, whose mask is empty: a model computes it, and it counts nowhere. `prompt`
    is the key of its prompt."""
    nothing = torch.zeros(1, 1)
    return MicroBatch(torch.full((1, 2), pad_id), 1, nothing, nothing, nothing, (prompt,), nothing)


def split_rows(
    rows: Sequence[RowType], max_tokens: int, shared: bool = True
) -> list[list[RowType]]:
    """The rows split into micro-batches of at most `max_tokens`; one row may exceed it.

    `shared` True: the model computes a prompt once in each micro-batch and no padding (see
    `batching.layout`), so a micro-batch costs the tokens of its completions and those of its
    different prompts. Groups stay together unless one group alone is too large. Groups with
    similar longest completions are put together; within a micro-batch the longest row is first.
    `shared` False: padding counts, and rows of similar length are put together.

    The sum of the gradients is the same for any way of splitting.
    """
    return _split_groups(rows, max_tokens) if shared else _split_padded(rows, max_tokens)


def _split_groups(rows: Sequence[RowType], max_tokens: int) -> list[list[RowType]]:
    groups: dict[int, list[RowType]] = {}
    for row in rows:
        groups.setdefault(prompt_key(row.graded), []).append(row)
    parts: list[list[RowType]] = [[]]
    left = max_tokens
    for group in sorted(groups.values(), key=lambda group: max(map(num_row_tokens, group))):
        prompt = num_prompt_tokens(group[0].graded)
        if prompt + sum(num_own_tokens(row.graded) for row in group) > left:
            parts.append([])
            left = max_tokens
        left -= prompt
        for row in sorted(group, key=num_row_tokens, reverse=True):
            own = num_own_tokens(row.graded)
            if parts[-1] and own > left:
                # The rest of the group computes its prompt once more in the next micro-batch.
                parts.append([])
                left = max_tokens - prompt
            parts[-1].append(row)
            left -= own
    return [sorted(part, key=num_row_tokens, reverse=True) for part in parts if part]


def _split_padded(rows: Sequence[RowType], max_tokens: int) -> list[list[RowType]]:
    parts: list[list[RowType]] = [[]]
    for row in sorted(rows, key=num_row_tokens):
        if parts[-1] and (len(parts[-1]) + 1) * num_row_tokens(row) > max_tokens:
            parts.append([])
        parts[-1].append(row)
    return [part for part in parts if part]


def pack_parts(
    rows: Sequence[TrainingRow], pad_id: int, max_tokens: int, shared: bool = True
) -> list[MicroBatch]:
    """The rows as micro-batches of at most `max_tokens`."""
    return [pack(part, pad_id) for part in split_rows(rows, max_tokens, shared)]
