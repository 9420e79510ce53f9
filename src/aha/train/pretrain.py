"""Pre-training from nothing on the traces that this project writes.

Every shard of documents is fresh and a function of (seed, shard number), so nothing is read twice
and a stopped run resumes on exactly the batch where it was. A row is one document, from position
0, as the model will meet it later; rows of like length share a batch, which keeps padding below a
few per cent without letting one document look at another.

Shapes: B rows, T tokens.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

import torch

from aha.core.seeds import seed_for
from aha.model.tokenizer import Tokenizer
from aha.model.transformer import Decoder
from aha.tasks.countdown import split_of
from aha.tasks.mix import TraceMix
from aha.tasks.traces import documents


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides the weights, so that the model card can quote it."""

    tokens: int = 44_000_000  # tokens of documents to read, padding not counted
    batch_tokens: int = 5_120  # per update, padding counted
    shard_documents: int = 20_000
    lr: float = 6e-3  # of Muon, for the matrices
    lr_rest: float = 4e-3  # of AdamW, for embeddings, norms and biases
    warmup_steps: int = 100
    decay: float = 0.4  # last share of the tokens, over which lr falls linearly to 0
    result_weight: float = 3.0  # of tokens that follow from what was read, see `weigh`
    weight_decay: float = 0.1
    grad_clip: float = 1.0
    dtype: str = "bfloat16"
    seed: int = 0
    mix: TraceMix = field(default_factory=TraceMix)


@dataclass(frozen=True)
class Batch:
    """Rows of like length. Weights are 0 on prompts (they are given, not learnt) and padding."""

    tokens_BT: torch.Tensor
    weights_BT: torch.Tensor
    num_tokens: int


def shard(tokenizer: Tokenizer, cfg: PretrainConfig, number: int, longest: int) -> list[Batch]:
    """The batches of one shard, in the order in which they are read."""

    def keep(numbers, target):
        return split_of(numbers, target) == "train"

    stream = documents(cfg.mix, seed_for(cfg.seed, number), keep)
    texts = [next(stream) for _ in range(cfg.shard_documents)]
    prompts = tokenizer.fast.encode_batch([p for p, _ in texts], add_special_tokens=False)
    endings = tokenizer.fast.encode_batch([c for _, c in texts], add_special_tokens=False)
    end = tokenizer.stop_ids[0]
    rows = []
    for prompt, ending in zip(prompts, endings, strict=True):
        tokens = [*prompt.ids, *ending.ids, end]
        if len(tokens) <= longest:
            rows.append((tokens, len(prompt.ids)))
    rng = Random(seed_for("batches", cfg.seed, number))
    rng.shuffle(rows)  # ties in length are broken by chance
    rows.sort(key=lambda row: len(row[0]))
    batches, part = [], []
    for row in rows:
        if part and (len(part) + 1) * len(row[0]) > cfg.batch_tokens:
            batches.append(collate(part, tokenizer, cfg.result_weight))
            part = []
        part.append(row)
    batches.append(collate(part, tokenizer, cfg.result_weight))
    rng.shuffle(batches)
    return batches


def collate(rows: list[tuple[list[int], int]], tokenizer: Tokenizer, result_weight: float) -> Batch:
    width = max(len(tokens) for tokens, _ in rows)
    tokens_BT = torch.full((len(rows), width), tokenizer.pad_id)
    mask_BT = torch.zeros((len(rows), width))
    for index, (tokens, start) in enumerate(rows):
        tokens_BT[index, : len(tokens)] = torch.tensor(tokens)
        mask_BT[index, start : len(tokens)] = 1.0
    weights_BT = mask_BT * weigh(tokens_BT, tokenizer, result_weight)
    return Batch(tokens_BT, weights_BT, sum(len(tokens) for tokens, _ in rows))


