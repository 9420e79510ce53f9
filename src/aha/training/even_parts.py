"""Rows in micro-batches that every rank has as many of, for models that may be in shards."""

from collections.abc import Iterator, Sequence

import torch

from aha.batching.batch import MicroBatch, RowType, blank_batch, pack_graded, split_rows
from aha.dist.world import World


def even_parts(
    world: World,
    rows: Sequence[RowType],
    pad_id: int,
    tokens: int,
    device: torch.device,
    shared: bool = True,
) -> Iterator[tuple[list[RowType], MicroBatch]]:
    """Micro-batches of at most `tokens` of this rank's rows, each with its rows; `shared` as in
    `split_rows`.

    Where models are in shards, blank ones without rows follow, until this rank has as many as the
    one that has the most. What computes them is joint work (`World.joint`).
    """
    parts = split_rows(rows, tokens, shared)
    rounds = world.rounds(len(parts), "the micro-batches of a model")
    for part in parts:
        yield part, pack_graded([row.graded for row in part], pad_id).to(device)
        world.pulse()
    for _ in range(rounds - len(parts)):
        yield [], blank_batch(pad_id).to(device)
