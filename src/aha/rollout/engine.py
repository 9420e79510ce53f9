"""The protocol of an engine, and how tokens are drawn."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from aha.core.errors import ConfigError
from aha.core.records import Completion, Prompt
from aha.model.policy import Policy


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn. No top-k or top-p: they would make the recorded log-probs those
    of another distribution than the one that is trained."""

    max_new_tokens: int = 320
    group_size: int = 1  # G, completions of each prompt
    temperature: float = 1.0  # 0 is greedy
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.group_size < 1:
            raise ConfigError(
                f"group_size {self.group_size}, max_new_tokens {self.max_new_tokens}",
                "both at least 1",
            )
        if not 0.0 <= self.temperature <= 10.0:
            raise ConfigError(f"temperature {self.temperature}", "a number from 0 to 10")


class Engine(Protocol):
    """Writes completions with the weights it was last given."""

    def load(self, decoder: Policy, version: int) -> None:
        """Take over new weights; completions from now on carry this version."""

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """`group_size` completions of every prompt, in the order of the prompts.

        Each is a function of the weights, its prompt and its own seed alone: it does not depend
        on what else is in the list (in float32; narrower types round with the batch).
        """


_STEP, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def uniforms(seed: int, count: int) -> np.ndarray:
    """`count` numbers in (0, 1), float64, a pure function of the seed: one stream per row.

    Source: SplitMix64 (Steele, Lea & Flood 2014); counter based, so that a row's numbers do not
    depend on how many rows there are.
    """
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_STEP)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX_1)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX_2)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
