"""Makes a recipe's first step on some of its problems, and measures it for the checks.

`first_step_checks` has the checks.

Shapes: P prompts, G completions of a prompt, B rows, T tokens. Log-probs in nats.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from aha.batching.batch import MicroBatch, TrainingRow, pack, pack_graded
from aha.core.config import RunConfig
from aha.core.records import Completion, Graded, Problem, Prompt, StepReport
from aha.doctor.loss_probe import LossProbe, probe_update
from aha.model.policy import Policy
from aha.model.tokenizer import Tokenizer
from aha.training.reference import Reference
from aha.training.rl import RLTrainer
from aha.training.watchers import step_row

NUM_COMPLETIONS = 256  # of the trial, unless its updates need more
BATCH_ROWS = 32
NUM_ALONE = 16  # completions that are computed again, each in a batch of its own
PROBE = (4, 4, 32)  # prompts, completions of each and tokens of a short generation
LORA = ".lora."  # in the names of an adapter's tensors, beside which all others are frozen
PERTURBATION = 0.3  # of a tensor's standard deviation: log-probs of such weights differ clearly


@dataclass(frozen=True)
class LogprobGap:
    """Two log-probs of the same tokens: the gap between them, in nats."""

    mean: float  # of the absolute gap
    low: float = 1.0  # the smallest ratio exp(gap)
    high: float = 1.0  # the largest


@dataclass(frozen=True)
class WeightChange:
    """How the weights of two versions differ."""

    share: float  # of the weights that can change, those whose bits differ
    size: float  # norm of the difference against the norm of all weights
    unchanged: tuple[str, ...] = ()  # tensors in which nothing differs


@dataclass(frozen=True)
class DrawStatistics:
    """-log p of the drawn tokens less the entropy, p by the trainer: 0 but for chance."""

    gap: float  # its mean, in nats a token
    z: float  # in standard errors


@dataclass(frozen=True)
class Trial:
    """The measurements. Weights before the step are version 0, those after it version 1."""

    cfg: RunConfig
    task: str
    tokenizer: Tokenizer
    exact: bool  # engine and trainer both compute in float32
    report: StepReport
    row: dict[str, Any]  # as in metrics.jsonl
    rows: list[list[Graded]]  # of each part
    parts: list[MicroBatch]  # prompts of different lengths in one batch, as in training
    engine: LogprobGap  # the engine's recorded log-probs against the trainer's at version 0
    repeat: LogprobGap  # the trainer's, computed twice
    packing: LogprobGap  # a completion in its group's batch against the same one alone
    draws: DrawStatistics
    reference: LogprobGap | None  # the reference's at version 0; None without a reference
    reference_after: LogprobGap | None  # the same after the step; None where it was to be reset
    probe: LossProbe  # the loss of the first update, token by token
    weight_change: WeightChange  # version 1 against version 0
    idle_change: WeightChange  # of a step with a learning rate of 0
    # Mean of advantage x rise of the log-prob, a token; None where no weight or advantage changed.
    advantage_gain: float | None
    # The engine, given new weights, against these and against the old ones.
    republished: tuple[LogprobGap, LogprobGap]
    reproducible: bool  # the same seed draws the same tokens


def reduced_recipe(cfg: RunConfig) -> RunConfig:
    """The recipe with fewer prompts: as many as its updates and informative groups need.

    Without a warm-up of the critic, during which the policy would not be updated.
    """
    if cfg.critic.warmup:
        cfg = cfg.model_copy(update={"critic": cfg.critic.model_copy(update={"warmup": 0})})
    rollout = cfg.rollout
    prompts = max(cfg.algo.updates, -(-NUM_COMPLETIONS // rollout.group_size))
    if prompts >= rollout.prompts:
        return cfg
    return cfg.model_copy(update={"rollout": rollout.model_copy(update={"prompts": prompts})})


def run_trial(trainer: RLTrainer) -> Trial:
    """Make and measure one step of a new trainer, which is at version 1 afterwards."""
    assert trainer.version == 0, "a trial begins at version 0"
    problems = trainer.problems()
    reproducible = is_reproducible(trainer, problems)
    base = copy.deepcopy(trainer.policy)
    idle_change = idle_step(trainer, problems)
    trainer.policy.load_state_dict(base.state_dict())
    trainer.engine.load(trainer.policy, 0)
    reference = copy.deepcopy(trainer.reference)
    report = trainer.step(problems)
    rows, parts = packed_batches(report.groups, report.advantages, trainer)
    first = [logprobs_of(base, part, trainer) for part in parts]
    weight_change = compare_weights(base, trainer.policy)
    gain = gain_of(base, trainer.policy, parts, trainer) if weight_change.share else None
    reset = trainer.cfg.algo.reference_reset == 1
    after = None if reset else copy.deepcopy(trainer.reference)
    return Trial(
        cfg=trainer.cfg,
        task=trainer.task.name,
        tokenizer=trainer.tokenizer,
        exact=trainer.dtype == getattr(trainer.engine, "dtype", trainer.dtype) == torch.float32,
        report=report,
        row=step_row(report, 0.0),
        rows=rows,
        parts=parts,
        engine=gap_of([part.old_logprobs_BT for part in parts], first, parts),
        repeat=gap_of([logprobs_of(base, part, trainer) for part in parts], first, parts),
        packing=gap_alone(base, rows, first, parts, trainer),
        draws=draws_of(base, parts, trainer),
        reference=reference_gap(reference, first, parts),
        reference_after=reference_gap(after, first, parts),
        probe=probe_update(report, trainer),
        weight_change=weight_change,
        idle_change=idle_change,
        advantage_gain=gain,
        republished=republish(trainer, problems),
        reproducible=reproducible,
    )


# -- measuring ---------------------------------------------------------------------------------


def packed_batches(
    groups: Sequence[Sequence[Graded]], advantages: Sequence[Sequence[float]], trainer: RLTrainer
) -> tuple[list[list[Graded]], list[MicroBatch]]:
    """(the rows of each batch, the batches); a batch has at least two groups."""
    rows = [
        TrainingRow.of(*pair)
        for group, own in zip(groups, advantages, strict=True)
        for pair in zip(group, own, strict=True)
    ]
    size = max(BATCH_ROWS, 2 * len(groups[0]))
    split = [rows[first : first + size] for first in range(0, len(rows), size)]
    parts = [pack(part, trainer.tokenizer.pad_id).to(trainer.policy.device) for part in split]
    return [[row.graded for row in part] for part in split], parts


@torch.no_grad()
def logprobs_of(
    policy: Policy, part: MicroBatch, trainer: RLTrainer, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """The policy's log-probs of a batch [B, T], in the trainer's type unless another is given."""
    inputs = (part.tokens_BT, part.start, dtype or trainer.dtype, trainer.cfg.rollout.temperature)
    return policy.token_logprobs(*inputs, layout=part.layout)


def gap_of(
    left: list[torch.Tensor], right: list[torch.Tensor], parts: list[MicroBatch]
) -> LogprobGap:
    """The gap between two lists of log-probs [B, T], over the completions' own tokens."""
    gaps = [(a - b)[part.mask_BT > 0] for a, b, part in zip(left, right, parts, strict=True)]
    gaps_N = torch.cat(gaps).float().cpu()
    low, high = (float(edge) for edge in gaps_N.clamp(-20, 20).exp().aminmax())
    return LogprobGap(float(gaps_N.abs().mean()), low, high)


