"""How long a machine takes to write and to train tokens: counts over rates.

Products and keys-and-values are counted apart. The first are bound by arithmetic or by reading
the weights, whichever is slower; the second by memory, and they grow with the context.
"""

from dataclasses import dataclass

from aha.core.config import RunConfig
from aha.core.method import Method
from aha.core.sizes import GB
from aha.plan.shapes import Shape

# Tokens of a prompt, by its template.
PROMPT_TOKENS = {"plain": 24, "r1": 160, "instruct": 160}
MEAN_SHARE = 0.5  # of the limit: how long completions are, where nothing was measured
# Lengths have a tail: seen from a token, its completion is longer than the mean one.
TAIL = 1.5
# Of the tokens, those in groups that teach: the others are not trained on. In results/demo .57-.60.
TEACHING = 0.6


@dataclass(frozen=True)
class Workload:
    """What a plan is made for: a recipe, what its method computes, and the shape of its model.

    The method is `aha.algo.algorithms.method_of(cfg)`; it comes from the caller, because reading
    the algorithms' facts is not for this room.
    """

    cfg: RunConfig
    method: Method
    shape: Shape

    @property
    def decoders(self) -> int:
        """Models that train: a critic is a decoder of its own."""
        return 2 if self.method.critic else 1


@dataclass(frozen=True)
class Card:
    """A machine: GB, bf16 TFLOP/s, GB/s, W, what an hour costs, and what is reached of it.

    `train` and `generate` are shares of the arithmetic (0: as in training), `decode` of the
    bandwidth; an operation of attention takes `attention` times as long as one of a product; a
    layer takes `layer_us` microseconds however little there is to do. `cpu`: its memory is the
    host's. `float32`: it multiplies no bf16, so what is bf16 elsewhere takes twice the memory.
    """

    memory: float
    tflops: float
    bandwidth: float
    watts: float
    usd_per_hour: float
    train: float
    decode: float
    layer_us: float
    generate: float = 0.0
    attention: float = 4.0
    cpu: bool = False
    float32: bool = False

    @property
    def train_rate(self) -> float:
        """FLOP/s of products in training."""
        return self.tflops * 1e12 * self.train

    @property
    def generate_rate(self) -> float:
        return self.tflops * 1e12 * (self.generate or self.train)

    @property
    def decode_rate(self) -> float:
        """Bytes/s of weights, keys and values while generating."""
        return self.bandwidth * GB * self.decode


@dataclass(frozen=True)
class Writing:
    """Tokens to generate: how many, what context one of them sees on average, how often all
    weights are gone through, and how many tokens of prompts are read."""

    tokens: float
    context: float
    passes: float
    prompt_tokens: float

    def products(self, shape: Shape) -> float:
        """FLOP."""
        return 2.0 * shape.multiplied * (self.tokens + self.prompt_tokens)

    def weight_bytes(self, shape: Shape) -> float:
        return 2.0 * shape.multiplied * self.passes

    def cache_bytes(self, shape: Shape) -> float:
        return 2.0 * shape.kv_numbers * self.tokens * self.context

    def seconds(self, shape: Shape, card: Card) -> float:
        reading = self.weight_bytes(shape) / card.decode_rate
        products = max(reading, self.products(shape) / card.generate_rate)
        floor = self.passes * shape.L * card.layer_us * 1e-6
        return products + self.cache_bytes(shape) / card.decode_rate + floor


@dataclass(frozen=True)
class Training:
    """Tokens to train on: how many, how long the row of one of them is on average, in how many
    micro-batches; `work` FLOP of a parameter and token, 6 for forward and backward."""

    tokens: float
    length: float
    parts: float
    work: float = 6.0

    def products(self, shape: Shape) -> float:
        """FLOP."""
        return self.work * shape.multiplied * self.tokens

    def attention(self, shape: Shape) -> float:
        """FLOP: half of the length is seen, once as keys and once as values."""
        return self.work * self.length * shape.H * shape.D * shape.L * self.tokens

    def seconds(self, shape: Shape, card: Card) -> float:
        flop = self.products(shape) + card.attention * self.attention(shape)
        # Forward, and backward with its two products.
        return flop / card.train_rate + 3 * self.parts * shape.L * card.layer_us * 1e-6


