"""What a base reads: shards of documents as batches of rows, without torch.

A shard is a function of (settings, shard number), so it does not matter which process writes it,
nothing is read twice, and a stopped run resumes on exactly the batch where it was. A row is one
document, from position 0, as the model will meet it later; rows of like length share a batch,
which keeps padding below a few per cent without letting one document look at another.

Shapes: B rows, T tokens.
"""

from dataclasses import dataclass
from random import Random

import numpy as np
from tokenizers import Tokenizer as FastTokenizer

from aha.core.seeds import seed_for
from aha.corpus.bases import PretrainConfig
from aha.corpus.traces import documents
from aha.tasks.countdown import split_of

MARKS = ("=", "/", "\n")


@dataclass(frozen=True)
class CorpusTokenizer:
    """What writing needs of a tokenizer: it travels to a process that knows no model. `marks` are
    the ids of "=", "/" and the newline."""

    fast: FastTokenizer
    end: int
    pad: int
    marks: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer) -> "CorpusTokenizer":
        """Of an `aha.model.tokenizer.Tokenizer`."""
        marks = tuple(tokenizer.encode(mark)[0] for mark in MARKS)
        return cls(tokenizer.fast, tokenizer.stop_ids[0], tokenizer.pad_id, marks)


@dataclass(frozen=True)
class DocumentBatch:
    """Rows of like length. Weights are 0 on prompts (they are given, not learnt) and padding."""

    tokens_BT: np.ndarray  # int32
    weights_BT: np.ndarray  # float32
    num_tokens: int  # padding not counted


def write_shard(
    spelling: CorpusTokenizer, cfg: PretrainConfig, number: int, longest: int
) -> list[DocumentBatch]:
    """The batches of one shard, in the order in which they are read."""

    def keep(numbers, target):
        return split_of(numbers, target) == "train"

    stream = documents(cfg.mix, seed_for(cfg.seed, number), keep)
    texts = [next(stream) for _ in range(cfg.shard_documents)]
    prompts = spelling.fast.encode_batch([p for p, _ in texts], add_special_tokens=False)
    endings = spelling.fast.encode_batch([c for _, c in texts], add_special_tokens=False)
    rows = []
    for prompt, ending in zip(prompts, endings, strict=True):
        tokens = [*prompt.ids, *ending.ids, spelling.end]
        if len(tokens) <= longest:
            rows.append((tokens, len(prompt.ids)))
    rng = Random(seed_for("batches", cfg.seed, number))
    rng.shuffle(rows)  # ties in length are broken by chance
    rows.sort(key=lambda row: len(row[0]))
    batches, part = [], []
    for row in rows:
        if part and (len(part) + 1) * len(row[0]) > cfg.batch_tokens:
            batches.append(collate(part, spelling, cfg.result_weight))
            part = []
        part.append(row)
    batches.append(collate(part, spelling, cfg.result_weight))
    rng.shuffle(batches)
    return batches


def collate(
    rows: list[tuple[list[int], int]], spelling: CorpusTokenizer, result_weight: float
) -> DocumentBatch:
    """A batch of rows `(tokens, where learning starts)`."""
    width = max(len(tokens) for tokens, _ in rows)
    tokens_BT = np.full((len(rows), width), spelling.pad, np.int32)
    mask_BT = np.zeros((len(rows), width), np.float32)
    for index, (tokens, start) in enumerate(rows):
        tokens_BT[index, : len(tokens)] = tokens
        mask_BT[index, start : len(tokens)] = 1.0
    weights_BT = mask_BT * weigh(tokens_BT, spelling.marks, result_weight)
    return DocumentBatch(tokens_BT, weights_BT, sum(len(tokens) for tokens, _ in rows))


def weigh(tokens_BT: np.ndarray, marks: tuple[int, ...], result_weight: float) -> np.ndarray:
    """`result_weight` for what stands between an "=" or a "/" and the end of its line, 1 elsewhere;
    float32. `marks` are the ids of "=", "/" and the newline.

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
