"""What a recipe needs on a machine, from shapes alone: memory by part, time, energy, money.

As this program trains: weights, gradients and Adam's two moments in float32 (with adapters: frozen
weights in bf16, and those of the adapters alone), arithmetic in bf16, log-probs in chunks. Memory
is what tensors hold at the peak, plus a reserve for the libraries. Time is in `aha.plan.speed`, at
the shares that cards.toml says or a calibration has measured; no figure for a GPU has been compared
with a measurement yet.
"""

import math
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from aha.core.config import RunConfig
from aha.core.errors import ConfigError
from aha.plan.cost import Cost
from aha.plan.shapes import Shape
from aha.plan.speed import PROMPT_TOKENS, Card, Lengths, rollout_of, training_of

GB = 1e9
RESERVE = 0.1  # of a card's memory: the libraries' own, and what lies between tensors
ATTENTION_BLOCK = 64  # positions: aha.model.ops works through the causal half in such blocks
LOGITS_CHUNK = 2**25  # logits held at once: aha.model.logprobs
UPDATE_BYTES = 28  # of a weight that trains: all four in float32 are read, three are written


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

    @property
    def peak(self) -> float:
        """Generation and training take turns: the larger of the two, and what always stays."""
        stays = sum(self.memory[key] for key in STAYS)
        training = sum(self.memory[key] for key in TRAINING)
        return stays + max(training, self.memory["kv cache"])

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / (self.rollout_s + self.train_s)

    @property
    def training_s(self) -> float:
        """Of all steps, with the looks on the way."""
        return self.steps * (self.rollout_s + self.train_s) + self.looks_s

    def fits(self, card: Card) -> bool:
        return self.peak <= card.memory * GB * (1 - RESERVE)


TRAINING = ("gradients", "folded weights", "activations", "logits")
STAYS = ("weights", "optimiser", "generation weights", "reference")


