"""Too little memory for a micro-batch is answered with smaller ones, not with the end of the run.

The gradient of a step is a sum over its rows, so it may be cut anywhere: the effective batch, the
denominators and the result stay what they were, but for rounding.
"""

from collections.abc import Callable
from typing import TypeVar

import torch

from aha.core.errors import ConfigError
from aha.machine.out_of_memory import is_out_of_memory

SMALLEST = 16  # tokens: no row with a prompt is shorter, so smaller parts are no smaller
Result = TypeVar("Result")


class MicroBatchSize:
    """How many tokens are computed at once: what the recipe says, until that did not fit."""

    def __init__(self, tokens: int, device: torch.device):
        self.configured = self.tokens = tokens
        self.device = device
        self.fixed = False  # where other ranks compute each micro-batch with this one

    def numbers(self) -> dict[str, float]:
        """For the step's report: a run that had to take smaller micro-batches says so."""
        smaller = self.tokens != self.configured
        return {"micro_batch_tokens": float(self.tokens)} if smaller else {}

    def state_dict(self) -> dict[str, int]:
        return {"tokens": self.tokens}

    def load_state_dict(self, state: dict[str, int | None]) -> None:
        """Checkpoints of older versions have no size: then it is the recipe's."""
        self.tokens = state.get("tokens") or self.configured

    def fit(self, compute: Callable[[int], Result], clear: Callable[[], None]) -> Result:
        """`compute(tokens)`, with half as many tokens each time that memory runs out.

        `clear` removes what the failed attempt has left: half a gradient must not be counted.
        Raises ConfigError when even one row at a time does not fit, and when the size is `fixed`.
        """
        while True:
            try:
                return compute(self.tokens)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0] if str(error) else "out of memory"
            # Out here the error is gone, and with it the frames that held its tensors.
            if self.fixed:
                raise ConfigError(
                    f"no memory for micro-batches of {self.tokens:,} tokens ({reason}), with a "
                    "model in shards, where one rank cannot take smaller ones alone",
                    "micro-batches that fit in every rank",
                    f"--optim.micro_batch_tokens {max(SMALLEST, self.tokens // 2)}, at a resume "
                    "with --accept-changes",
                )
            clear()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            if self.tokens <= SMALLEST:
                raise ConfigError(
                    f"no memory to train on one completion at a time ({reason})",
                    "room for the weights, their gradient and one completion",
                    "--optim.recompute true, --model.lora_rank 16, or fewer "
                    "--rollout.max_new_tokens",
                )
            self.tokens = max(SMALLEST, self.tokens // 2)
