"""What a recipe needs on a machine, from shapes alone: memory by part, time, energy, money.

It counts what this program allocates: weights, gradients and Adam's two moments in float32 (with
adapters: frozen weights in bf16, and the rest for the adapters alone; with optim.state "cpu" in the
host's memory), arithmetic in bf16, log-probs in chunks. The engine's copy of the weights exists
while it generates. Memory is that of the tensors at the peak, plus a reserve for the libraries.
Time comes from `aha.plan.speed`, with the shares of cards.toml or of a calibration. No figure for a
GPU has been compared with a measurement yet.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from aha.core.config import RunConfig
from aha.core.sizes import GB, LOGITS_CHUNK
from aha.plan.machines import Cost
from aha.plan.shapes import Shape
from aha.plan.speed import (
    Card,
    Workload,
    expected_tokens,
    generation_of,
    training_of,
)

RESERVE = 0.1  # of a card's memory: for the libraries, and gaps between tensors
UPDATE_BYTES = 28  # for each weight that trains: four float32 numbers are read, three written
MOMENTS = {"device": 8.0, "cpu": 0.0, "8bit": 2 * (1 + 4 / 256)}  # bytes a weight, on the device
HOST_BYTES = 16.0  # for each weight whose optimiser state is in the host's memory
CPU_THREADS = 2  # of the CPUs in cards.toml
C_LOOP_ROWS, C_LOOP_LANES = 24, 16  # of `native_c`: rows of a thread, and what divides all sizes
SAMPLING_NUMBERS = 5  # float32 numbers for each word of the vocabulary while a token is sampled
# Assumed of an ordinary machine: the bandwidth of its memory and of the bus to its GPU, in bytes/s.
HOST_RATE, BUS_RATE = 20e9, 12e9


@dataclass(frozen=True)
class Plan:
    """What a run needs. Memory in bytes by part, times in seconds."""

    memory: dict[str, float]
    tokens: float  # of completions, in one step
    steps: float  # until all are done or the token budget is spent
    rollout_s: float  # of one step
    train_s: float  # of one step
    validation_s: float  # of all validations
    tests_s: float  # of the tests before and after
    cost: Cost  # of the whole run
    host: float = 0.0  # bytes of the host's memory, where the optimiser's state is there

    @property
    def peak(self) -> float:
        """Bytes: what is always there, and the larger of training and generation in turn."""
        always, training, generation = (
            sum(self.memory[key] for key in keys) for keys in (ALWAYS, TRAINING, GENERATION)
        )
        return always + max(training, generation)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / (self.rollout_s + self.train_s)

    @property
    def training_s(self) -> float:
        """Of all steps, with the validations between them."""
        return self.steps * (self.rollout_s + self.train_s) + self.validation_s

    def fits(self, card: Card) -> bool:
        return self.peak <= usable_bytes(card)


def usable_bytes(card: Card) -> float:
    """Bytes of its memory that tensors may take."""
    return card.memory * GB * (1 - RESERVE)


TRAINING = ("gradients", "folded weights", "activations", "logits")
GENERATION = ("generation weights", "kv cache", "drawing")
ALWAYS = ("weights", "optimiser", "reference")


def estimate(load: Workload, card: Card, mean_tokens: float | None = None) -> Plan:
    """The plan of a workload on a card.

    `mean_tokens` of a completion over the run; as `expected_tokens` says unless given.
    """
    cfg, shape = load.cfg, load.shape
    lengths = load.lengths(mean_tokens)
    generation, training = generation_of(load, lengths), training_of(load, lengths)
    steps = float(cfg.steps)
    if cfg.tokens:
        steps = min(steps, math.ceil(cfg.tokens / generation.tokens))
    validation, test = (lengths.generation(n, n, cfg.rollout.max_rows) for n in load.test_sizes)
    validations = steps // cfg.eval.every if cfg.eval.every else 0
    validation_s = validations * validation.seconds(shape, card)
    tests_s = 2 * test.seconds(shape, card)
    rollout_s, train_s = generation.seconds(shape, card), training.seconds(shape, card)
    train_s += update_seconds(load, card)
    seconds = steps * (rollout_s + train_s) + validation_s + tests_s
    return Plan(
        memory_of(load, math.ceil(load.prompt), card),
        cfg.rollout.prompts * cfg.rollout.group_size * lengths.mean,
        steps,
        rollout_s,
        train_s,
        validation_s,
        tests_s,
        Cost.of(seconds, card.usd_per_hour, card.watts),
        0.0 if card.cpu else host_bytes(load),
    )


def memory_of(load: Workload, prompt: int, card: Card) -> dict[str, float]:
    """Bytes by part; `prompt` is the tokens of one."""
    cfg, shape, copies = load.cfg, load.shape, load.decoders
    narrow, drawn_in = (number_bytes(part.dtype, card) for part in (cfg.optim, cfg.rollout))
    rollout, longest = cfg.rollout, prompt + cfg.rollout.max_new_tokens
    rows = min(rollout.max_rows, rollout.prompts * rollout.group_size)
    prompts = max(1, rows // rollout.group_size)
    micro = min(max(cfg.optim.micro_batch_tokens, longest), longest_batch(cfg, prompt))
    # The loop in C holds the caches of a call's prompts, and what the rows that are under way add
    # to them; logits after each prompt, and of each row.
    caches, drawn = float(rows * longest), float(SAMPLING_NUMBERS * rows)
    if card.cpu and runs_in_c(cfg, shape):
        at_once = min(rows, C_LOOP_ROWS * CPU_THREADS)
        added = at_once * (rollout.max_new_tokens + C_LOOP_LANES)
        caches, drawn = float(added + prompts * prompt), float(prompts + at_once)
    lora, on_host = bool(cfg.model.lora_rank), cfg.optim.state == "cpu"
    trained = trained_parameters(cfg, shape)
    # Bytes of a weight that trains: those of the arithmetic where a float32 copy is on the host.
    own = narrow if on_host else 4.0
    frozen = narrow * shape.parameters if lora else 0.0
    copied_alone = trained if lora and not card.cpu else 0  # adapters of a GPU
    logits = min(micro * shape.V, LOGITS_CHUNK)
    head = 0 if lora or micro * shape.V <= LOGITS_CHUNK else shape.V * shape.C
    reference = trained if lora else shape.parameters  # frozen weights are shared
    # With the state on the host a gradient leaves as soon as it is complete: one at a time, and the
    # largest is that of the embedding.
    gradients = shape.V * shape.C if on_host else trained * copies
    return {
        "weights": frozen + own * trained * copies,
        "gradients": own * gradients,
        "optimiser": MOMENTS[cfg.optim.state] * trained * copies
        + (host_bytes(load) if card.cpu else 0.0),
        "reference": own * reference if load.method.reference else 0.0,
        "folded weights": folded_bytes(shape, cfg.optim.recompute, 0.0 if lora else own),
        "activations": narrow / 2 * activation_bytes(shape, micro, cfg.optim.recompute),
        # The logits, their log-softmax and their gradient; and the head's gradient, in float32.
        "logits": 3 * 4.0 * logits + 4.0 * head,
        "generation weights": drawn_in / 2 * generation_bytes(shape, copied_alone),
        "kv cache": drawn_in * caches * shape.kv_numbers,
        "drawing": 4.0 * drawn * shape.V,
    }


def number_bytes(dtype: str, card: Card) -> float:
    """Of a number of the arithmetic that a recipe's `dtype` means on a card: bf16 or float32."""
    return 4.0 if dtype == "float32" or (dtype == "auto" and card.float32) else 2.0