def load_cards(path: Path | None = None) -> tuple[str, dict[str, Card]]:
    """(date of the prices, cards by name). Raises `ConfigError` for a file that holds none."""
    source = path or files("aha.plan") / "cards.toml"
    try:
        raw = tomllib.loads(source.read_text(encoding="utf-8"))
        cards = {name: Card(**card) for name, card in raw["cards"].items()}
        for card in cards.values():
            numbers = {key: value for key, value in vars(card).items() if key != "cpu"}
            assert all(type(value) in (int, float) and value >= 0 for value in numbers.values())
            assert card.tflops * card.bandwidth * card.train * card.decode > 0
            assert type(card.cpu) is bool
        return str(raw["as_of"]), cards
    except (OSError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        reason = f"{type(error).__name__} {error}".strip()
        raise ConfigError(f"{source}: {reason}", "a table like aha/plan/cards.toml") from None


def estimate(cfg: RunConfig, shape: Shape, card: Card, mean_tokens: float | None = None) -> Plan:
    """The plan of a recipe for a model's shape on a card.

    `mean_tokens` of a completion over the run; as `expected_tokens` says unless given.
    """
    lengths = Lengths.of(cfg, mean_tokens)
    writing, training = rollout_of(cfg, lengths), training_of(cfg, lengths)
    steps = float(cfg.steps)
    if cfg.tokens:
        steps = min(steps, math.ceil(cfg.tokens / writing.tokens))
    look = lengths.writing(cfg.eval.problems, cfg.eval.problems, cfg.rollout.max_rows)
    test = lengths.writing(cfg.eval.final, cfg.eval.final, cfg.rollout.max_rows)
    looks = steps // cfg.eval.every if cfg.eval.every else 0
    looks_s, tests_s = looks * look.seconds(shape, card), 2 * test.seconds(shape, card)
    rollout_s, train_s = writing.seconds(shape, card), training.seconds(shape, card)
    train_s += update_seconds(cfg, shape, card)
    seconds = steps * (rollout_s + train_s) + looks_s + tests_s
    return Plan(
        memory_of(cfg, shape, PROMPT_TOKENS[cfg.task.template]),
        cfg.rollout.prompts * cfg.rollout.group_size * lengths.mean,
        steps,
        rollout_s,
        train_s,
        looks_s,
        tests_s,
        Cost.of(seconds, card.usd_per_hour, card.watts),
    )


def memory_of(cfg: RunConfig, shape: Shape, prompt: int) -> dict[str, float]:
    """Bytes by part."""
    rollout, longest = cfg.rollout, prompt + cfg.rollout.max_new_tokens
    rows = min(rollout.max_rows, rollout.prompts * rollout.group_size)
    micro = max(cfg.optim.micro_batch_tokens, longest)
    lora = bool(cfg.model.lora_rank)
    trained = trained_parameters(cfg, shape)
    frozen = 2.0 * shape.parameters if lora else 0.0
    copies = 2 if cfg.algo.advantage == "gae" else 1  # the critic is a decoder of its own
    logits = min(micro * shape.V, LOGITS_CHUNK)
    head = 0 if lora or micro * shape.V <= LOGITS_CHUNK else shape.V * shape.C
    reference = 4.0 * (trained if lora else shape.parameters)  # frozen weights are shared
    return {
        "weights": frozen + 4.0 * trained * copies,
        "gradients": 4.0 * trained * copies,
        "optimiser": 8.0 * trained * copies,
        "generation weights": 2.0 * shape.parameters,
        "reference": 0.0 if cfg.algo.kl == "none" else reference,
        "folded weights": folded_bytes(shape, cfg.optim.recompute, lora),
        "activations": activation_bytes(shape, micro, longest, cfg.optim.recompute),
        # Themselves, their log-softmax, their gradient; and the head's own gradient, in float32.
        "logits": 3 * 4.0 * logits + 4.0 * head,
        "kv cache": 2.0 * rows * longest * shape.kv_numbers,
    }


def update_seconds(cfg: RunConfig, shape: Shape, card: Card) -> float:
    """Of a step's updates: gradient, weight and both moments pass through memory."""
    copies = 2 if cfg.algo.advantage == "gae" else 1
    count = cfg.algo.updates * copies * trained_parameters(cfg, shape)
    return count * UPDATE_BYTES / (card.bandwidth * 1e9)


def trained_parameters(cfg: RunConfig, shape: Shape) -> int:
    """All of them, or those of the adapters of every linear map of the layers."""
    q, kv, C = shape.H * shape.D, shape.K * shape.D, shape.C
    ends = 2 * (C + q) + 2 * (C + kv) + 3 * (C + shape.I)
    return cfg.model.lora_rank * shape.L * ends or shape.parameters


def activation_bytes(shape: Shape, tokens: int, longest: int, recompute: bool = False) -> float:
    """What the backward pass asks for, in bf16: of each layer both norms, q, k and v, what the
    attention mixed, three of the mlp, and the rows of attention up to the causal mask. With
    `recompute` that of one layer at a time, and what enters each."""
    layer = 2 * shape.C + 2 * shape.H * shape.D + 2 * shape.K * shape.D + 3 * shape.I
    layer += shape.H * (longest + ATTENTION_BLOCK) / 2
    layers = layer + shape.L * shape.C if recompute else shape.L * layer
    return 2.0 * tokens * (layers + shape.C)


def folded_bytes(shape: Shape, recompute: bool = False, frozen: bool = False) -> float:
    """Matrices with the norms' weights folded in, in bf16, and, where they train, what was folded,
    in float32."""
    q, kv = shape.H * shape.D, shape.K * shape.D
    folded = shape.C * (q + 2 * kv) + 2 * shape.C * shape.I
    others = shape.C * q + shape.C * shape.I
    layer = (0.0 if frozen else 4.0) * folded + 2.0 * (folded + others)
    return (1 if recompute else shape.L) * layer + 2.0 * shape.V * shape.C


def advice(cfg: RunConfig, shape: Shape, card: Card) -> str:
    """The flags with which it fits, the mildest first, or that no setting does it."""
    longest = PROMPT_TOKENS[cfg.task.template] + cfg.rollout.max_new_tokens
    own = cfg.model.lora_rank
    for recompute, rank in ((cfg.optim.recompute, own), (True, own), (True, own or 16)):
        milder = {"optim.recompute": recompute, "model.lora_rank": rank}
        milder = {key: value for key, value in milder.items() if value != value_of(cfg, key)}
        micro, rows = cfg.optim.micro_batch_tokens, cfg.rollout.max_rows
        while micro > longest or rows > 8:
            micro, rows = max(longest, micro // 2), max(8, rows // 2)
            flags = {"optim.micro_batch_tokens": micro, "rollout.max_rows": rows, **milder}
            if estimate(changed(cfg, flags), shape, card).fits(card):
                return " ".join(f"--{key} {str(value).lower()}" for key, value in flags.items())
    return "a smaller model, or shorter completions"


def value_of(cfg: RunConfig, key: str):
    section, name = key.split(".")
    return getattr(getattr(cfg, section), name)


def changed(cfg: RunConfig, flags: dict) -> RunConfig:
    for key, value in flags.items():
        section, name = key.split(".")
        inner = getattr(cfg, section).model_copy(update={name: value})
        cfg = cfg.model_copy(update={section: inner})
    return cfg
