"""What a recipe needs on a machine, from shapes alone: memory by part, time, energy, money.

As this program trains: weights, gradients and Adam's two moments in float32 (with adapters: frozen
weights in bf16, and those of the adapters alone; with optim.state "cpu" in the machine's own
memory), arithmetic in bf16, log-probs in chunks. The engine's copy of the weights exists while it
generates. Memory is what tensors hold at the peak, plus a reserve for the libraries. Time is in
`aha.plan.speed`, at the shares that cards.toml says or a calibration has measured; no figure for a
GPU has been compared with a measurement yet.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from aha.core.config import RunConfig
from aha.core.sizes import GB, LOGITS_CHUNK
from aha.plan.cost import Cost
from aha.plan.shapes import Shape
from aha.plan.speed import PROMPT_TOKENS, Card, Lengths, Workload, rollout_of, training_of

RESERVE = 0.1  # of a card's memory: the libraries' own, and what lies between tensors
UPDATE_BYTES = 28  # of a weight that trains: all four in float32 are read, three are written
MOMENTS = {"device": 8.0, "cpu": 0.0, "8bit": 2 * (1 + 4 / 256)}  # bytes a weight, on the device
HOST_BYTES = 16.0  # of a weight whose state is in the machine's memory
DRAWING = 5  # numbers of each word that drawing a token holds at once, in float32
# Of an ordinary machine, assumed: its memory, and the way to its GPU, in bytes/s.
HOST_RATE, BUS_RATE = 20e9, 12e9


@dataclass(frozen=True)
class Plan:
    """What a run would need. Memory in bytes by part, times in seconds."""

    memory: dict[str, float]
    tokens: float  # of completions, in one step
    steps: float  # until all are done or the tokens are spent
    rollout_s: float  # of one step
    train_s: float  # of one step
    looks_s: float  # at validation problems, in the whole run
    tests_s: float  # before and after
    cost: Cost  # of all that
    host: float = 0.0  # bytes of the machine's own memory, where the optimiser's state is there

    @property
    def peak(self) -> float:
        """Generation and training take turns: the larger of the two, and what always stays."""
        stays, training, generation = (
            sum(self.memory[key] for key in keys) for keys in (STAYS, TRAINING, GENERATION)
        )
        return stays + max(training, generation)

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / (self.rollout_s + self.train_s)

    @property
    def training_s(self) -> float:
        """Of all steps, with the looks on the way."""
        return self.steps * (self.rollout_s + self.train_s) + self.looks_s

    def fits(self, card: Card) -> bool:
        return self.peak <= usable_bytes(card)


def usable_bytes(card: Card) -> float:
    """Bytes that tensors may take."""
    return card.memory * GB * (1 - RESERVE)


TRAINING = ("gradients", "folded weights", "activations", "logits")
GENERATION = ("generation weights", "kv cache", "drawing")
STAYS = ("weights", "optimiser", "reference")


def estimate(load: Workload, card: Card, mean_tokens: float | None = None) -> Plan:
    """The plan of a workload on a card.

    `mean_tokens` of a completion over the run; as `expected_tokens` says unless given.
    """
    cfg, shape = load.cfg, load.shape
    lengths = Lengths.of(cfg, mean_tokens)
    writing, training = rollout_of(load, lengths), training_of(load, lengths)
    steps = float(cfg.steps)
    if cfg.tokens:
        steps = min(steps, math.ceil(cfg.tokens / writing.tokens))
    look = lengths.writing(cfg.eval.problems, cfg.eval.problems, cfg.rollout.max_rows)
    test = lengths.writing(cfg.eval.final, cfg.eval.final, cfg.rollout.max_rows)
    looks = steps // cfg.eval.every if cfg.eval.every else 0
    looks_s, tests_s = looks * look.seconds(shape, card), 2 * test.seconds(shape, card)
    rollout_s, train_s = writing.seconds(shape, card), training.seconds(shape, card)
    train_s += update_seconds(load, card)
    seconds = steps * (rollout_s + train_s) + looks_s + tests_s
    return Plan(
        memory_of(load, PROMPT_TOKENS[cfg.task.template], card),
        cfg.rollout.prompts * cfg.rollout.group_size * lengths.mean,
        steps,
        rollout_s,
        train_s,
        looks_s,
        tests_s,
        Cost.of(seconds, card.usd_per_hour, card.watts),
        0.0 if card.cpu else host_bytes(load),
    )


def memory_of(load: Workload, prompt: int, card: Card) -> dict[str, float]:
    """Bytes by part; `prompt` is the tokens of one."""
    cfg, shape, copies = load.cfg, load.shape, load.decoders
    wide = 2.0 if card.float32 else 1.0  # where others compute in bf16
    rollout, longest = cfg.rollout, prompt + cfg.rollout.max_new_tokens
    rows = min(rollout.max_rows, rollout.prompts * rollout.group_size)
    micro = max(cfg.optim.micro_batch_tokens, longest)
    lora, away = bool(cfg.model.lora_rank), cfg.optim.state == "cpu"
    trained = trained_parameters(cfg, shape)
    # Bytes of a weight that trains: rounded where its float32 is elsewhere.
    own = 2.0 if away and cfg.optim.dtype != "float32" else 4.0
    frozen = 2.0 * shape.parameters if lora else 0.0
    logits = min(micro * shape.V, LOGITS_CHUNK)
    head = 0 if lora or micro * shape.V <= LOGITS_CHUNK else shape.V * shape.C
    reference = trained if lora else shape.parameters  # frozen weights are shared
    # A gradient that leaves when it is whole: the largest one is that of the embedding.
    gradients = shape.V * shape.C if away else trained * copies
    return {
        "weights": frozen + own * trained * copies,
        "gradients": own * gradients,
        "optimiser": MOMENTS[cfg.optim.state] * trained * copies
        + (host_bytes(load) if card.cpu else 0.0),
        "reference": own * reference if load.method.reference else 0.0,
        "folded weights": folded_bytes(shape, cfg.optim.recompute, 0.0 if lora else own),
        "activations": wide * activation_bytes(shape, micro, cfg.optim.recompute),
        # Themselves, their log-softmax, their gradient; and the head's own gradient, in float32.
        "logits": 3 * 4.0 * logits + 4.0 * head,
        "generation weights": wide
        * generation_bytes(shape, trained if lora and not card.cpu else 0),
        "kv cache": wide * 2.0 * rows * longest * shape.kv_numbers,
        "drawing": 4.0 * DRAWING * rows * shape.V,
    }


def generation_bytes(shape: Shape, adapters: float) -> float:
    """The engine's copy in bf16, the head apart from the embedding because a norm is folded in; on
    a GPU it shares what is frozen beside adapters, and copies those."""
    return 4.0 * adapters or 2.0 * (shape.parameters + shape.tied * shape.V * shape.C)


def host_bytes(load: Workload) -> float:
    """Of the machine's own memory, beside what a process holds anyway."""
    away = load.cfg.optim.state == "cpu"
    return HOST_BYTES * load.decoders * trained_parameters(load.cfg, load.shape) if away else 0.0