@torch.no_grad()
def draws_of(policy: Policy, parts: list[MicroBatch], trainer: RLTrainer) -> DrawStatistics:
    """Of all drawn tokens, by the policy that they should have been drawn from."""
    gaps = []
    for part in parts:
        inputs = (part.tokens_BT, part.start, trainer.dtype, trainer.cfg.rollout.temperature)
        scores = policy.logprobs_and_entropy(*inputs, entropy=True, layout=part.layout)
        logprobs_BT, entropies_BT = scores
        assert entropies_BT is not None, "entropies were asked for"
        gaps.append((-logprobs_BT - entropies_BT)[part.mask_BT > 0])
    gaps_N = torch.cat(gaps).cpu().double()  # an Apple GPU has no float64
    deviation = float(gaps_N.square().sum().sqrt())
    return DrawStatistics(float(gaps_N.mean()), float(gaps_N.sum()) / max(deviation, 1e-12))


def reference_gap(
    reference: object, first: list[torch.Tensor], parts: list[MicroBatch]
) -> LogprobGap | None:
    """The reference's log-probs against the policy's at version 0; None without a reference."""
    if not isinstance(reference, Reference):
        return None
    return gap_of([reference.logprobs(part) for part in parts], first, parts)


def gap_alone(
    base: Policy,
    rows: list[list[Graded]],
    first: list[torch.Tensor],
    parts: list[MicroBatch],
    trainer: RLTrainer,
) -> LogprobGap:
    """The gap between a completion in its batch and the same one alone, for one of each batch.

    The shortest one, because it has the most padding.
    """
    alone_logprobs, batch_logprobs, alone_batches = [], [], []
    for graded, logprobs_BT, part in list(zip(rows, first, parts, strict=True))[:NUM_ALONE]:
        b = min(range(len(graded)), key=lambda i: len(graded[i].completion.tokens))
        alone = pack_graded([graded[b]], trainer.tokenizer.pad_id).to(base.device)
        begin = alone.start - part.start
        alone_logprobs.append(logprobs_of(base, alone, trainer))
        batch_logprobs.append(logprobs_BT[b : b + 1, begin : begin + alone.mask_BT.shape[1]])
        alone_batches.append(alone)
    return gap_of(alone_logprobs, batch_logprobs, alone_batches)


