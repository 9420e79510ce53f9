"""The rows of a batch dealt to ranks: the sum of their gradients is the gradient of the batch."""

import itertools
from dataclasses import replace

import pytest
import torch

from aha.corpus.bases import PretrainConfig
from aha.corpus.shards import DocumentBatch
from aha.dist.world import World
from aha.model.transformer import Transformer
from aha.pretrain.trainer import Pretrainer, shared_shards

from ..tiny import TOKENIZER, tiny_config

SMALL = PretrainConfig(
    tokens=9_000, batch_tokens=600, shard_documents=40, warmup_steps=3, dtype="float32"
)


class OneOf(World):
    """One of so many ranks, who never meets the others; a broadcast writes the shard itself."""

    def __init__(self, rank: int, size: int):
        super().__init__()
        self.rank, self.size = rank, size
        self.sent: list[tuple[int, object]] = []

    def broadcast(self, value, source, place):
        self.sent.append((source, value if source == self.rank else place))
        return value


def make(world: World) -> Pretrainer:
    model = Transformer(tiny_config(max_position_embeddings=160))
    model.initialise(torch.Generator().manual_seed(0))
    return Pretrainer(model, TOKENIZER, SMALL, 0, world)


def gradient(trainer: Pretrainer, batch: DocumentBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss, all gradients in one row) of the rank's share of a batch."""
    trainer.model.zero_grad()
    loss = trainer.gradient(trainer.own_rows(batch))
    return loss, torch.cat([p.grad.flatten() for p in trainer.parameters])


@pytest.mark.parametrize("size", [2, 3, 200])
def test_gradients_of_shares_add_up(size):
    """200: more ranks than rows."""
    alone = make(World())
    for _ in range(3):
        batch = alone.next_document_batch()
        loss, whole = gradient(alone, batch)
        assert 3 < len(batch.tokens_BT) < 200 and whole.abs().max() > 0
        shares = [gradient(make(OneOf(rank, size)), batch) for rank in range(size)]
        assert sum(part for part, _ in shares).item() == pytest.approx(loss.item(), rel=1e-5)
        difference = sum(grad for _, grad in shares) - whole
        assert difference.norm() < 1e-5 * whole.norm()
        rows = [len(OneOf(rank, size).share(torch.tensor(batch.tokens_BT))) for rank in range(size)]
        assert sum(rows) == len(batch.tokens_BT) and max(rows) - min(rows) <= 1


def test_a_share_divided_by_its_own_weights_would_be_another_gradient():
    alone = make(World())
    batch = alone.next_document_batch()
    _, whole = gradient(alone, batch)
    halves = [
        replace(batch, tokens_BT=batch.tokens_BT[r::2], weights_BT=batch.weights_BT[r::2])
        for r in range(2)
    ]
    averaged = sum(gradient(alone, half)[1] for half in halves) / 2
    assert (averaged - whole).norm() > 1e-3 * whole.norm()


@pytest.mark.parametrize(("size", "first"), [(1, 0), (2, 0), (3, 5)])
def test_each_shard_is_written_by_one_rank_and_read_by_all(size, first):
    sources = []
    for rank in range(size):
        world = OneOf(rank, size)
        shards = shared_shards(lambda number: [number], first, 0, world)
        list(itertools.islice(shards, 6))
        shards.close()
        numbers = range(first, first + 6)
        for number, (source, sent) in zip(numbers, world.sent, strict=True):
            assert sent == ([number] if source == rank else f"shard {number}")
        sources.append([source for source, _ in world.sent])
    assert sources == [[place % size for place in range(6)]] * size
