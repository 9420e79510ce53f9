"""The protocol of an engine, and how tokens are drawn."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from aha.core.errors import ConfigError
from aha.core.records import Completion, Prompt
from aha.model.policy import Policy
from aha.rollout.thinking_budget import ThinkingBudget

MIN_TEMPERATURE = 1e-20  # below, logits divided by it are no float32 any more


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn. No top-k or top-p: they would make the recorded log-probs those
    of another distribution than the one that is trained."""

    max_new_tokens: int = 320
    group_size: int = 1  # G, completions of each prompt
    temperature: float = 1.0  # 0 is greedy
    seed: int = 0
    budget: ThinkingBudget | None = None  # of each thought; engines without one refuse it

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.group_size < 1:
            raise ConfigError(
                f"group_size {self.group_size}, max_new_tokens {self.max_new_tokens}",
                "both at least 1",
            )
        if not 0.0 <= self.temperature <= 10.0:
            raise ConfigError(f"temperature {self.temperature}", "a number from 0 to 10")
        if 0.0 < self.temperature < MIN_TEMPERATURE:
            raise ConfigError(
                f"temperature {self.temperature}, too small to divide by",
                f"at least {MIN_TEMPERATURE}, or 0 for the most likely token",
                "temperature 0",
            )
        if self.budget is not None:
            self.budget.most(self.max_new_tokens)


class Engine(Protocol):
    """Generates completions with the weights that it loaded last."""

    def load(self, policy: Policy, version: int) -> None:
        """Take a policy's weights; completions from now on carry this version."""

    def release(self) -> None:
        """Free the memory of the weights, where the engine has its own: nothing is generated before
        the next `load`."""

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[list[Completion]]:
        """`group_size` completions of every prompt, in the order of the prompts.

        Each is a function of the weights, its prompt and its own seed alone: it does not depend
        on what else is in the list (in float32; in narrower types a matrix product may round
        differently in a batch of another size).
        """


_STEP, _MIX_1, _MIX_2 = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB


def uniforms(seed: int, count: int) -> npt.NDArray[np.float64]:
    """`count` numbers in (0, 1), float64, a pure function of the seed: the random stream of one
    row.

    Token t of a completion is drawn with number t of its row's stream. A generator that all rows
    share would hand out its numbers in the order of the batch: another number of rows, a row that
    ends earlier or a resumed run would change every later completion. Here the number is computed
    from (seed, t) alone, so rows may come in any order, in any engine; the C loop computes the same
    numbers (`uniform` in generate.c).

    z = seed + (t + 1) * _STEP modulo 2**64 is mixed by two multiplications with shifts. The upper
    53 bits, plus one half, are divided by 2**53: never 0, so no token of probability 0 is drawn,
    and hardly ever 1. Example: bits 0 give 2**-54, bits 2**52 give 0.5 + 2**-54, rounded to 0.5.
    Source: SplitMix64 (Steele, Lea & Flood 2014).
    """
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(_STEP)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX_1)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX_2)
        z = z ^ (z >> np.uint64(31))
    return ((z >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53


CHUNK = 128  # tokens whose probabilities are summed first, in a large vocabulary
LARGE_VOCABULARY = 4_096


def draw(
    logits_BV: torch.Tensor,
    noise_B1: torch.Tensor,
    temperature: float,
    replace: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Tokens [B], drawn by inverting the cumulative distribution at `noise`; their log-probs [B];
    the entropies [B] of the distributions, float32, in nats.

    `replace` gives the tokens to record in place of those that were drawn.

    Log-probs and entropies are those at this temperature, the distribution that is sampled and
    trained; greedy generation (temperature 0) records those at temperature 1.
    """
    if temperature not in (0.0, 1.0):
        logits_BV = logits_BV / temperature
    logprobs_BV = torch.log_softmax(logits_BV, -1)
    probs_BV = logprobs_BV.exp()
    if temperature == 0.0:
        tokens = logits_BV.argmax(-1)
    else:
        # Clamped: where probabilities are NaN the search ends after the last token.
        tokens = invert(probs_BV, noise_B1).squeeze(1).clamp_(max=logits_BV.shape[1] - 1)
    if replace is not None:
        tokens = replace(tokens)
    entropies = torch.special.entr(probs_BV).sum(-1)
    return tokens, logprobs_BV.gather(1, tokens[:, None]).squeeze(1), entropies


def invert(probs_BV: torch.Tensor, noise_B1: torch.Tensor) -> torch.Tensor:
    """[B, 1]: the first token at which the cumulative sum of the probabilities, in float64, reaches
    `noise` in (0, 1) times their total; never a token of probability 0.

    In a large vocabulary the sums of chunks are searched first, then the tokens of one chunk: to
    write 150,000 cumulative sums of a row in float64 costs more than to compute a small model.
    Example with chunks of 2: p = .1 .2 .3 .4, noise .5. Cumulative sums of chunks are .3 1.0, so it
    is chunk 1, with .3 before it; inside, .3 .7 reach .5 - .3 at the first token: 1 * 2 + 0 = 2.
    All of it stays on the device: the host never waits for a number.
    """
    B, V = probs_BV.shape
    if V <= LARGE_VOCABULARY:
        sums = probs_BV.cumsum(-1, dtype=torch.float64)
        return torch.searchsorted(sums, noise_B1 * sums[:, -1:])
    probs_BNC = F.pad(probs_BV, (0, -V % CHUNK)).view(B, -1, CHUNK)
    sums = probs_BNC.sum(-1, dtype=torch.float64).cumsum(-1)
    edge = noise_B1 * sums[:, -1:]
    # NaN is found after the last chunk, and a read there on a GPU ends the whole process.
    chunk = torch.searchsorted(sums, edge).clamp(max=sums.shape[1] - 1)
    before = torch.where(chunk > 0, sums.gather(1, (chunk - 1).clamp(min=0)), 0.0)
    inside_BC = probs_BNC.gather(1, chunk[:, :, None].expand(-1, -1, CHUNK)).squeeze(1)
    inside_BC = inside_BC.cumsum(-1, dtype=torch.float64)
    # A chunk's sum in another order may round lower than before: stay within its last token.
    rest = torch.minimum(edge - before, inside_BC[:, -1:])
    return chunk * CHUNK + torch.searchsorted(inside_BC, rest)
