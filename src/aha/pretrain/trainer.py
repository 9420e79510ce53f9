"""Pre-training of a base model from random weights, on documents that `aha.corpus` writes.

`aha.corpus.shards` has the batches, `aha.corpus.bases` the settings. On a GPU the host never waits
during an update: the next batch is copied while the last one is computed, and the numbers of a
report stay on the GPU until someone reads them.

Ranks share the rows of each batch. The loss is divided by the weights of all its rows, so the sum
of their gradients is that of the batch, whatever the number of ranks.

Shapes: B rows, T tokens.
"""

from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from typing import Any

import torch

from aha.corpus.bases import PretrainConfig
from aha.corpus.shards import CorpusTokenizer, DocumentBatch, write_shard
from aha.corpus.writers import in_order
from aha.dist.world import World
from aha.machine.device import compute_dtype
from aha.model.tokenizer import Tokenizer
from aha.model.transformer import Transformer
from aha.pretrain.muon import Muon
from aha.training.next_tokens import NextTokenBatch, NextTokenTrainer, WeightedRows


def to_device(batch: DocumentBatch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens int64, weights float32) of a batch, [B, T], on the model's device.

    The copy to a GPU is asynchronous, and so needs pinned memory.
    """
    tokens_BT, weights_BT = torch.from_numpy(batch.tokens_BT), torch.from_numpy(batch.weights_BT)
    if device.type == "cuda":
        tokens_BT, weights_BT = (
            array_BT.pin_memory().to(device, non_blocking=True)
            for array_BT in (tokens_BT, weights_BT)
        )
    return tokens_BT.long(), weights_BT


def lr_factor(cfg: PretrainConfig, step: int, tokens_seen: int) -> float:
    """The factor of the learning rate: warm-up over steps, constant, linear to 0 at the end.

    Source: the trapezoid of Hägele et al. 2024 (arXiv 2405.18392). Unlike with a cosine, a run can
    be prolonged from any checkpoint of the constant part.
    """
    left = max(0.0, 1.0 - tokens_seen / cfg.tokens)
    return min(1.0, (step + 1) / cfg.warmup_steps, left / cfg.decay)


def make_optimizers(
    model: Transformer, cfg: PretrainConfig, dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    """Muon, with products in `dtype`, for the matrices inside the layers; AdamW for the rest."""
    inside = {id(p) for layer in model.model.layers for p in layer.parameters() if p.ndim == 2}
    matrices = [p for p in model.parameters() if id(p) in inside]
    rest = [p for p in model.parameters() if id(p) not in inside]
    muon = Muon(matrices, cfg.lr, cfg.weight_decay, dtype)
    adamw = torch.optim.AdamW(rest, lr=cfg.lr_rest, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return [muon, adamw]


def shared_shards(
    write: Callable[[int], list[DocumentBatch]], first: int, writers: int, world: World
) -> Generator[list[DocumentBatch], None, None]:
    """`in_order(write, first, writers)`, each shard written by one rank and sent to the others.

    The ranks write at the same time, each the next shard that is its own, so that none waits while
    another writes. `writers` are the processes of all ranks together.
    """
    own_writers = len(range(world.rank, writers, world.size))
    own_shard = partial(shard_of_rank, write, first + world.rank, world.size)
    with closing(in_order(own_shard, 0, own_writers)) as own:
        for place, batches in enumerate(own):
            for source in range(world.size):
                number = first + place * world.size + source
                yield world.broadcast(batches, source, f"shard {number}")


def shard_of_rank(
    write: Callable[[int], list[DocumentBatch]], first: int, stride: int, place: int
) -> list[DocumentBatch]:
    """The shard of this rank in round `place`."""
    return write(first + place * stride)


class Pretrainer(NextTokenTrainer):
    """The trainer of next tokens that reads the corpus.

    `writers` is the number of processes that write documents ahead of the training; with 0 they are
    written between the updates. The batches are the same. `close` ends the processes. Without a
    `world` it is the only rank.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: Tokenizer,
        cfg: PretrainConfig,
        writers: int = 0,
        world: World | None = None,
    ):
        super().__init__(model, compute_dtype(cfg.dtype, model.device), world)
        self.model, self.tokenizer, self.cfg, self.writers = model, tokenizer, cfg, writers
        self.optimizers = make_optimizers(model, cfg, self.dtype)
        self.shard_number = self.next_batch = 0
        self.batches: list[DocumentBatch] = []
        self.shards = self.open_shards()

    @property
    def done(self) -> bool:
        """Whether all tokens of the budget have been read."""
        return self.tokens_seen >= self.cfg.tokens

    def open_shards(self) -> Generator[list[DocumentBatch], None, None]:
        """The shards from `shard_number` on; writing begins when the first one is requested."""
        tokenizer = CorpusTokenizer.of(self.tokenizer)
        longest = self.model.config.max_position_embeddings
        write = partial(write_shard, tokenizer, self.cfg, max_tokens=longest)
        return shared_shards(write, self.shard_number, self.writers, self.world)

    def next_document_batch(self) -> DocumentBatch:
        """The next batch; reads the next shard where the last one is used up."""
        if not self.batches:
            self.batches = next(self.shards)
        batch = self.batches[self.next_batch]
        self.next_batch += 1
        if self.next_batch == len(self.batches):
            self.shard_number, self.next_batch, self.batches = self.shard_number + 1, 0, []
        return batch

    def learn(self) -> tuple[NextTokenBatch, torch.Tensor]:
        batch = self.own_rows(self.next_document_batch())
        return batch, self.gradient(batch)

    def own_rows(self, batch: DocumentBatch) -> NextTokenBatch:
        """This rank's rows of a batch. A document's first token is not predicted."""
        tokens_BT, weights_BT = to_device(batch, self.model.device)
        weights_BT = weights_BT[:, 1:]
        total = weights_BT.sum()
        tokens_BT, weights_BT = self.world.share(tokens_BT), self.world.share(weights_BT)
        parts = [WeightedRows(tokens_BT, 1, weights_BT)] if len(tokens_BT) else []
        return NextTokenBatch(parts, total, batch.num_tokens)

    def rate(self) -> float:
        return lr_factor(self.cfg, self.step_count, self.tokens_seen)

    def update(self, rate: float) -> torch.Tensor:
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.cfg.grad_clip)
        for optimizer, lr in zip(self.optimizers, (self.cfg.lr, self.cfg.lr_rest), strict=True):
            optimizer.param_groups[0]["lr"] = lr * rate
            optimizer.step()
            optimizer.zero_grad()
        return norm

    def close(self) -> None:
        """End the processes that write documents."""
        self.shards.close()

    def state_dict(self) -> dict[str, Any]:
        """Everything besides the weights that the next step depends on."""
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "counters": [self.step_count, self.tokens_seen, self.shard_number, self.next_batch],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue exactly where `state_dict` was taken."""
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step_count, self.tokens_seen, self.shard_number, self.next_batch = state["counters"]
        self.batches = []
        self.close()
        self.shards = self.open_shards()