def longest_batch(cfg: RunConfig, prompt: int) -> int:
    """Tokens of the largest batch of an update: a micro-batch cannot be larger. A few steps have
    completions a quarter longer than the mean of the run."""
    prompts = -(-cfg.rollout.prompts // cfg.algo.updates)
    tokens = min(cfg.training_limit, 1.25 * expected_tokens(cfg)[0])
    return math.ceil(prompts * (prompt + cfg.rollout.group_size * tokens))


def runs_in_c(cfg: RunConfig, shape: Shape) -> bool:
    """Whether a CPU generates in the loop in C, if there is a compiler."""
    sizes = (shape.C, shape.I, shape.D)
    whole = not any(size % C_LOOP_LANES for size in sizes)
    return cfg.rollout.loop in ("auto", "compiled") and whole


def generation_bytes(shape: Shape, adapters: float) -> float:
    """The engine's copy in bf16, with a head of its own because a norm is folded into it. With
    adapters on a GPU, frozen weights are shared and only the adapters are copied."""
    return 4.0 * adapters or 2.0 * (shape.parameters + shape.tied * shape.V * shape.C)


def host_bytes(load: Workload) -> float:
    """Bytes of the host's memory for the optimiser's state; 0 where it is on the device."""
    if load.cfg.optim.state != "cpu":
        return 0.0
    return HOST_BYTES * load.decoders * trained_parameters(load.cfg, load.shape)


def update_seconds(load: Workload, card: Card) -> float:
    """Of a step's updates: gradient, weight and both moments pass through memory, on a CPU at the
    rate of weights that are read to generate. With the state on the host, the gradient of each
    micro-batch is moved there and added to a float32 sum, and the weights are moved back."""
    cfg = load.cfg
    trained = load.decoders * trained_parameters(cfg, load.shape)
    if cfg.optim.state != "cpu":
        rate = card.decode_rate if card.cpu else card.bandwidth * GB
        return cfg.algo.updates * trained * UPDATE_BYTES / rate
    parts = training_of(load, load.lengths()).parts
    moving = (parts + cfg.algo.updates) * trained * (2 / BUS_RATE + 8 / HOST_RATE)
    return moving + cfg.algo.updates * trained * UPDATE_BYTES / HOST_RATE


def trained_parameters(cfg: RunConfig, shape: Shape) -> int:
    """All of them, or those of the adapters of every linear map of the layers."""
    q, kv, C = shape.H * shape.D, shape.K * shape.D, shape.C
    ends = 2 * (C + q) + 2 * (C + kv) + 3 * (C + shape.I)
    return cfg.model.lora_rank * shape.L * ends or shape.parameters


def activation_bytes(shape: Shape, tokens: int, recompute: bool = False) -> float:
    """Bytes that the backward pass needs for `tokens` computed tokens, in bf16. Of each layer: both
    norms, q, k and v, the output of attention with one float32 number for each head, and three
    tensors of the MLP; once the rotary angles. With `recompute`: those of one layer at a time, and
    the input of each.

    Attention weights are not kept: neither by the C code nor by the GPU kernels for bf16, some of
    which keep a copy of q, k and v. Without a C compiler the rows up to the causal mask are kept.
    """
    layer = 2 * shape.C + 2 * shape.H * shape.D + 2 * shape.K * shape.D + 3 * shape.I + 2 * shape.H
    layers = layer + shape.L * shape.C if recompute else shape.L * layer
    return 2.0 * tokens * (layers + shape.C + 2 * shape.D)


def folded_bytes(shape: Shape, recompute: bool = False, unfolded: float = 4.0) -> float:
    """Bytes of the matrices that the norms' weights are folded into: in bf16 as used, and before
    folding at `unfolded` bytes a number (0 for frozen weights, which keep no such copy)."""
    q, kv = shape.H * shape.D, shape.K * shape.D
    folded = shape.C * (q + 2 * kv) + 2 * shape.C * shape.I
    others = shape.C * q + shape.C * shape.I
    layer = unfolded * folded + 2.0 * (folded + others)
    return (1 if recompute else shape.L) * layer + 2.0 * shape.V * shape.C


def advice(
    load: Workload,
    card: Card,
    process: Callable[[Workload, Plan], float] = lambda load, plan: 0.0,
) -> str:
    """The options with which a workload fits on a card, the mildest first; or, without "--" at its
    beginning, what else would do. `process`: bytes that a run needs besides its tensors."""
    cfg = load.cfg
    longest = math.ceil(load.prompt) + cfg.rollout.max_new_tokens
    adapters, state = cfg.model.lora_rank, cfg.optim.state
    ladder = [(cfg.optim.recompute, state, adapters), (True, state, adapters)]
    ladder += [] if adapters else [(True, "cpu", 0), (True, "device", 16)]
    for recompute, state, rank in ladder:
        milder = {"optim.recompute": recompute, "optim.state": state, "model.lora_rank": rank}
        for micro, rows in smaller_sizes(cfg, longest):
            flags = {"optim.micro_batch_tokens": micro, "rollout.max_rows": rows, **milder}
            flags = {key: value for key, value in flags.items() if value != value_of(cfg, key)}
            smaller = replace(load, cfg=changed(cfg, flags))
            plan = estimate(smaller, card)
            if flags and plan.peak + process(smaller, plan) <= usable_bytes(card):
                return " ".join(f"--{key} {str(value).lower()}" for key, value in flags.items())
    return "a smaller model, or shorter completions"


def smaller_sizes(cfg: RunConfig, longest: int) -> Iterator[tuple[int, int]]:
    """(tokens of a micro-batch, rows of a call): those of the recipe, then halved time and again
    down to one completion with its prompt, of `longest` tokens, and 8 rows."""
    micro, rows = cfg.optim.micro_batch_tokens, cfg.rollout.max_rows
    yield micro, rows
    while micro > longest or rows > 8:
        # What is below that already stays: it must not grow.
        micro, rows = min(micro, max(longest, micro // 2)), min(rows, max(8, rows // 2))
        yield micro, rows


def value_of(cfg: RunConfig, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(cfg, section), name)


def changed(cfg: RunConfig, flags: dict[str, Any]) -> RunConfig:
    for key, value in flags.items():
        section, name = key.split(".")
        inner = getattr(cfg, section).model_copy(update={name: value})
        cfg = cfg.model_copy(update={section: inner})
    return cfg
