"""Which completions count: those cut off at the limit, groups that teach nothing, and which
problems to ask next."""

import torch

from aha.algo.advantages import informative

OVERLONG = ("keep", "zero", "mask", "soft")
ZERO_VARIANCE = ("keep", "drop", "resample")
CURRICULA = ("off", "pools", "no_positive")


def soft_overlong(lengths_PG: torch.Tensor, limit: int, buffer: int) -> torch.Tensor:
    """0 up to limit - buffer, then falling in a line to -1 at the limit and beyond.

    Source: DAPO (arXiv 2503.14476): limit 20480, buffer 4096.
    """
    over_PG = lengths_PG - (limit - buffer)
    return -(over_PG / buffer).clamp(0, 1)


def overlong_rewards(rewards_PG, lengths_PG, cut_PG, how: str, limit: int, buffer: int):
    """Rewards after the rule for completions that were cut off at the limit.

      keep  as graded        zero  0 if cut off (oat, MaxRL)
      soft  a growing penalty near the limit (DAPO)
      mask  as graded here, for the group's baseline; the row leaves the loss (`counted`)

    `cut_PG` comes from the finish reason, never from a look at the last token (trap T28).
    """
    if how == "zero":
        return rewards_PG * (1 - cut_PG)
    if how == "soft":
        return rewards_PG + soft_overlong(lengths_PG, limit, buffer)
    assert how in ("keep", "mask"), how
    return rewards_PG


def counted(advantages_PG, cut_PG, overlong: str, zero_variance: str) -> torch.Tensor:
    """[P, G] of 0 and 1: the completions in the loss and in its denominators alike (trap T11).

    Source: overlong filtering and dynamic sampling of DAPO (arXiv 2503.14476); dropping flat
    groups as in ScaleRL (arXiv 2510.13786).
    """
    counted_PG = torch.ones_like(advantages_PG)
    if overlong == "mask":
        counted_PG = counted_PG * (1 - cut_PG)
    if zero_variance != "keep":
        counted_PG = counted_PG * (advantages_PG != 0).any(1, keepdim=True)
    return counted_PG


def mixed_groups(rewards_PG: torch.Tensor, wanted: int) -> list[int]:
    """Places of the first `wanted` groups that teach; flat ones fill up if there are too few.

    For `resample`: prompts are asked anew until enough groups are mixed or the rounds are over.
    """
    teaches = informative(rewards_PG).flatten().tolist()
    order = sorted(range(len(teaches)), key=lambda p: not teaches[p])
    return sorted(order[:wanted])


def informative_share(solve_rate: float, group_size: int) -> float:
    """1 - p^G - (1-p)^G: the share of groups that are mixed, for choosing G and difficulty."""
    return 1 - solve_rate**group_size - (1 - solve_rate) ** group_size


def pool_weight(solve_rate: float, weights: tuple[float, float, float] = (0.2, 1.0, 0.2)) -> float:
    """Weight of a problem by its pool: hard (<= 0.25), middle (<= 0.75), easy.

    Source: difficulty pools of prime-rl, with its defaults.
    """
    hard, middle, easy = weights
    if solve_rate <= 0.25:
        return hard
    return middle if solve_rate <= 0.75 else easy


def ask_weight(curriculum: str, solve_rate: float | None) -> float:
    """How likely a problem is asked again, given its solve rate when last asked (None: never).

    no_positive: a problem solved at 0.9 or more is not asked again.
    Source: ScaleRL's no-positive-resampling (arXiv 2510.13786).
    """
    assert curriculum in CURRICULA, curriculum
    if curriculum == "off" or solve_rate is None:
        return 1.0
    if curriculum == "no_positive":
        return 0.0 if solve_rate >= 0.9 else 1.0
    return pool_weight(solve_rate)
