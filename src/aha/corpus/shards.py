"""The stream of documents that a base model reads, and its shards as batches of rows.

A shard is a function of (settings, shard number). So any process can write it, no document is read
twice, and a stopped run resumes at exactly the next batch. A row is one document, which begins at
position 0 as in RL. Rows of similar length share a batch: this keeps padding below a few per cent,
and no document attends to another.

Shapes: B rows, T tokens.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer as FastTokenizer

from aha.core.seeds import seed_for
from aha.corpus.bases import PretrainConfig, TraceMix
from aha.corpus.drills import page_for, product_documents, writes_held_out
from aha.corpus.orderly import OrderlySearch
from aha.corpus.terms import Move, TableNumber, without
from aha.corpus.traces import Trace, TraceWriter, completion_text
from aha.tasks.countdown import LARGEST, SMALLEST, TARGETS, puzzle_line, split_of
from aha.tasks.solver import can_make
from aha.tasks.tags import plain_frame

# -- documents -----------------------------------------------------------------------------------

OPEN_LINES = 2  # of an orderly search: they show its way, the others follow from them


class Document(NamedTuple):
    """What a base reads at a time; drills have an empty prompt.

    `follows`: the characters of the completion that follow from the text before them, but for
    what the rates of the mix decide (an operation passed by, another pass). These are the answer
    where the last lines made it, and the lines of a search in order, but for the first ones, which
    show its way. All else is chance, but for results and verdicts.
    """

    prompt: str
    completion: str
    follows: range = range(0)


def played_puzzle(writer: TraceWriter, size: int, targets: range) -> Trace:
    """A solvable puzzle: random numbers, combined at random; the last result is the target.

    Fast. Puzzles with many solutions are more frequent than with `drawn_puzzle`.
    """
    while True:
        numbers = tuple(writer.rng.randint(SMALLEST, LARGEST) for _ in range(size))
        terms = tuple(map(TableNumber.given, numbers))
        moves: list[Move] = []
        while len(terms) > 1:
            a, op, b, result = writer.any_move(terms)
            moves.append((a, op, b, result))
            terms = (*without(terms, a, b), result)
        if terms[0].value in targets:
            return Trace(numbers, terms[0].value, gold=moves)


def drawn_puzzle(writer: TraceWriter, size: int, targets: range) -> Trace:
    """A puzzle as the task draws it: all solvable (numbers, target) pairs are equally likely.

    Few of them are easy, so an orderly search is often long.
    """
    while True:
        numbers = tuple(writer.rng.randint(SMALLEST, LARGEST) for _ in range(size))
        target = writer.rng.choice(targets)
        if can_make(numbers, target):
            return Trace(numbers, target)


def documents(
    mix: TraceMix, seed: int, keep: Callable[[tuple[int, ...], int], bool]
) -> Iterator[Document]:
    """Endless documents.

    Only puzzles for which `keep(numbers, target)` is true are written. Pre-training keeps those of
    the training split, so that no held-out problem and no held-out target is ever read. Products
    are from the training split of their own task, and where there are any, so are those on pages
    and in puzzles.
    """
    rng = Random(seed_for("traces", seed))
    writer = TraceWriter(mix, rng)
    # An orderly search checks and goes back: with either rate at 0 there is none.
    orderly = mix.orderly if mix.verify and mix.backtrack else 0.0
    while True:
        if mix.multiply:
            yield from (Document(*texts) for texts in product_documents(rng, mix))
        size = rng.choice(mix.numbers)
        searches = size == 2 or rng.random() < mix.search
        in_order = size > 2 and searches and rng.random() < orderly
        trace = (drawn_puzzle if in_order else played_puzzle)(writer, size, TARGETS)
        if not keep(trace.numbers, trace.target):
            continue
        if rng.random() < mix.drill:
            # The puzzle's own target: a drawn one could be a held-out target.
            yield Document("", page_for(rng, mix, trace.target))
        if in_order:
            OrderlySearch(trace, mix, rng).write()
            trace.answer = trace.answer or writer.any_answer(trace)
        elif searches:
            writer.search(trace)
        else:
            writer.guess(trace)
        completion = completion_text(trace)
        if mix.multiply and writes_held_out(completion):
            continue
        follows = what_follows(trace, completion, in_order, trace.solved or not searches)
        yield Document(plain_frame(puzzle_line(trace.numbers, trace.target)), completion, follows)


def what_follows(trace: Trace, completion: str, in_order: bool, made_last: bool) -> range:
    """`Document.follows`; `made_last`: the last lines, if there are any, made the answer."""
    lengths = [len(text) + 1 for text in trace.lines]
    first = sum(lengths[:OPEN_LINES]) if in_order else sum(lengths)
    return range(first, len(completion) if made_last and lengths else sum(lengths))


# -- shards --------------------------------------------------------------------------------------

MARKS = ("=", "/", "\n")


class DocumentRow(NamedTuple):
    """The tokens of a document, how many of them are the prompt, and the places of those that
    follow from the text before them, see `Document.follows`.

    `choice_weight` is the weight of these, where `follows_line` does not mark them.
    """

    tokens: list[int]
    start: int
    follows: range


class ModelTokenizer(Protocol):
    """The parts of `aha.model.tokenizer.Tokenizer` used here; this room may not import it."""

    fast: FastTokenizer
    pad_id: int

    @property
    def stop_ids(self) -> Sequence[int]: ...

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class CorpusTokenizer:
    """The parts of a tokenizer that writers need, so that their processes import no model.

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
    """Rows of similar length. Weights are 0 on prompts (they are given, not learnt) and padding."""

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
    encode = partial(tokenizer.fast.encode_batch, add_special_tokens=False)
    prompts = encode([document.prompt for document in texts])
    endings = encode([document.completion for document in texts])
    rows: list[DocumentRow] = []
    for prompt, ending, document in zip(prompts, endings, texts, strict=True):
        tokens, start = [*prompt.ids, *ending.ids, tokenizer.end], len(prompt.ids)
        ends = [end for _, end in ending.offsets]
        first, stop = document.follows.start, document.follows.stop
        follows = range(start + bisect_right(ends, first), start + bisect_right(ends, stop))
        if len(tokens) <= max_tokens:
            rows.append(DocumentRow(tokens, start, follows))
    rng = Random(seed_for("batches", cfg.seed, number))
    rng.shuffle(rows)  # ties in length are broken by chance
    rows.sort(key=lambda row: len(row.tokens))
    batches: list[DocumentBatch] = []
    part: list[DocumentRow] = []
    for row in rows:
        if part and (len(part) + 1) * len(row.tokens) > cfg.batch_tokens:
            batches.append(collate(part, tokenizer, cfg))
            part = []
        part.append(row)
    batches.append(collate(part, tokenizer, cfg))
    rng.shuffle(batches)
    return batches