def update_seconds(load: Workload, card: Card) -> float:
    """Of a step's updates: gradient, weight and both moments pass through memory. Where those are
    the machine's own, each part's gradient goes there and is added to one in float32, and the
    weights come back."""
    cfg = load.cfg
    trained = load.decoders * trained_parameters(cfg, load.shape)
    if cfg.optim.state != "cpu":
        return cfg.algo.updates * trained * UPDATE_BYTES / (card.bandwidth * GB)
    parts = training_of(load, Lengths.of(cfg)).parts
    moving = (parts + cfg.algo.updates) * trained * (2 / BUS_RATE + 8 / HOST_RATE)
    return moving + cfg.algo.updates * trained * UPDATE_BYTES / HOST_RATE


def trained_parameters(cfg: RunConfig, shape: Shape) -> int:
    """All of them, or those of the adapters of every linear map of the layers."""
    q, kv, C = shape.H * shape.D, shape.K * shape.D, shape.C
    ends = 2 * (C + q) + 2 * (C + kv) + 3 * (C + shape.I)
    return cfg.model.lora_rank * shape.L * ends or shape.parameters


def activation_bytes(shape: Shape, tokens: int, recompute: bool = False) -> float:
    """What the backward pass asks for, in bf16, of tokens that are computed: of each layer both
    norms, q, k and v, what the attention mixed with a float32 number for each head, three of the
    mlp; and once their angles. With `recompute` that of one layer at a time, and what enters each.

    Attention keeps no weights: so it is in C and in the kernels that GPUs have for bf16, some of
    which keep a copy of q, k and v. Without a compiler it keeps the rows up to the causal mask.
    """
    layer = 2 * shape.C + 2 * shape.H * shape.D + 2 * shape.K * shape.D + 3 * shape.I + 2 * shape.H
    layers = layer + shape.L * shape.C if recompute else shape.L * layer
    return 2.0 * tokens * (layers + shape.C + 2 * shape.D)


def folded_bytes(shape: Shape, recompute: bool = False, unfolded: float = 4.0) -> float:
    """Matrices with the norms' weights folded in, in bf16, and what was folded, at `unfolded` bytes
    a number; frozen weights keep none of that."""
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
    """The flags with which it fits, the mildest first, or that no setting does it. `process`: bytes
    that a run needs besides its tensors."""
    cfg = load.cfg
    longest = PROMPT_TOKENS[cfg.task.template] + cfg.rollout.max_new_tokens
    own, state = cfg.model.lora_rank, cfg.optim.state
    ladder = [(cfg.optim.recompute, state, own), (True, state, own)]
    ladder += [] if own else [(True, "cpu", 0), (True, "device", 16)]
    for recompute, state, rank in ladder:
        milder = {"optim.recompute": recompute, "optim.state": state, "model.lora_rank": rank}
        milder = {key: value for key, value in milder.items() if value != value_of(cfg, key)}
        micro, rows = cfg.optim.micro_batch_tokens, cfg.rollout.max_rows
        while micro > longest or rows > 8:
            micro, rows = max(longest, micro // 2), max(8, rows // 2)
            flags = {"optim.micro_batch_tokens": micro, "rollout.max_rows": rows, **milder}
            smaller = replace(load, cfg=changed(cfg, flags))
            plan = estimate(smaller, card)
            if plan.peak + process(smaller, plan) <= usable_bytes(card):
                return " ".join(f"--{key} {str(value).lower()}" for key, value in flags.items())
    return "a smaller model, or shorter completions"


def value_of(cfg: RunConfig, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(cfg, section), name)


def changed(cfg: RunConfig, flags: dict[str, Any]) -> RunConfig:
    for key, value in flags.items():
        section, name = key.split(".")
        inner = getattr(cfg, section).model_copy(update={name: value})
        cfg = cfg.model_copy(update={section: inner})
    return cfg
