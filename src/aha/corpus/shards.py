"""Shards of documents as batches of rows, without torch.

A shard is a function of (settings, shard number), so it does not matter which process writes it,
nothing is read twice, and a stopped run resumes on exactly the batch where it was. A row is one
document, from position 0, as the model will meet it later; rows of like length share a batch,
which keeps padding below a few per cent without letting one document attend to another.

Shapes: B rows, T tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as FastTokenizer

from aha.core.seeds import seed_for
from aha.corpus.bases import PretrainConfig
from aha.corpus.documents import documents
from aha.tasks.countdown import split_of

MARKS = ("=", "/", "\n")
Row = tuple[list[int], int]  # tokens, and how many of them are the prompt's


class ModelTokenizer(Protocol):
    """What is read of an `aha.model.tokenizer.Tokenizer`; this room lies below that one."""

    fast: FastTokenizer
    stop_ids: Sequence[int]
    pad_id: int

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class CorpusTokenizer:
    """The parts of a tokenizer that writing needs; a process that imports no model can hold it.

    `end` and `pad` are token ids, `marks` the ids of "=", "/" and the newline.
    """

    fast: FastTokenizer
    end: int
    pad: int
    marks: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: ModelTokenizer) -> "CorpusTokenizer":
        """The parts of a model's tokenizer."""
        marks = tuple(tokenizer.encode(mark)[0] for mark in MARKS)
        return cls(tokenizer.fast, tokenizer.stop_ids[0], tokenizer.pad_id, marks)


@dataclass(frozen=True)
class DocumentBatch:
    """Rows of like length. Weights are 0 on prompts (they are given, not learnt) and padding."""

    tokens_BT: NDArray[np.int32]
    weights_BT: NDArray[np.float32]
    num_tokens: int  # padding not counted


def write_shard(
    tokenizer: CorpusTokenizer, cfg: PretrainConfig, number: int, max_tokens: int
) -> list[DocumentBatch]:
    """The batches of one shard, in the order in which they are read.

    A document of more than `max_tokens` tokens, its end token included, is left out.
    """

    def keep(numbers: tuple[int, ...], target: int) -> bool:
        return split_of(numbers, target) == "train"

    stream = documents(cfg.mix, seed_for(cfg.seed, number), keep)
    texts = [next(stream) for _ in range(cfg.shard_documents)]
    prompts = tokenizer.fast.encode_batch([p for p, _ in texts], add_special_tokens=False)
    endings = tokenizer.fast.encode_batch([c for _, c in texts], add_special_tokens=False)
    rows: list[Row] = []
    for prompt, ending in zip(prompts, endings, strict=True):
        tokens = [*prompt.ids, *ending.ids, tokenizer.end]
        if len(tokens) <= max_tokens:
            rows.append((tokens, len(prompt.ids)))
    rng = Random(seed_for("batches", cfg.seed, number))
    rng.shuffle(rows)  # ties in length are broken by chance
    rows.sort(key=lambda row: len(row[0]))
    batches: list[DocumentBatch] = []
    part: list[Row] = []
    for row in rows:
        if part and (len(part) + 1) * len(row[0]) > cfg.batch_tokens:
            batches.append(collate(part, tokenizer, cfg.result_weight))
            part = []
        part.append(row)
    batches.append(collate(part, tokenizer, cfg.result_weight))
    rng.shuffle(batches)
    return batches


def collate(rows: list[Row], tokenizer: CorpusTokenizer, result_weight: float) -> DocumentBatch:
    """One batch of the rows, padded to the longest of them."""
    width = max(len(tokens) for tokens, _ in rows)
    tokens_BT = np.full((len(rows), width), tokenizer.pad, np.int32)
    mask_BT = np.zeros((len(rows), width), np.float32)
    for index, (tokens, start) in enumerate(rows):
        tokens_BT[index, : len(tokens)] = tokens
        mask_BT[index, start : len(tokens)] = 1.0
    weights_BT = mask_BT * token_weights(tokens_BT, tokenizer.marks, result_weight)
    return DocumentBatch(tokens_BT, weights_BT, sum(len(tokens) for tokens, _ in rows))


def token_weights(
    tokens_BT: NDArray[np.int32], marks: tuple[int, ...], result_weight: float
) -> NDArray[np.float32]:
    """The weight of each token in the loss: `result_weight` for what stands between an "=" or a "/"
    and the end of its line, 1 elsewhere. `marks` are the ids of "=", "/" and the newline.

    Results, verdicts and whether a division is whole follow from what was read; which numbers to
    combine is mostly chance, and its noise would drown them. Weights do not move the optimum: they
    depend on what stands before a token, not on the token.
    """
    place = np.arange(tokens_BT.shape[1], dtype=np.int32)
    last_equals, last_slash, last_newline = (
        np.maximum.accumulate(np.where(tokens_BT == mark, place, -1), axis=1) for mark in marks
    )
    # A line's own newline still belongs to it: it says that there is no verdict.
    before = np.where(last_newline == place, np.roll(last_newline, 1, axis=1), last_newline)
    inside = np.zeros(tokens_BT.shape, bool)
    for last in (last_equals, last_slash):
        inside |= (last > before) & (last < place)
    return np.where(inside, np.float32(result_weight), np.float32(1.0))