def collate(
    rows: list[DocumentRow], tokenizer: CorpusTokenizer, cfg: PretrainConfig
) -> DocumentBatch:
    """One batch of the rows, padded to the longest of them."""
    width = max(len(row.tokens) for row in rows)
    tokens_BT = np.full((len(rows), width), tokenizer.pad, np.int32)
    for index, row in enumerate(rows):
        tokens_BT[index, : len(row.tokens)] = row.tokens
    follows_BT = follows_line(tokens_BT, tokenizer.marks)
    weights_BT = np.where(follows_BT, np.float32(cfg.result_weight), np.float32(1.0))
    for index, row in enumerate(rows):
        chosen = slice(row.follows.start, row.follows.stop)
        weights_BT[index, chosen][~follows_BT[index, chosen]] = cfg.choice_weight
        weights_BT[index, : row.start] = 0.0
        weights_BT[index, len(row.tokens) :] = 0.0
    return DocumentBatch(tokens_BT, weights_BT, sum(len(row.tokens) for row in rows))


def follows_line(tokens_BT: NDArray[np.int32], marks: tuple[int, ...]) -> NDArray[np.bool_]:
    """True for tokens that follow from their own line: those after an "=" or a "/" up to the end
    of the line. `marks` are the ids of "=", "/" and the newline.

    These are results, verdicts, and whether a division is whole. Which numbers are combined is
    mostly chance, and the noise of those tokens would dominate the loss. More weight for these does
    not change the optimum: it depends on the text before a token, not on the token. (The weight of
    `DocumentRow.follows` does, a little: where the same lines begin a search in order and one by
    chance, it favours the order.)
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
    return inside
