"""How long a machine takes to generate and to train on tokens: counts over rates.

Matrix products and attention's keys and values are counted separately. The first are bound by
arithmetic or by reading the weights, whichever is slower; the second by memory bandwidth, and they
grow with the context.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

from aha.core.config import RunConfig
from aha.core.method import Method
from aha.core.sizes import GB
from aha.plan.shapes import Shape

# Tokens of a prompt, by its template.
PROMPT_TOKENS = {"plain": 24, "r1": 160, "instruct": 160}
MEAN_SHARE = 0.5  # of the limit: how long completions are, where nothing was measured
# Long completions have more tokens: the completion of a random token is longer than the mean one.
TAIL = 1.5
# Of the Beta(a, a) distribution of solve rates: most problems are solved nearly always or nearly
# never. With it .6 of groups of 16 are mixed; measured in results/demo: .57 to .60.
BETA = 0.335
LARGE = 50e6  # parameters from which `Card.train_large` is what training reaches


class TaskSizes(NamedTuple):
    """What was counted of a task: tokens of a prompt (0: as its template has about), the problems
    of a validation and of a test (None: as many as the recipe asks for), and how the tokens were
    counted, in words."""

    prompt_tokens: float = 0.0
    held_out: tuple[int, int] | None = None
    prompts_from: str = "assumed"


@dataclass(frozen=True)
class Workload:
    """What a plan is made for: a recipe, what its method computes, and the shape of its model.

    The method is `aha.algo.algorithms.method_of(cfg)`. It comes from the caller, because this room
    must not import the registries.
    """

    cfg: RunConfig
    method: Method
    shape: Shape
    sizes: TaskSizes = TaskSizes()

    @property
    def prompt(self) -> float:
        """Tokens of a prompt."""
        return self.sizes.prompt_tokens or PROMPT_TOKENS[self.cfg.task.template]

    def lengths(self, mean: float | None = None) -> "Lengths":
        """Of its prompts and completions; `mean` as in `Lengths.of`."""
        return replace(Lengths.of(self.cfg, mean), prompt=self.prompt)

    @property
    def test_sizes(self) -> tuple[int, int]:
        """Problems of a validation and of a test."""
        return self.sizes.held_out or (self.cfg.eval.problems, self.cfg.eval.final)

    @property
    def decoders(self) -> int:
        """Models that train: a critic is a decoder of its own."""
        return 2 if self.method.critic else 1


@dataclass(frozen=True)
class Card:
    """A machine: `memory` in GB, bf16 `tflops` in TFLOP/s, `bandwidth` in GB/s, `watts` under load,
    `usd_per_hour`; and the shares of these that are reached.

    `train` and `generate` are shares of the arithmetic (`generate` 0: as in training), `decode` of
    the bandwidth. `train_large` is `train` for models from `LARGE` parameters on (0: the same),
    whose products are larger. An operation of attention takes `attention` times as long as one of a
    matrix product. A layer takes at least `layer_us` microseconds. `cpu`: its memory is the host's.
    `float32`: it does not multiply bf16 in hardware, so that bf16 tensors take twice the memory.

    `update_ms` and `pass_us`: what an update of fine-tuning takes on a CPU whatever its size, in
    all and for each layer of each forward or backward pass. RL's updates are larger, and the share
    `train` was fitted to them as a whole; on a GPU `layer_us` counts.
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
    train_large: float = 0.0
    update_ms: float = 0.0
    pass_us: float = 0.0

    @property
    def train_rate(self) -> float:
        """FLOP/s of products in training."""
        return self.tflops * 1e12 * self.train

    def train_rate_of(self, shape: Shape) -> float:
        """`train_rate` for a model of this shape."""
        large = self.train_large and shape.parameters >= LARGE
        return self.tflops * 1e12 * self.train_large if large else self.train_rate

    @property
    def generate_rate(self) -> float:
        return self.tflops * 1e12 * (self.generate or self.train)

    @property
    def decode_rate(self) -> float:
        """Bytes/s of weights, keys and values while generating."""
        return self.bandwidth * GB * self.decode


@dataclass(frozen=True)
class Generation:
    """Tokens to generate: how many, the mean context of one of them, the passes over all weights,
    and the tokens of prompts that are read."""

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
    """Tokens to train on: how many, the mean length of the row of one of them, the number of
    micro-batches; `work` FLOP for each parameter and token, 6 for forward and backward."""

    tokens: float
    length: float
    parts: float
    work: float = 6.0

    def products(self, shape: Shape) -> float:
        """FLOP."""
        return self.work * shape.multiplied * self.tokens

    def attention(self, shape: Shape) -> float:
        """FLOP: half of the row is attended to on average, once as keys and once as values."""
        return self.work * self.length * shape.H * shape.D * shape.L * self.tokens

    def seconds(self, shape: Shape, card: Card) -> float:
        flop = self.products(shape) + card.attention * self.attention(shape)
        # Forward, and backward with its two products.
        return flop / card.train_rate_of(shape) + 3 * self.parts * shape.L * card.layer_us * 1e-6


