"""What fine-tuning takes on a machine, from shapes and the tokens of the examples alone.

It counts as `aha.plan.estimate` does for RL, without what generates. The tokens are known before
the run, so that time has one assumption, the speed.
"""

from dataclasses import dataclass

from aha.core.config import RunConfig
from aha.core.sizes import GB, LOGITS_CHUNK
from aha.plan.estimate import (
    BUS_RATE,
    HOST_BYTES,
    HOST_RATE,
    MOMENTS,
    UPDATE_BYTES,
    activation_bytes,
    folded_bytes,
    trained_parameters,
    usable_bytes,
)
from aha.plan.machines import Cost
from aha.plan.shapes import Shape
from aha.plan.speed import Card, Training


@dataclass(frozen=True)
class TuningTokens:
    """Examples to train on: the tokens of an epoch, the longest example, the epochs, the updates.
    `weighted` is the length of the example that a random token belongs to."""

    tokens: int
    longest: int
    weighted: float
    epochs: int
    updates: int


@dataclass(frozen=True)
class TuningPlan:
    """Memory in bytes by part, the seconds of an update, and the cost of all of them."""

    memory: dict[str, float]
    update_s: float
    cost: Cost

    @property
    def peak(self) -> float:
        return sum(self.memory.values())

    def fits(self, card: Card) -> bool:
        return self.peak <= usable_bytes(card)


def estimate_tuning(recipe: RunConfig, shape: Shape, read: TuningTokens, card: Card) -> TuningPlan:
    """The plan on a card; of the recipe, model and optimiser are read."""
    optim, lora = recipe.optim, recipe.model.lora_rank
    trained, on_host = trained_parameters(recipe, shape), recipe.optim.state == "cpu"
    all_tokens = float(read.tokens * read.epochs)
    own = all_tokens / read.updates
    parts = -(-own // max(optim.micro_batch_tokens, read.longest))
    work = (4.0 if lora else 6.0) + 2.0 * optim.recompute
    seconds = Training(own, read.weighted, parts, work).seconds(shape, card)
    if on_host:
        seconds += (parts + 1) * trained * (2 / BUS_RATE + 8 / HOST_RATE)
        seconds += trained * UPDATE_BYTES / HOST_RATE
    else:
        seconds += trained * UPDATE_BYTES / (card.bandwidth * GB)
    cost = Cost.of(seconds * read.updates, card.usd_per_hour, card.watts)
    return TuningPlan(tuning_memory(recipe, shape, read, card), seconds, cost)


def tuning_memory(
    recipe: RunConfig, shape: Shape, read: TuningTokens, card: Card
) -> dict[str, float]:
    """Bytes by part."""
    optim, lora = recipe.optim, recipe.model.lora_rank
    trained, on_host = trained_parameters(recipe, shape), optim.state == "cpu"
    bf16 = 2.0 if card.float32 else 1.0  # times the bytes of bf16
    own = 2.0 if on_host and optim.dtype != "float32" else 4.0
    batch = read.tokens * read.epochs / read.updates
    micro = max(read.longest, min(optim.micro_batch_tokens, batch))
    gradients = shape.V * shape.C if on_host else trained
    return {
        "weights": (2.0 * shape.parameters if lora else 0.0) + own * trained,
        "gradients": own * gradients,
        "optimiser": MOMENTS[optim.state] * trained
        + (HOST_BYTES * trained if on_host and card.cpu else 0.0),
        "folded weights": folded_bytes(shape, optim.recompute, 0.0 if lora else own),
        "activations": bf16 * activation_bytes(shape, int(micro), optim.recompute),
        "logits": 3 * 4.0 * min(micro * shape.V, LOGITS_CHUNK),
    }