@torch.no_grad()
def compare_weights(old: Policy, new: Policy) -> WeightChange:
    """The change from the old to the new weights, of those that can change in a step; NaN counts as
    changed."""
    changed = total = 0
    difference = norm = 0.0
    unchanged = []
    olds = dict(old.named_parameters())
    adapted = any(LORA in name for name in olds)
    for name, after in new.named_parameters():
        before = olds[name]
        norm += float(before.cpu().double().square().sum())
        if adapted and (LORA not in name or is_idle(name, olds)):
            continue
        count = int((before != after).sum())
        unchanged += [] if count else [name]
        changed, total = changed + count, total + before.numel()
        difference += float((after - before).cpu().double().square().sum())
    return WeightChange(changed / total, (difference / max(norm, 1e-30)) ** 0.5, tuple(unchanged))


def is_idle(name: str, weights: Mapping[str, torch.Tensor]) -> bool:
    """Whether a tensor is the A of an adapter whose B is 0, as at the start: its gradient is 0."""
    A, B = f"{LORA}A.", f"{LORA}B."
    return A in name and not weights[name.replace(A, B)].any()


def idle_step(trainer: RLTrainer, problems: list[Problem]) -> WeightChange:
    """The change of the weights in a step of a second trainer, with a learning rate of 0."""
    optim = trainer.cfg.optim.model_copy(update={"lr": 0.0})
    cfg = trainer.cfg.model_copy(update={"optim": optim})
    before = copy.deepcopy(trainer.policy)
    kind, parts = type(trainer), (trainer.policy, trainer.tokenizer, trainer.task)
    kind(*parts, trainer.engine, cfg).step(problems[: max(cfg.algo.updates, PROBE[0])])
    return compare_weights(before, trainer.policy)


def gain_of(base: Policy, now: Policy, parts: list[MicroBatch], trainer: RLTrainer) -> float | None:
    """Mean of advantage x (log-prob now - before) over tokens, in float32.

    Positive where tokens with a positive advantage became more likely. None where all advantages
    are 0.
    """
    total = tokens = 0.0
    for part in parts:
        rise_BT = logprobs_of(now, part, trainer, torch.float32) - logprobs_of(
            base, part, trainer, torch.float32
        )
        total += float((rise_BT * part.advantages_BT * part.mask_BT).sum())
        tokens += float((part.mask_BT * (part.advantages_BT != 0)).sum())
    return total / tokens if tokens else None


def probe(trainer: RLTrainer, problems: list[Problem]) -> list[list[Completion]]:
    """A few short completions by the engine, with the weights that it has."""
    P, G, T = PROBE
    prompts = [Prompt.of(problem, trainer.task, trainer.tokenizer) for problem in problems[:P]]
    usual = trainer.rollout.sampling(trainer.seeds)
    sampling = replace(usual, group_size=G, max_new_tokens=min(T, usual.max_new_tokens))
    return trainer.engine.generate(prompts, sampling)


def is_reproducible(trainer: RLTrainer, problems: list[Problem]) -> bool:
    """Whether the same seed draws the same tokens twice."""
    first, second = (
        [[completion.tokens for completion in group] for group in probe(trainer, problems)]
        for _ in range(2)
    )
    return first == second


def republish(trainer: RLTrainer, problems: list[Problem]) -> tuple[LogprobGap, LogprobGap]:
    """Gaps of an engine that was given very different weights: (against these, against the old).

    If an engine keeps some of the old weights, or cached keys of them, the first gap is large.
    """
    policy, version = trainer.policy, trainer.version
    old = copy.deepcopy(policy)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            size = PERTURBATION * parameter.float().std(correction=0).to(parameter)
            parameter.add_(size * noise)
    trainer.engine.load(policy, version + 1)
    groups = [[Graded(0.0, False, "", completion=c) for c in g] for g in probe(trainer, problems)]
    _, parts = packed_batches(groups, [[0.0] * len(group) for group in groups], trainer)
    drawn = [part.old_logprobs_BT for part in parts]
    new_gap, old_gap = (
        gap_of(drawn, [logprobs_of(weights, part, trainer) for part in parts], parts)
        for weights in (policy, old)
    )
    policy.load_state_dict(old.state_dict())
    trainer.engine.load(policy, version)
    return new_gap, old_gap