def expected_tokens(cfg: RunConfig, base: float = 0.0) -> tuple[float, str]:
    """(tokens of a completion on average over a run, where that is from), known before the run.

    `base`: what the base was seen to write, 0 where it was not asked. A run begins there and is
    taken to end at half of the limit: the middle of the way is its mean. Nothing is fitted.
    """
    half = MEAN_SHARE * cfg.rollout.max_new_tokens
    if cfg.rollout.expected_tokens:
        return cfg.rollout.expected_tokens, "rollout.expected_tokens"
    if base:
        return (base + half) / 2, f"midway from the {base:.0f} of the base to half of the limit"
    return half, "half of rollout.max_new_tokens"


@dataclass(frozen=True)
class Lengths:
    """Tokens: of a prompt, of a completion at most and on average."""

    prompt: float
    limit: float
    mean: float

    @classmethod
    def of(cls, cfg: RunConfig, mean: float | None = None) -> "Lengths":
        """`mean` where it is known, else the guess without having seen the base."""
        limit = cfg.rollout.max_new_tokens
        return cls(PROMPT_TOKENS[cfg.task.template], limit, mean or expected_tokens(cfg)[0])

    @property
    def weighted(self) -> float:
        """How long a completion is, asked at each of its tokens."""
        return min(self.limit, TAIL * self.mean)

    def writing(self, rows: float, prompts: float, max_rows: int) -> Writing:
        """`rows` completions of `prompts` prompts; the longest ends last, rows wait for room."""
        passes = self.limit * -(-rows // max_rows)
        context = self.prompt + self.weighted / 2
        return Writing(rows * self.mean, context, passes, prompts * self.prompt)

    def training(self, rows: float, prompts: float, micro: int, work: float) -> Training:
        """`rows` completions of `prompts` prompts, each of which is computed once."""
        tokens = rows * self.mean + prompts * self.prompt
        return Training(tokens, self.prompt + self.weighted, -(-tokens // micro), work)


def rollout_of(load: Workload, lengths: Lengths) -> Writing:
    """Of one step. Drawing prompts again until enough groups teach takes twice as many."""
    rollout = load.cfg.rollout
    prompts = (2 if load.method.resamples else 1) * rollout.prompts
    return lengths.writing(prompts * rollout.group_size, prompts, rollout.max_rows)


def training_of(load: Workload, lengths: Lengths) -> Training:
    """Of one step, in all its updates."""
    cfg = load.cfg
    prompts = cfg.rollout.prompts * computed_share(load)
    rows, micro = prompts * cfg.rollout.group_size, cfg.optim.micro_batch_tokens
    return lengths.training(rows, prompts, micro, work_of(load))


def computed_share(load: Workload) -> float:
    """Of the rows of a step, those that are computed, on average over its updates.

    A share `TEACHING` of the groups is not flat. The rows of a flat group have the advantage 0, and
    the trainer skips them in each update where `Method.computes_every_row` does not say otherwise.
    """
    method, algo = load.method, load.cfg.algo
    if method.resamples or not method.flat_is_zero:
        return 1.0
    if method.drops_flat:
        return TEACHING
    every = [method.computes_every_row(u, algo.entropy_coef) for u in range(algo.updates)]
    return sum(1.0 if whole else TEACHING for whole in every) / len(every)


def work_of(load: Workload) -> float:
    """FLOP of a parameter and token: 2 forward, 2 back to the inputs, 2 to the weights (none
    where they are frozen), 2 for another forward pass; a critic reads, and trains as much."""
    work = 4.0 if load.cfg.model.lora_rank else 6.0
    work += 2.0 * load.cfg.optim.recompute
    if load.method.critic:
        work = 2 * work + 2.0
    return work + 2.0 * load.method.reference
