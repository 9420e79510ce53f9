"""What fine-tuning takes on a machine, from shapes and the tokens of the examples alone.

It counts as `aha.plan.estimate` does for RL, without what generates. The tokens are known before
the run, so that time has one assumption, the speed. An update may be small, so on a CPU it has a
part that no token adds to (`Card.update_ms`, `Card.pass_us`); and most of the memory of a CPU
process that trains a small model is none of its tensors.
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
    number_bytes,
    trained_parameters,
    usable_bytes,
)
from aha.plan.machines import Cost
from aha.plan.prediction import NO_GAPS
from aha.plan.pretrain_estimate import COMPILED, COMPILED_SIZES, PROCESS
from aha.plan.shapes import Shape
from aha.plan.speed import Card, Training


@dataclass(frozen=True)
class TuningTokens:
    """Examples to train on: the tokens of an epoch, the longest row, the epochs, the updates.

    `weighted` is the length of the row that a random token belongs to. `scorings`: forward passes
    of an update before the one with a gradient; `reference`: all examples are read once before the
    first update.
    """

    tokens: int
    longest: int
    weighted: float
    epochs: int
    updates: int
    scorings: int = 0
    reference: bool = False

    @property
    def of_update(self) -> float:
        """Tokens of an update."""
        return self.tokens * self.epochs / self.updates

    def parts(self, tokens: float, micro: int) -> float:
        """Micro-batches of so many tokens, at most `micro` in each where the rows allow it."""
        return -(-tokens // max(micro, self.longest))


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
    own, micro = read.of_update, optim.micro_batch_tokens
    parts, further = read.parts(own, micro), read.scorings + optim.recompute
    work = (4.0 if lora else 6.0) + 2.0 * further
    seconds = Training(own, read.weighted, parts, work).seconds(shape, card)
    seconds += card.update_ms * 1e-3 + (3 + further) * parts * shape.L * card.pass_us * 1e-6
    if on_host:
        seconds += (parts + 1) * trained * (2 / BUS_RATE + 8 / HOST_RATE)
        seconds += trained * UPDATE_BYTES / HOST_RATE
    else:
        seconds += trained * UPDATE_BYTES / (card.bandwidth * GB)
    whole = seconds * read.updates
    if read.reference:
        once = Training(read.tokens, read.weighted, read.parts(read.tokens, micro), 2.0)
        whole += once.seconds(shape, card)
    cost = Cost.of(whole, card.usd_per_hour, card.watts)
    memory = tuning_memory(recipe, shape, read, card) | process_memory(shape, read, card)
    return TuningPlan(memory, seconds, cost)


def tuning_memory(
    recipe: RunConfig, shape: Shape, read: TuningTokens, card: Card
) -> dict[str, float]:
    """Bytes by part of the tensors."""
    optim, lora = recipe.optim, recipe.model.lora_rank
    trained, on_host = trained_parameters(recipe, shape), optim.state == "cpu"
    narrow = number_bytes(optim.dtype, card)
    own = narrow if on_host else 4.0
    micro = max(read.longest, min(optim.micro_batch_tokens, read.of_update))
    gradients = shape.V * shape.C if on_host else trained
    return {
        "weights": (narrow * shape.parameters if lora else 0.0) + own * trained,
        "gradients": own * gradients,
        "optimiser": MOMENTS[optim.state] * trained
        + (HOST_BYTES * trained if on_host and card.cpu else 0.0),
        "folded weights": folded_bytes(shape, optim.recompute, 0.0 if lora else own),
        "activations": narrow / 2 * activation_bytes(shape, int(micro), optim.recompute),
        "logits": 3 * 4.0 * min(micro * shape.V, LOGITS_CHUNK),
    }


def process_memory(shape: Shape, read: TuningTokens, card: Card) -> dict[str, float]:
    """Bytes by part of a process on a CPU, besides its tensors; none on a GPU. What oneDNN compiles
    for each size of a batch is counted for small models alone, as the gaps of the heap in RL."""
    if not card.cpu:
        return {}
    sizes = min(COMPILED_SIZES, read.updates)
    compiled = 0.0 if card.float32 or shape.parameters >= NO_GAPS else COMPILED * sizes
    return {"process": PROCESS, "compiled products": compiled}