def weigh(tokens_BT: torch.Tensor, tokenizer: Tokenizer, result_weight: float) -> torch.Tensor:
    """`result_weight` for what stands between an "=" or a "/" and the end of its line, 1 elsewhere.

    Results, verdicts and whether a division is whole follow from what was read; which numbers to
    combine is mostly chance, and its noise would drown them. Weights do not move the optimum: they
    depend on what stands before a token, not on the token.
    """
    place = torch.arange(tokens_BT.shape[1]).expand_as(tokens_BT)
    nowhere = torch.full_like(tokens_BT, -1)
    last = {
        text: torch.where(tokens_BT == tokenizer.encode(text)[0], place, nowhere).cummax(1).values
        for text in ("=", "/", "\n")
    }
    # A line's own newline still belongs to it: it says that there is no verdict.
    ends_here = last["\n"] == place
    before = torch.where(ends_here, last["\n"].roll(1, 1), last["\n"])
    inside = torch.zeros_like(ends_here)
    for mark in ("=", "/"):
        inside |= (last[mark] > before) & (last[mark] < place)
    return 1.0 + (result_weight - 1.0) * inside


def schedule(cfg: PretrainConfig, step: int, seen: int) -> float:
    """Share of the learning rate: warm-up over steps, constant, linear to 0 over the last tokens.

    Source: the trapezoid of Hägele et al. 2024 (arXiv 2405.18392); unlike a cosine it lets a
    run be prolonged from any checkpoint of its flat part.
    """
    left = max(0.0, 1.0 - seen / cfg.tokens)
    return min(1.0, (step + 1) / cfg.warmup_steps, left / cfg.decay)


def make_optimizers(decoder: Decoder, cfg: PretrainConfig) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for everything else.

    Source: Jordan et al. 2024 (Muon) with the RMS matching of Liu et al. 2025 (arXiv 2502.16982).
    """
    inside = {id(p) for p in decoder.model.layers.parameters() if p.ndim == 2}
    matrices = [p for p in decoder.parameters() if id(p) in inside]
    rest = [p for p in decoder.parameters() if id(p) not in inside]
    muon = torch.optim.Muon(
        matrices, lr=cfg.lr, weight_decay=cfg.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    adamw = torch.optim.AdamW(rest, lr=cfg.lr_rest, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return [muon, adamw]


@dataclass(frozen=True)
class PretrainReport:
    """One update, for the watchers. `loss` is in nats per token, weighted."""

    step: int
    seen: int
    loss: float
    grad_norm: float
    rate: float
    seconds: float

    @property
    def version(self) -> int:
        return self.step


class Pretrainer:
    """Next-token training on documents; `step` is one update."""

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, cfg: PretrainConfig):
        self.decoder, self.tokenizer, self.cfg = decoder, tokenizer, cfg
        self.optimizers = make_optimizers(decoder, cfg)
        self.step_count = self.seen = 0
        self.shard_number = self.next_batch = 0
        self.batches: list[Batch] = []

    @property
    def done(self) -> bool:
        return self.seen >= self.cfg.tokens

    def steps(self) -> Iterator[PretrainReport]:
        while not self.done:
            yield self.step()

    def draw(self) -> Batch:
        if not self.batches:
            longest = self.decoder.config.max_position_embeddings
            self.batches = shard(self.tokenizer, self.cfg, self.shard_number, longest)
        batch = self.batches[self.next_batch]
        self.next_batch += 1
        if self.next_batch == len(self.batches):
            self.shard_number, self.next_batch, self.batches = self.shard_number + 1, 0, []
        return batch

    def step(self) -> PretrainReport:
        started = time.perf_counter()
        batch = self.draw()
        rate = schedule(self.cfg, self.step_count, self.seen)
        dtype = getattr(torch, self.cfg.dtype)
        logprobs_BT = self.decoder.token_logprobs(batch.tokens_BT, start=1, dtype=dtype)
        weights_BT = batch.weights_BT[:, 1:]
        loss = -(logprobs_BT * weights_BT).sum() / weights_BT.sum()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.decoder.parameters(), self.cfg.grad_clip)
        for optimizer, lr in zip(self.optimizers, (self.cfg.lr, self.cfg.lr_rest), strict=True):
            optimizer.param_groups[0]["lr"] = lr * rate
            optimizer.step()
            optimizer.zero_grad()
        self.step_count += 1
        self.seen += batch.num_tokens
        seconds = time.perf_counter() - started
        return PretrainReport(self.step_count, self.seen, loss.item(), norm.item(), rate, seconds)

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
