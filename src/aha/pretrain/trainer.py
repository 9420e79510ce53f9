"""Pre-training from nothing on the traces that this project writes: the updates.

`aha.corpus.shards` has what is read, `aha.corpus.bases` the settings. On a GPU an update waits for
nothing: a batch is copied while the last one is computed, and a report's figures stay there until
they are read.

Shapes: B rows, T tokens.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch

from aha.corpus.bases import PretrainConfig
from aha.corpus.shards import CorpusTokenizer, DocumentBatch, write_shard
from aha.corpus.writers import in_order
from aha.machine.dtype import compute_dtype
from aha.model.tokenizer import Tokenizer
from aha.model.transformer import Transformer
from aha.pretrain.muon import Muon


def on_device(batch: DocumentBatch, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(tokens, weights) of a batch where the model is. The copy to a GPU goes on by itself, which
    takes memory that the system may not move."""
    arrays = torch.from_numpy(batch.tokens_BT), torch.from_numpy(batch.weights_BT)
    if device.type == "cuda":
        arrays = tuple(array.pin_memory().to(device, non_blocking=True) for array in arrays)
    tokens_BT, weights_BT = arrays
    return tokens_BT.long(), weights_BT


def schedule(cfg: PretrainConfig, step: int, seen: int) -> float:
    """Share of the learning rate: warm-up over steps, constant, linear to 0 over the last tokens.

    Source: the trapezoid of Hägele et al. 2024 (arXiv 2405.18392); unlike a cosine it lets a
    run be prolonged from any checkpoint of its flat part.
    """
    left = max(0.0, 1.0 - seen / cfg.tokens)
    return min(1.0, (step + 1) / cfg.warmup_steps, left / cfg.decay)


def make_optimizers(
    model: Transformer, cfg: PretrainConfig, dtype: torch.dtype
) -> list[torch.optim.Optimizer]:
    """Muon, its products in `dtype`, for the matrices inside the layers; AdamW for all else."""
    inside = {id(p) for p in model.model.layers.parameters() if p.ndim == 2}
    matrices = [p for p in model.parameters() if id(p) in inside]
    rest = [p for p in model.parameters() if id(p) not in inside]
    muon = Muon(matrices, cfg.lr, cfg.weight_decay, dtype)
    adamw = torch.optim.AdamW(rest, lr=cfg.lr_rest, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return [muon, adamw]


@dataclass(frozen=True)
class PretrainReport:
    """One update, for the watchers. `loss`, in nats per token and weighted, and `grad_norm` are
    single numbers where the model is: reading one waits for a GPU."""

    step: int
    seen: int
    loss: torch.Tensor
    grad_norm: torch.Tensor
    rate: float

    @property
    def version(self) -> int:
        return self.step


class Pretrainer:
    """Next-token training on documents, where the decoder is; `step` is one update.

    So many `writers`, processes, write the documents ahead; with 0 it is done in between. The
    batches are the same. `close` ends them.
    """

    def __init__(
        self, model: Transformer, tokenizer: Tokenizer, cfg: PretrainConfig, writers: int = 0
    ):
        self.model, self.tokenizer, self.cfg = model, tokenizer, cfg
        self.writers = writers
        self.dtype = compute_dtype(cfg.dtype, model.device)
        self.optimizers = make_optimizers(model, cfg, self.dtype)
        self.step_count = self.seen = 0
        self.shard_number = self.next_batch = 0
        self.batches: list[DocumentBatch] = []
        self.shards = self.open_shards()

    @property
    def done(self) -> bool:
        return self.seen >= self.cfg.tokens

    def steps(self) -> Iterator[PretrainReport]:
        while not self.done:
            yield self.step()

    def open_shards(self) -> Iterator[list[DocumentBatch]]:
        """From the one that is next on; nothing starts before the first is asked for."""
        tokenizer = CorpusTokenizer.of(self.tokenizer)
        longest = self.model.config.max_position_embeddings
        write = partial(write_shard, tokenizer, self.cfg, max_tokens=longest)
        return in_order(write, self.shard_number, self.writers)

    def draw(self) -> DocumentBatch:
        if not self.batches:
            self.batches = next(self.shards)
        batch = self.batches[self.next_batch]
        self.next_batch += 1
        if self.next_batch == len(self.batches):
            self.shard_number, self.next_batch, self.batches = self.shard_number + 1, 0, []
        return batch

    def step(self) -> PretrainReport:
        batch = self.draw()
        tokens_BT, weights_BT = on_device(batch, self.model.device)
        rate = schedule(self.cfg, self.step_count, self.seen)
        logprobs_BT = self.model.token_logprobs(tokens_BT, start=1, dtype=self.dtype)
        weights_BT = weights_BT[:, 1:]
        loss = -(logprobs_BT * weights_BT).sum() / weights_BT.sum()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.cfg.grad_clip)
        for optimizer, lr in zip(self.optimizers, (self.cfg.lr, self.cfg.lr_rest), strict=True):
            optimizer.param_groups[0]["lr"] = lr * rate
            optimizer.step()
            optimizer.zero_grad()
        self.step_count += 1
        self.seen += batch.num_tokens
        return PretrainReport(self.step_count, self.seen, loss.detach(), norm, rate)

    def close(self) -> None:
        self.shards.close()

    def state_dict(self) -> dict:
        """All that the next step depends on besides the weights."""
        return {
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "counters": [self.step_count, self.seen, self.shard_number, self.next_batch],
        }

    def load_state_dict(self, state: dict) -> None:
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.step_count, self.seen, self.shard_number, self.next_batch = state["counters"]
        self.batches = []
        self.close()
        self.shards = self.open_shards()