def expected_tokens(cfg: RunConfig, base: float = 0.0) -> tuple[float, str]:
    """(mean tokens of a completion over a run, the source of that number), before the run.

    `base`: the mean length of the base model's completions, 0 where it was not measured. A run is
    assumed to start there and to end at half of the limit, with the mean in the middle. Nothing is
    fitted.
    """
    half = MEAN_SHARE * cfg.training_limit
    if cfg.rollout.expected_tokens:
        return cfg.rollout.expected_tokens, "rollout.expected_tokens"
    if base:
        return (base + half) / 2, f"midway between the {base:.0f} of the base and half of the limit"
    return half, "half of rollout.max_new_tokens"


@dataclass(frozen=True)
class Lengths:
    """Tokens: of a prompt, of a completion at most and on average."""

    prompt: float
    limit: float
    mean: float

    @classmethod
    def of(cls, cfg: RunConfig, mean: float | None = None) -> "Lengths":
        """`mean` where it is known, else `expected_tokens` without a measured base."""
        limit = cfg.training_limit
        return cls(PROMPT_TOKENS[cfg.task.template], limit, mean or expected_tokens(cfg)[0])

    @property
    def weighted(self) -> float:
        """The mean length of the completion that a random token belongs to."""
        return min(self.limit, TAIL * self.mean)

    def generation(self, rows: float, prompts: float, max_rows: int) -> Generation:
        """`rows` completions of `prompts` prompts, `max_rows` at a time, each batch of rows as long
        as the limit."""
        passes = self.limit * -(-rows // max_rows)
        context = self.prompt + self.weighted / 2
        return Generation(rows * self.mean, context, passes, prompts * self.prompt)

    def training(self, rows: float, prompts: float, micro: int, work: float) -> Training:
        """`rows` completions of `prompts` prompts, each of which is computed once."""
        tokens = rows * self.mean + prompts * self.prompt
        return Training(tokens, self.prompt + self.weighted, -(-tokens // micro), work)


def generation_of(load: Workload, lengths: Lengths) -> Generation:
    """Of one step. Drawing prompts again until enough groups teach takes twice as many."""
    rollout = load.cfg.rollout
    prompts = (2 if load.method.resamples else 1) * rollout.prompts
    return lengths.generation(prompts * rollout.group_size, prompts, rollout.max_rows)


def training_of(load: Workload, lengths: Lengths) -> Training:
    """Of one step, in all its updates."""
    cfg = load.cfg
    prompts = cfg.rollout.prompts * computed_share(load)
    rows, micro = prompts * cfg.rollout.group_size, cfg.optim.micro_batch_tokens
    return lengths.training(rows, prompts, micro, work_of(load))


def mixed_share(group_size: int) -> float:
    """Of groups of this size, those that are not flat: .5 of groups of 8, none of 1."""
    a, n = BETA, group_size
    all_right = math.exp(
        math.lgamma(2 * a) + math.lgamma(a + n) - math.lgamma(a) - math.lgamma(2 * a + n)
    )
    return max(0.0, 1 - 2 * all_right)


def computed_share(load: Workload, mixed: float | None = None) -> float:
    """Of the rows of a step, those that are computed, on average over its updates.

    A share `mixed` of the groups is not flat; `mixed_share` where it is not given. The rows of a
    flat group have the advantage 0, and the trainer skips them in each update unless
    `Method.computes_every_row`.
    """
    method, algo = load.method, load.cfg.algo
    mixed = mixed_share(load.cfg.rollout.group_size) if mixed is None else mixed
    if method.resamples or not method.flat_is_zero:
        return 1.0
    if method.drops_flat:
        return mixed
    every = [method.computes_every_row(u, algo.entropy_coef) for u in range(algo.updates)]
    return sum(1.0 if whole else mixed for whole in every) / len(every)


def work_of(load: Workload) -> float:
    """FLOP of a parameter and token: 2 forward, 2 back to the inputs, 2 to the weights (none
    where they are frozen), 2 for another forward pass; a critic reads, and trains as much."""
    work = 4.0 if load.cfg.model.lora_rank else 6.0
    work += 2.0 * load.cfg.optim.recompute
    if load.method.critic:
        work = 2 * work + 2.0
    return work + 2.0 * load.method.reference
