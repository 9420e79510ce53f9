"""Which completions count, and which problems are drawn again.

Three registries: the rule for truncated and long completions (`algo.overlong`), the one for groups
whose rewards are all equal (`algo.zero_variance`), and the curricula.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from aha.algo.advantages import informative
from aha.algo.lazy_torch import torch
from aha.algo.registry import Registry
from aha.core.config import EARLY

# -- completions that the token limit ended --------------------------------------------------


@dataclass(frozen=True)
class OverlongFacts:
    """What the rest of the program has to know of a rule for truncated completions."""

    leaves: bool = False  # a truncated completion leaves the loss and its denominators
    changes_rewards: bool = True  # gives other rewards than those that were graded
    negative: bool = False  # makes rewards negative


OVERLONG: Registry[OverlongFacts] = Registry(
    "overlong",
    OverlongFacts,
    {"overlong_buffer": ("buffer",)},
    inputs=("lengths_PG", "truncated_PG", "limit"),
)
overlong = OVERLONG  # @overlong("name")


@overlong("keep", changes_rewards=False)
def keep_overlong(rewards_PG: torch.Tensor) -> torch.Tensor:
    """Rewards as they were graded. [P, G] -> [P, G]."""
    return rewards_PG


@overlong("zero")
def zero_overlong(rewards_PG: torch.Tensor, truncated_PG: torch.Tensor) -> torch.Tensor:
    """0 for a truncated completion.  Source: oat; MaxRL (arXiv 2602.02710)."""
    return rewards_PG * (1 - truncated_PG)


@overlong("mask", leaves=True, changes_rewards=False)
def mask_overlong(rewards_PG: torch.Tensor) -> torch.Tensor:
    """As graded, for the baseline of its group; the row leaves the loss.

    Source: overlong filtering of DAPO (arXiv 2503.14476).
    """
    return rewards_PG


@overlong("soft", negative=True)
def soft_overlong_rewards(
    rewards_PG: torch.Tensor,
    lengths_PG: torch.Tensor,
    limit: int,
    buffer: int,
) -> torch.Tensor:
    """Rewards with the penalty of `soft_overlong` added. [P, G] -> [P, G].

    Source: DAPO (arXiv 2503.14476), where a right answer is paid 1 and a wrong one -1.
    """
    return rewards_PG + soft_overlong(lengths_PG, limit, buffer)


@overlong("soft_half", negative=True)
def soft_half_overlong_rewards(
    rewards_PG: torch.Tensor,
    lengths_PG: torch.Tensor,
    limit: int,
    buffer: int,
) -> torch.Tensor:
    """Rewards with half of the penalty of `soft_overlong` added. [P, G] -> [P, G].

    Source: DAPO (arXiv 2503.14476), where right and wrong are 2 apart and the penalty is at most 1.
    In our tasks they are 1 apart: this is the same share of it.
    """
    return rewards_PG + 0.5 * soft_overlong(lengths_PG, limit, buffer)


def soft_overlong(lengths_PG: torch.Tensor, limit: int, buffer: int) -> torch.Tensor:
    """0 up to limit - buffer, then falling in a line to -1 at the limit and beyond.

    Source: DAPO (arXiv 2503.14476): limit 20480, buffer 4096.
    """
    over_PG = lengths_PG - (limit - buffer)
    return -(over_PG / buffer).clamp(0, 1)


@overlong(EARLY, changes_rewards=False)
def early_overlong(
    rewards_PG: torch.Tensor,
    lengths_PG: torch.Tensor,
    limit: int,
    buffer: int,
) -> torch.Tensor:
    """As graded, up to limit - buffer tokens: there training ends its completions, and tests go on
    to the limit. [P, G] -> [P, G].

    So a long search is paid only if it is brief, and a step costs less. Nothing is longer here; if
    something were, it would get 0.
    Source: the first stage of DeepScaleR (Luo et al. 2025), 8K tokens of 24K. Differs: no second
    stage, since what was learned within the short limit holds in the long one.
    """
    return rewards_PG * (lengths_PG <= limit - buffer)


SHORTER_SHARE = 0.2  # of the reward of a right completion, at most, for its length


@overlong("shorter")
def shorter_right_rewards(rewards_PG: torch.Tensor, lengths_PG: torch.Tensor) -> torch.Tensor:
    """Longer right completions are paid less: r * (1 - 0.2 * sigmoid((length - mean) / deviation)).
    [P, G] -> [P, G].

    Mean and deviation (in tokens, at least 1) are those of the right completions of the group, so
    a problem that needs a long search is not paid less than an easy one. What is not right keeps
    its reward: a short wrong answer is never worth more than a long one.

    Source: Arora and Zanette (arXiv 2502.04463), whose weight is between 0.02 and 0.4.
    """
    right_PG = (rewards_PG > 0).to(lengths_PG.dtype)
    count_P1 = right_PG.sum(1, keepdim=True).clamp(min=1)
    mean_P1 = (lengths_PG * right_PG).sum(1, keepdim=True) / count_P1
    apart_PG = (lengths_PG - mean_P1) * right_PG
    deviation_P1 = (apart_PG.square().sum(1, keepdim=True) / count_P1).sqrt().clamp(min=1)
    share_PG = SHORTER_SHARE * torch.sigmoid(apart_PG / deviation_P1)
    return rewards_PG * (1 - share_PG * right_PG)


def overlong_rewards(
    rewards_PG: torch.Tensor,
    lengths_PG: torch.Tensor,
    truncated_PG: torch.Tensor,
    rule: str,
    limit: int,
    buffer: int,
) -> torch.Tensor:
    """Rewards after the rule for truncated completions.

    `truncated_PG` comes from the finish reason, never from a look at the last token: the token
    before the limit may be the stop token.
    """
    tensors = {"lengths_PG": lengths_PG, "truncated_PG": truncated_PG}
    paid_PG: torch.Tensor = OVERLONG[rule](rewards_PG, **tensors, limit=limit, buffer=buffer)
    return paid_PG


# -- groups whose rewards are all equal ------------------------------------------------------


@dataclass(frozen=True)
class ZeroVarianceFacts:
    """What the rest of the program has to know of a rule for flat groups."""

    drops: bool = False  # a flat group leaves the loss and its denominators
    resamples: bool = False  # prompts are drawn again until enough groups are mixed
    mixed_by: Literal["correct", "reward"] = "correct"  # what differs within a mixed group


ZERO_VARIANCE: Registry[ZeroVarianceFacts] = Registry(
    "zero_variance", ZeroVarianceFacts, inputs=("mixed_P1",)
)
zero_variance = ZERO_VARIANCE  # @zero_variance("name")


@zero_variance("keep")
def keep_flat(advantages_PG: torch.Tensor) -> torch.Tensor:
    """Every completion counts: [P, G] of 1."""
    return torch.ones_like(advantages_PG)


@zero_variance("drop", drops=True)
def drop_flat(advantages_PG: torch.Tensor) -> torch.Tensor:
    """The completions of a group whose advantages are all 0 leave the loss: [P, G] of 0 and 1.

    Source: ScaleRL (arXiv 2510.13786).
    """
    mixed_P1 = (advantages_PG != 0).any(1, keepdim=True)
    return torch.ones_like(advantages_PG) * mixed_P1


@zero_variance("resample", drops=True, resamples=True)
def resample_flat(
    advantages_PG: torch.Tensor, mixed_P1: torch.Tensor | None = None
) -> torch.Tensor:
    """1 for the completions of mixed groups, after prompts were drawn again in place of the others:
    [P, G] of 0 and 1.

    `mixed_P1`: whether a group has right and wrong answers. It decides, not the advantages: a group
    that is wrong throughout, but of different lengths, has advantages too where a penalty for
    length is in the reward.
    Source: dynamic sampling of DAPO (arXiv 2503.14476), 0 < number right < G.
    """
    if mixed_P1 is None:
        return drop_flat(advantages_PG)
    return torch.ones_like(advantages_PG) * mixed_P1


@zero_variance("resample_by_reward", drops=True, resamples=True, mixed_by="reward")
def resample_equal_rewards(
    advantages_PG: torch.Tensor, mixed_P1: torch.Tensor | None = None
) -> torch.Tensor:
    """As "resample", with different rewards in place of right and wrong answers: for a task that
    pays by degrees and calls nothing right. [P, G] of 0 and 1.

    Source: as "resample"; veRL's `filter_groups.metric` chooses likewise.
    """
    return resample_flat(advantages_PG, mixed_P1)


def counted(
    advantages_PG: torch.Tensor,
    truncated_PG: torch.Tensor,
    overlong: str,
    zero_variance: str,
    compared_PG: torch.Tensor | None = None,
) -> torch.Tensor:
    """[P, G] of 0 and 1: the completions in the loss, and in its denominators alike: a row that is
    in one of them only would make the others count for less.

    `compared_PG`: as in `mixed_groups`.
    """
    mixed_P1 = None if compared_PG is None else informative(compared_PG)
    counted_PG: torch.Tensor = ZERO_VARIANCE[zero_variance](advantages_PG, mixed_P1=mixed_P1)
    if OVERLONG[overlong].facts.leaves:
        counted_PG = counted_PG * (1 - truncated_PG)
    return counted_PG


def mixed_groups(compared_PG: torch.Tensor, groups: int) -> list[int]:
    """Places of the first `groups` mixed groups; flat ones fill up if there are too few.

    `compared_PG`: what has to differ within a group, by the rule: 1 for right and 0 for wrong, or
    the rewards. For "resample": prompts are drawn again until enough groups are mixed or
    the rounds are over.
    """
    mixed = informative(compared_PG).flatten().tolist()
    order = sorted(range(len(mixed)), key=lambda p: not mixed[p])
    return sorted(order[:groups])


def informative_share(solve_rate: float, group_size: int) -> float:
    """1 - p^G - (1-p)^G: the share of groups that are mixed, for choosing G and difficulty."""
    return 1 - solve_rate**group_size - (1 - solve_rate) ** group_size


# -- problems that are drawn again -----------------------------------------------------------


@dataclass(frozen=True)
class CurriculumFacts:
    """Nothing has to be known of a curriculum but its name."""


CURRICULA: Registry[CurriculumFacts] = Registry(
    "curriculum", CurriculumFacts, absent="off", inputs=()
)
curriculum = CURRICULA  # @curriculum("name")


@curriculum("pools")
def pool_weight(solve_rate: float, weights: tuple[float, float, float] = (0.2, 1.0, 0.2)) -> float:
    """Weight of a problem by its pool: hard (<= 0.25), middle (<= 0.75), easy.

    Source: difficulty pools of prime-rl, with its defaults.
    """
    hard, middle, easy = weights
    if solve_rate <= 0.25:
        return hard
    return middle if solve_rate <= 0.75 else easy


@curriculum("no_positive")
def no_positive_weight(solve_rate: float) -> float:
    """0 for a problem that was solved at 0.9 or more: it is not drawn again.

    Source: no-positive-resampling of ScaleRL (arXiv 2510.13786).
    """
    return 0.0 if solve_rate >= 0.9 else 1.0


def draw_weight(name: str, solve_rate: float | None) -> float:
    """How likely a problem is drawn again under the curriculum `name`, given its solve rate when it
    was last drawn; 1 for a problem that never was (None)."""
    rule = CURRICULA.chosen(name)
    return 1.0 if rule is None or solve_rate is None else float(rule(solve_rate))
