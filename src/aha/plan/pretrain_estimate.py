"""What pre-training a base takes, from its shape alone: memory by part, tokens/s, time and money.

Rates are those of cards.toml, as for a run (`aha.plan.speed`); nothing of a GPU has been measured.
In addition to an RL run it counts Muon's products, and the documents that CPU processes write. On a
CPU a rank is a process of its own, and for a small base what that holds besides tensors is nearly
all of the memory.
"""

from dataclasses import dataclass

from aha.core.sizes import GB, LOGITS_CHUNK, NEWTON_SCHULZ_ROUNDS, TINY_POSITIONS
from aha.plan.estimate import RESERVE, UPDATE_BYTES, activation_bytes, folded_bytes
from aha.plan.machines import Cost
from aha.plan.shapes import Shape
from aha.plan.speed import Card, Training

# Of the corpus with its default settings (a test writes some documents and counts): the mean length
# in tokens of the document that a random token belongs to, and the factor of padding.
DOCUMENT_TOKENS = 310.0  # about 300 in the corpus of aha-tiny, 330 in that of 10m
PADDING = 1.03
# Tokens/s that one core writes, with batching: 261,000-268,000 of processor time on a shared AMD
# EPYC, whole shards of both corpora.
WRITTEN = 260_000.0
WRITERS = 8  # default number of processes that write documents for a GPU

# Of a rank on a CPU, in bytes besides its tensors: torch, the corpus and the program once they are
# imported; what writing a shard takes for each of its tokens (118-230 for 2,000 and 500 documents);
# and what oneDNN compiles for a size of batch and keeps, with the gaps that it leaves in the heap.
# It keeps 1,024 products, and a size of batch has some ten, so in a long training it is full.
PROCESS = 320e6
WRITING = 130.0
SHARD_TOKENS = 65.0  # mean length of a document, each counted once
COMPILED = 20e6  # for a size of batch, where the CPU multiplies bf16
COMPILED_SIZES = 100

# GPU kernels that are started besides those of a layer (`layer_us`), counted in the source: for
# attention forward and backward, for Muon's update of one matrix, and for its products over all
# matrices of one shape; and the seconds that a start takes, which nobody has measured yet.
ATTENTION_STARTS, MATRIX_STARTS, SHAPE_STARTS = 50.0, 4.0, 20.0
KERNEL_START = 5e-6


@dataclass(frozen=True)
class PretrainTokens:
    """Tokens to train on in all (without padding) and in one update (with it), the positions of the
    longest document, and the documents of a shard."""

    tokens: float
    batch_tokens: int
    positions: int = TINY_POSITIONS
    shard_documents: int = 0

    @property
    def updates(self) -> float:
        return self.tokens * PADDING / self.batch_tokens


@dataclass(frozen=True)
class BasePlan:
    """Memory in bytes by part, of all ranks; times in seconds, of one."""

    memory: dict[str, float]
    updates: float
    compute_s: float  # of an update: the model and its optimisers
    write_s: float  # of an update: writing its documents, with all processes
    tokens_per_s: float
    cost: Cost

    @property
    def peak(self) -> float:
        return sum(self.memory.values())

    def fits(self, card: Card) -> bool:
        return self.peak <= card.memory * GB * (1 - RESERVE)


def estimate_base(
    shape: Shape, reading: PretrainTokens, card: Card, writers: int = 0, ranks: int = 1
) -> BasePlan:
    """The plan of a base on a card, with `writers` processes that write documents. They work while
    a GPU computes; with 0 of them, or where they share the CPU with the training, times add up.
    `ranks` share the cores of a CPU, so only the memory depends on them."""
    compute = compute_seconds(shape, reading, card)
    write = reading.batch_tokens / PADDING / (WRITTEN * max(1, writers))
    update = max(compute, write) if writers and not card.cpu else compute + write
    seconds = reading.updates * update
    return BasePlan(
        base_memory(shape, reading, ranks) | process_memory(reading, card, ranks),
        reading.updates,
        compute,
        write,
        reading.tokens / seconds,
        Cost.of(seconds, card.usd_per_hour, card.watts),
    )


def compute_seconds(shape: Shape, reading: PretrainTokens, card: Card) -> float:
    """Of one update."""
    length = min(DOCUMENT_TOKENS, reading.positions)
    training = Training(reading.batch_tokens, length, 1.0).seconds(shape, card)
    muon = muon_flop(shape) / card.train_rate
    update = UPDATE_BYTES * shape.parameters / (card.bandwidth * GB)
    inside = matrices(shape)
    starts = shape.L * (ATTENTION_STARTS + len(inside) * MATRIX_STARTS)
    starts += len(set(inside)) * SHAPE_STARTS
    starting = 0.0 if card.cpu else starts * KERNEL_START
    return training + muon + update + starting


def matrices(shape: Shape) -> list[tuple[int, int]]:
    """(smaller, larger side) of the seven of one layer."""
    q, kv = shape.H * shape.D, shape.K * shape.D
    sides = [(shape.C, q), (shape.C, kv), (shape.C, kv), (q, shape.C)]
    sides += 3 * [(shape.C, shape.I)]
    return [(min(pair), max(pair)) for pair in sides]


def muon_flop(shape: Shape) -> float:
    """FLOP of one update: a round makes X Xᵀ [m, m], its square, and a product with X [m, n]."""
    layer = sum(4.0 * m * m * n + 2.0 * m**3 for m, n in matrices(shape))
    return NEWTON_SCHULZ_ROUNDS * shape.L * layer


def base_memory(shape: Shape, reading: PretrainTokens, ranks: int = 1) -> dict[str, float]:
    """Bytes by part: everything that lasts in float32, one moment in Muon and two in AdamW. Each
    rank has whole weights and its share of the rows."""
    inside = shape.L * sum(m * n for m, n in matrices(shape))
    tokens = reading.batch_tokens
    return {
        "weights": ranks * 4.0 * shape.parameters,
        "gradients": ranks * 4.0 * shape.parameters,
        "optimiser": ranks * (4.0 * inside + 8.0 * (shape.parameters - inside)),
        "folded weights": ranks * folded_bytes(shape),
        "activations": activation_bytes(shape, tokens),
        "logits": ranks * 3 * 4.0 * min(tokens / ranks * shape.V, LOGITS_CHUNK),
    }


def process_memory(reading: PretrainTokens, card: Card, ranks: int) -> dict[str, float]:
    """Bytes by part of ranks on a CPU, besides their tensors; none on a GPU."""
    if not card.cpu:
        return {}
    shard = SHARD_TOKENS * reading.shard_documents
    sizes = 0.0 if card.float32 else min(COMPILED_SIZES, reading.updates)
    return {
        "processes": ranks * PROCESS,
        "writing shards": ranks * WRITING * shard,
        "compiled products": ranks * COMPILED * sizes,
    }
