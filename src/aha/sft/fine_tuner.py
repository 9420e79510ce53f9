"""The trainer of next tokens that reads examples: batches of RL, RL's optimiser, one pass a step.

An example is a row `prompt + completion`; the mask is 1 on the completion's tokens, its stop token
included. Every completion token of an update counts alike. Which examples an update has is a
function of the seed and the step, so a stopped run goes on with exactly the update that would have
come.
"""

import time
from functools import lru_cache
from random import Random
from typing import Any

import torch

from aha.batching.batch import MicroBatch, TrainingRow, pack_parts
from aha.core.config import OptimSection
from aha.core.errors import RunStopped
from aha.core.records import Completion, Graded, Problem, Prompt
from aha.core.seeds import seed_for
from aha.dist.world import World
from aha.machine.device import compute_dtype
from aha.machine.micro_batch import MicroBatchSize
from aha.model.optimizer import make_optimizer
from aha.model.policy import Policy
from aha.model.tokenizer import Tokenizer
from aha.sft.examples import Example
from aha.sft.tuning_config import TuningConfig
from aha.training.finite_checks import check_numbers
from aha.training.next_tokens import (
    NextTokenBatch,
    NextTokenReport,
    NextTokenTrainer,
    WeightedRows,
)


def num_steps(examples: int, cfg: TuningConfig) -> int:
    """The updates of all epochs; the last one may have fewer examples."""
    return -(-examples * cfg.epochs // cfg.examples)


@lru_cache(maxsize=2)
def order_of(epoch: int, count: int, seed: int) -> tuple[int, ...]:
    """The examples of an epoch, each once."""
    order = list(range(count))
    Random(seed_for("sft", seed, epoch)).shuffle(order)
    return tuple(order)


def training_row(example: Example) -> TrainingRow:
    """An example as a row of RL's batches. What only RL reads is 0."""
    prompt = Prompt(Problem("", "sft", {}), "", example.prompt)
    unknown = (0.0,) * len(example.completion)
    completion = Completion(prompt, example.completion, unknown, "", "stop")
    return TrainingRow.of(Graded(0.0, False, "", {}, completion), 0.0)


def weighted(part: MicroBatch) -> WeightedRows:
    """A micro-batch in which every token of a completion counts 1."""
    return WeightedRows(part.tokens_BT, part.start, part.mask_BT, part.layout)


class FineTuner(NextTokenTrainer):
    """Fine-tuning of a policy on examples, of the whole model or of its adapters.

    `version` counts the updates, as in RL. `failed_step` is None: no completions are lost.
    """

    failed_step = None

    def __init__(
        self, policy: Policy, tokenizer: Tokenizer, examples: list[Example], cfg: TuningConfig
    ):
        policy.recompute = cfg.optim.recompute
        super().__init__(policy, compute_dtype(cfg.optim.dtype, policy.device), World())
        self.tokenizer, self.examples, self.cfg = tokenizer, examples, cfg
        self.optimizer = make_optimizer(policy.trainable(), cfg.optim, self.dtype)
        self.optimizers = [self.optimizer]
        self.micro_batch = MicroBatchSize(cfg.optim.micro_batch_tokens, policy.device)
        self.first_step = 0  # of this process
        self.seconds = 0.0  # of the last step

    @property
    def version(self) -> int:
        return self.step_count

    @property
    def done(self) -> bool:
        return self.step_count >= self.cfg.steps

    @property
    def mid_step(self) -> bool:
        """Between a change of the weights and the count of its step."""
        return self.optimizer.num_updates != self.step_count - self.first_step

    def examples_of(self, step: int) -> list[Example]:
        """The examples of the update after `step` updates."""
        count, own = len(self.examples), self.cfg.examples
        places = range(step * own, min((step + 1) * own, count * self.cfg.epochs))
        orders = (order_of(place // count, count, self.cfg.seed) for place in places)
        pairs = zip(places, orders, strict=True)
        return [self.examples[order[place % count]] for place, order in pairs]

    def epochs_after(self, step: int) -> float:
        """Passes over all examples after so many updates."""
        return min(step * self.cfg.examples / len(self.examples), float(self.cfg.epochs))

    def step(self) -> NextTokenReport:
        started = time.perf_counter()
        try:
            report = super().step()
        except RunStopped as error:
            error.step = self.step_count + 1
            raise
        self.seconds = time.perf_counter() - started
        return report

    def learn(self) -> tuple[NextTokenBatch, torch.Tensor]:
        examples = self.examples_of(self.step_count)

        def compute(tokens: int) -> tuple[NextTokenBatch, torch.Tensor]:
            batch = self.batch_of(examples, tokens)
            return batch, self.gradient(batch)

        batch, loss = self.micro_batch.fit(compute, self.optimizer.clear)
        check_numbers({"loss": float(loss)})
        return batch, loss

    def batch_of(self, examples: list[Example], tokens: int) -> NextTokenBatch:
        """These examples as one update, in micro-batches of at most `tokens`."""
        rows = [training_row(example) for example in examples]
        whole = self.policy.supports_layout
        parts = pack_parts(rows, self.tokenizer.pad_id, tokens, whole)
        total = float(sum(len(example.completion) for example in examples))
        device = self.policy.device
        return NextTokenBatch(
            [weighted(part.to(device)) for part in parts],
            total,
            sum(example.num_tokens for example in examples),
        )

    def numbers(self) -> dict[str, float]:
        """What else the row of the last update has."""
        return {}

    def rate(self) -> float:
        return scheduled_rate(self.cfg.optim, self.step_count, self.cfg.steps)

    def update(self, rate: float) -> float:
        return self.optimizer.update(rate)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on besides the weights."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "micro_batch": self.micro_batch.state_dict(),
            "version": self.step_count,
            "tokens": self.tokens_seen,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; the weights come from the checkpoint's model."""
        self.optimizer.load_state_dict(state["optimizer"])
        self.micro_batch.load_state_dict(state["micro_batch"])
        self.step_count = self.first_step = state["version"]
        self.tokens_seen = state["tokens"]


def scheduled_rate(optim: OptimSection, step: int, steps: int) -> float:
    """Linear warm-up times linear decay to `optim.final_lr` of the peak, as in RL."""
    warm = min(1.0, (step + 1) / (optim.warmup + 1))
    gone = min(1.0, step / max(1, steps - 1))
    return optim.lr * warm * (1 - gone * (1 - optim.final_lr))
