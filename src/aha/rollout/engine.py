"""The protocol of an engine, and how tokens are drawn."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional as F

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

    def load(self, policy: Policy, version: int) -> None:
        """Take over new weights; completions from now on carry this version."""

    def release(self) -> None:
        """Give back the memory of the weights, if there is any to give: nothing is generated before
        the next `load`."""

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


CHUNK = 128  # tokens whose probabilities are summed first, where there are many
MANY = 4_096


def draw(logits_BV: torch.Tensor, noise_B1: torch.Tensor, temperature: float) -> tuple:
    """Tokens [B] by inverting the distribution at `noise`, with their log-probs [B] and the
    entropies [B] of the distribution, float32, in nats.

    Both are of the tempered distribution, the one that is sampled and trained;
    greedy drawing (temperature 0) records those at temperature 1.
    """
    if temperature not in (0.0, 1.0):
        logits_BV = logits_BV / temperature
    logprobs_BV = torch.log_softmax(logits_BV, -1)
    probs_BV = logprobs_BV.exp()
    if temperature == 0.0:
        tokens = logits_BV.argmax(-1)
    else:
        # Clamped for a model whose probabilities are no numbers.
        tokens = invert(probs_BV, noise_B1).squeeze(1).clamp_(max=logits_BV.shape[1] - 1)
    entropies = torch.special.entr(probs_BV).sum(-1)
    return tokens, logprobs_BV.gather(1, tokens[:, None]).squeeze(1), entropies


def invert(probs_BV: torch.Tensor, noise_B1: torch.Tensor) -> torch.Tensor:
    """[B, 1]: the first token at which the cumulative sum, in float64, reaches `noise` in (0, 1) of
    the whole; never one of probability 0.

    Of a large vocabulary chunks are summed first, and one of them is then looked into: to write
    150,000 sums of a row in float64 costs more than to compute a small model. Waits for nothing.
    """
    B, V = probs_BV.shape
    if V <= MANY:
        sums = probs_BV.cumsum(-1, dtype=torch.float64)
        return torch.searchsorted(sums, noise_B1 * sums[:, -1:])
    probs_BNC = F.pad(probs_BV, (0, -V % CHUNK)).view(B, -1, CHUNK)
    sums = probs_BNC.sum(-1, dtype=torch.float64).cumsum(-1)
    edge = noise_B1 * sums[:, -1:]
    # Not a number is beyond the last chunk, and a GPU that looks there is lost to the process.
    chunk = torch.searchsorted(sums, edge).clamp(max=sums.shape[1] - 1)
    before = torch.where(chunk > 0, sums.gather(1, (chunk - 1).clamp(min=0)), 0.0)
    inside_BC = probs_BNC.gather(1, chunk[:, :, None].expand(-1, -1, CHUNK)).squeeze(1)
    inside_BC = inside_BC.cumsum(-1, dtype=torch.float64)
    # The same numbers summed in another order may end a hair below: not past the last of them.
    rest = torch.minimum(edge - before, inside_BC[:, -1:])
    return chunk * CHUNK + torch.searchsorted(inside_BC, rest)
