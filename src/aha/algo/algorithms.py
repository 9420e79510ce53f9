"""All registries, and the algorithms that a recipe has chosen from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from aha.algo.advantages import ADVANTAGES, AdvantageFacts
from aha.algo.aggregation import AGGREGATIONS, AggregationFacts
from aha.algo.correction import CORRECTIONS, CorrectionFacts
from aha.algo.entropy import CONTROLS, ControlFacts
from aha.algo.filters import (
    CURRICULA,
    OVERLONG,
    ZERO_VARIANCE,
    CurriculumFacts,
    OverlongFacts,
    ZeroVarianceFacts,
)
from aha.algo.kl import ESTIMATORS, IN_LOSS, IN_REWARD, EstimatorFacts
from aha.algo.losses import LOSSES, LossFacts
from aha.algo.registry import Algorithm, Registry
from aha.core.config import AlgoSection, RunConfig
from aha.core.method import Method

# By the key of [algo] that chooses from each.
REGISTRIES: dict[str, Registry[Any]] = {
    registry.setting: registry
    for registry in (
        *(ADVANTAGES, LOSSES, AGGREGATIONS, ESTIMATORS, CORRECTIONS, CONTROLS),
        *(OVERLONG, ZERO_VARIANCE, CURRICULA),
    )
}


@dataclass(frozen=True)
class Chosen:
    """The algorithms of a recipe, one of each kind; None where the recipe wants none."""

    advantage: Algorithm[AdvantageFacts]
    loss: Algorithm[LossFacts]
    aggregation: Algorithm[AggregationFacts]
    kl_estimator: Algorithm[EstimatorFacts] | None
    correction: Algorithm[CorrectionFacts] | None
    control: Algorithm[ControlFacts] | None
    overlong: Algorithm[OverlongFacts]
    zero_variance: Algorithm[ZeroVarianceFacts]
    curriculum: Algorithm[CurriculumFacts] | None


def chosen_of(algo: AlgoSection) -> Chosen:
    """Raises ConfigError for a name that no registry has."""
    default = IN_REWARD if algo.kl == "reward" else IN_LOSS
    estimator = ESTIMATORS.pick(algo.kl_estimator or default)
    return Chosen(
        ADVANTAGES.pick(algo.advantage),
        LOSSES.pick(algo.loss),
        AGGREGATIONS.pick(algo.aggregation),
        None if algo.kl == "none" else estimator,
        CORRECTIONS.chosen(algo.correction),
        CONTROLS.chosen(algo.entropy_control),
        OVERLONG.pick(algo.overlong),
        ZERO_VARIANCE.pick(algo.zero_variance),
        CURRICULA.chosen(algo.curriculum),
    )


def method_of(cfg: RunConfig) -> Method:
    """What the trainer and the plan have to know of a recipe's algorithms."""
    chosen = chosen_of(cfg.algo)
    advantage, loss = chosen.advantage.facts, chosen.loss.facts
    return Method(
        # The KL differs between the completions of a group, so their rewards do as well.
        flat_is_zero=advantage.group and cfg.algo.kl != "reward",
        critic=advantage.critic,
        reference=cfg.algo.kl != "none",
        resamples=chosen.zero_variance.facts.resamples,
        drops_flat=chosen.zero_variance.facts.drops,
        every_row=loss.every_row or cfg.algo.kl == "loss",
        every_row_later=chosen.control is not None and chosen.control.facts.role == "hold",
    )
