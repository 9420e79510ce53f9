"""Builds the parts of a trainer from its recipe.

Most optional features of a recipe are chosen here, once. A feature that is not chosen becomes a
part that does nothing, so that the step has few conditions.
"""

import torch

from aha.algo.algorithms import chosen_of, method_of
from aha.core.config import RunConfig
from aha.core.engines import ENGINES
from aha.core.seeds import seed_for
from aha.dist.world import World
from aha.machine.micro_batch import MicroBatchSize
from aha.model.policy import Policy
from aha.tasks.protocol import Task
from aha.training.advantage_estimators import AdvantageEstimator, GroupEstimator
from aha.training.critic import CriticEstimator
from aha.training.entropy_control import AdaptiveEntropyBonus, EntropyBonus, HeldTokens, KeptTokens
from aha.training.objective import Correction, KlLoss, MismatchLog, Objective, PolicyLoss, Term
from aha.training.problem_pool import ProblemPool
from aha.training.reference import NoReference, Reference
from aha.training.rollouts import FreshProblems, ProblemSource


def make_source(cfg: RunConfig, task: Task) -> ProblemSource:
    count = cfg.rollout.prompts
    if chosen_of(cfg.algo).curriculum is None:
        return FreshProblems(task, count)
    split = task.problems("train", seed_for(cfg.seed, "pool"))
    return ProblemPool(cfg.algo.curriculum, cfg.algo.pool, split, count)


def make_reference(
    cfg: RunConfig, policy: Policy, dtype: torch.dtype, world: World
) -> Reference | NoReference:
    if not method_of(cfg).reference:
        return NoReference()
    return Reference(policy, dtype, cfg.rollout.temperature, cfg.algo.reference_reset, world)


def make_estimator(
    cfg: RunConfig,
    policy: Policy,
    dtype: torch.dtype,
    reference: Reference | NoReference,
    pad_id: int,
    micro_batch: MicroBatchSize,
    world: World,
) -> AdvantageEstimator:
    if method_of(cfg).critic:
        return CriticEstimator(policy, cfg, dtype, reference, pad_id, micro_batch, world)
    return GroupEstimator(cfg.algo, reference, pad_id, micro_batch)


# What an entropy control adds to the loss, by the role that its registration states.
CONTROL_TERMS = {"keep": KeptTokens, "hold": HeldTokens, "bonus": AdaptiveEntropyBonus}


def make_terms(cfg: RunConfig, reference: Reference | NoReference) -> list[Term]:
    """The terms of the loss in the order in which they are applied."""
    algo, chosen = cfg.algo, chosen_of(cfg.algo)
    terms: list[Term] = [PolicyLoss(chosen.loss, algo)]
    if chosen.correction:
        terms.append(Correction(chosen.correction, algo))
    if chosen.control and chosen.control.facts.role != "bonus":
        terms.append(CONTROL_TERMS[chosen.control.facts.role](chosen.control, algo))
    if isinstance(reference, Reference) and chosen.kl_estimator and algo.kl == "loss":
        terms.append(KlLoss(chosen.kl_estimator, algo, reference))
    if chosen.control and chosen.control.facts.role == "bonus":
        terms.append(CONTROL_TERMS["bonus"](chosen.control, algo))
    elif algo.entropy_coef > 0:
        terms.append(EntropyBonus(algo))
    return terms


def make_objective(
    cfg: RunConfig,
    policy: Policy,
    dtype: torch.dtype,
    reference: Reference | NoReference,
    world: World,
) -> Objective:
    keeps_ratios = not ENGINES[cfg.rollout.engine].exact or cfg.algo.correction != "none"
    return Objective(
        policy,
        make_terms(cfg, reference),
        cfg.algo.aggregation,
        dtype,
        cfg.rollout.temperature,
        MismatchLog(keeps_ratios, world),
    )
