"""A recipe's first step on some of its problems, with everything measured that can be wrong in
silence. `first.py` judges what is found here.

Shapes: P prompts, G completions of a prompt, B rows, T tokens. Log-probs in nats.
"""

import copy
from dataclasses import dataclass, replace

import torch

from aha.batching.batch import Batch, TrainingRow, pack, pack_graded
from aha.core.config import RunConfig
from aha.core.records import Completion, Graded, Problem, Prompt, StepReport
from aha.model.tokenizer import Tokenizer
from aha.model.transformer import Transformer
from aha.train.reference import Reference
from aha.train.rl import RLTrainer
from aha.train.watchers import step_row

ROWS = 256  # completions of the trial, unless its updates need more
PART_ROWS = 32
ALONE = 16  # completions that are read once more, each in a batch of its own
PROBED = (4, 4, 32)  # prompts, completions of each and tokens of a look at the engine
NUDGE = 0.3  # of a tensor's deviation: weights that no engine may mistake for those before


@dataclass(frozen=True)
class Gap:
    """|one log-prob - another| over tokens; `low` and `high` are those of the ratio exp(gap)."""

    mean: float
    low: float = 1.0
    high: float = 1.0


@dataclass(frozen=True)
class Moved:
    """How one version's weights differ from another's."""

    share: float  # of all weights, those whose bits differ
    size: float  # norm of the difference against the norm of the weights
    still: tuple[str, ...] = ()  # tensors in which nothing differs


@dataclass(frozen=True)
class Trial:
    """The facts. Weights before the step are `version 0`, those after it `version 1`."""

    cfg: RunConfig
    task: str
    tokenizer: Tokenizer
    exact: bool  # engine and trainer both compute in float32
    report: StepReport
    row: dict  # as in metrics.jsonl
    rows: list[list[Graded]]  # of each part
    parts: list[Batch]  # prompts of different lengths side by side, as in training
    engine: Gap  # the engine's recorded log-probs against the trainer's at version 0
    repeat: Gap  # the trainer's own, twice
    packing: Gap  # a completion in its group's batch against the same one alone
    reference: Gap | None  # the reference's at version 0; None without a KL
    moved: Moved  # version 1 against version 0
    idle: Moved  # after a step with a learning rate of 0, against before
    gain: float | None  # mean advantage x rise of the log-prob, a token; None where nothing moved
    republished: tuple[Gap, Gap]  # the engine with new weights against these, and the old ones
    steady: bool  # the same seed draws the same tokens


def small(cfg: RunConfig) -> RunConfig:
    """The recipe with fewer prompts: as many as its updates and informative groups need. A critic
    is not warmed up first, for it is the policy's step that is looked at."""
    if cfg.critic.warmup:
        cfg = cfg.model_copy(update={"critic": cfg.critic.model_copy(update={"warmup": 0})})
    rollout = cfg.rollout
    wanted = max(cfg.algo.updates, -(-ROWS // rollout.group_size))
    if wanted >= rollout.prompts:
        return cfg
    return cfg.model_copy(update={"rollout": rollout.model_copy(update={"prompts": wanted})})


def try_out(trainer: RLTrainer) -> Trial:
    """One step of a trainer that has made none. Leaves it at version 1."""
    assert trainer.version == 0, "a trial begins at version 0"
    problems = trainer.problems()
    steady = draws_the_same(trainer, problems)
    base = copy.deepcopy(trainer.policy)
    idle = idle_step(trainer, problems)
    trainer.policy.load_state_dict(base.state_dict())
    trainer.engine.load(trainer.policy, 0)
    reference = copy.deepcopy(trainer.reference)
    report = trainer.step(problems)
    rows, parts = packed(report.groups, report.advantages, trainer)
    first = [read(base, part, trainer) for part in parts]
    moved = compared(base, trainer.policy)
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
        repeat=gap_of([read(base, part, trainer) for part in parts], first, parts),
        packing=gap_alone(base, rows, first, parts, trainer),
        reference=reference_gap(reference, first, parts),
        moved=moved,
        idle=idle,
        gain=gain_of(base, trainer.policy, parts, trainer) if moved.share else None,
        republished=republish(trainer, problems),
        steady=steady,
    )


# -- measuring ------------------------------------------------------------------------------


def packed(groups, advantages, trainer: RLTrainer) -> tuple[list[list[Graded]], list[Batch]]:
    """(the rows of each batch in their order, the batches): some groups in each, two at least."""
    rows = [
        TrainingRow.of(*pair)
        for group, own in zip(groups, advantages, strict=True)
        for pair in zip(group, own, strict=True)
    ]
    size = max(PART_ROWS, 2 * len(groups[0]))
    dealt = [rows[first : first + size] for first in range(0, len(rows), size)]
    parts = [pack(part, trainer.tokenizer.pad_id).to(trainer.policy.device) for part in dealt]
    return [[row.graded for row in part] for part in dealt], parts


@torch.no_grad()
def read(policy: Transformer, part: Batch, trainer: RLTrainer, dtype=None) -> torch.Tensor:
    """[B, T], in the trainer's own type unless another is given."""
    at = (part.tokens_BT, part.start, dtype or trainer.dtype, trainer.cfg.rollout.temperature)
    return policy.token_logprobs(*at, layout=part.layout)


def gap_of(one: list[torch.Tensor], other: list[torch.Tensor], parts: list[Batch]) -> Gap:
    """Over the completions' own tokens."""
    gaps = [(a - b)[part.mask_BT > 0] for a, b, part in zip(one, other, parts, strict=True)]
    gaps_N = torch.cat(gaps).float().cpu()
    low, high = (float(edge) for edge in gaps_N.clamp(-20, 20).exp().aminmax())
    return Gap(float(gaps_N.abs().mean()), low, high)


def reference_gap(reference: object, first: list[torch.Tensor], parts: list[Batch]) -> Gap | None:
    """The reference's log-probs against the policy's at version 0; None without a reference."""
    if not isinstance(reference, Reference):
        return None
    return gap_of([reference.logprobs(part) for part in parts], first, parts)


def gap_alone(
    base: Transformer, rows: list, first: list[torch.Tensor], parts: list[Batch], trainer: RLTrainer
) -> Gap:
    """The shortest completion of some batches, which has most padding beside it, read alone."""
    one, other, lone = [], [], []
    for graded, logprobs_BT, part in list(zip(rows, first, parts, strict=True))[:ALONE]:
        b = min(range(len(graded)), key=lambda i: len(graded[i].completion.tokens))
        alone = pack_graded([graded[b]], trainer.tokenizer.pad_id).to(base.device)
        begin = alone.start - part.start
        one.append(read(base, alone, trainer))
        other.append(logprobs_BT[b : b + 1, begin : begin + alone.mask_BT.shape[1]])
        lone.append(alone)
    return gap_of(one, other, lone)


@torch.no_grad()
def compared(old: Transformer, new: Transformer) -> Moved:
    """Bit by bit, tensor by tensor."""
    changed = total = 0
    difference = norm = 0.0
    still = []
    others = dict(new.named_parameters())
    for name, before in old.named_parameters():
        after = others[name]
        count = int((before != after).sum())
        still += [] if count else [name]
        changed, total = changed + count, total + before.numel()
        difference += float((after - before).double().square().sum())
        norm += float(before.double().square().sum())
    return Moved(changed / total, (difference / max(norm, 1e-30)) ** 0.5, tuple(still))


def idle_step(trainer: RLTrainer, problems: list[Problem]) -> Moved:
    """A whole step by a twin with a learning rate of 0, on the same weights."""
    optim = trainer.cfg.optim.model_copy(update={"lr": 0.0})
    cfg = trainer.cfg.model_copy(update={"optim": optim})
    before = copy.deepcopy(trainer.policy)
    kind, parts = type(trainer), (trainer.policy, trainer.tokenizer, trainer.task)
    kind(*parts, trainer.engine, cfg).step(problems[: max(cfg.algo.updates, PROBED[0])])
    return compared(before, trainer.policy)


def gain_of(
    base: Transformer, now: Transformer, parts: list[Batch], trainer: RLTrainer
) -> float | None:
    """Mean of advantage x (log-prob now - before) over tokens, in float32: what is paid for must
    have become likelier. None where nothing was paid for."""
    total = tokens = 0.0
    for part in parts:
        rise_BT = read(now, part, trainer, torch.float32) - read(base, part, trainer, torch.float32)
        total += float((rise_BT * part.advantages_BT * part.mask_BT).sum())
        tokens += float((part.mask_BT * (part.advantages_BT != 0)).sum())
    return total / tokens if tokens else None


def probe(trainer: RLTrainer, problems: list[Problem]) -> list[list[Completion]]:
    """A few short completions by the engine as it is."""
    P, G, T = PROBED
    prompts = [Prompt.of(one, trainer.task, trainer.tokenizer) for one in problems[:P]]
    wanted = trainer.rollout.sampling(trainer.seeds)
    few = replace(wanted, group_size=G, max_new_tokens=min(T, wanted.max_new_tokens))
    return trainer.engine.generate(prompts, few)


def draws_the_same(trainer: RLTrainer, problems: list[Problem]) -> bool:
    one, other = (probe(trainer, problems) for _ in range(2))
    return [[c.tokens for c in group] for group in one] == [
        [c.tokens for c in group] for group in other
    ]


def republish(trainer: RLTrainer, problems: list[Problem]) -> tuple[Gap, Gap]:
    """Give the engine very different weights: does it write with them at once (trap T24)?"""
    policy, version = trainer.policy, trainer.version
    old = copy.deepcopy(policy)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in policy.parameters():
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            parameter += NUDGE * parameter.float().std(correction=0).to(parameter) * noise
    trainer.engine.load(policy, version + 1)
    groups = [[Graded(0.0, False, "", completion=c) for c in g] for g in probe(trainer, problems)]
    _, parts = packed(groups, [[0.0] * len(group) for group in groups], trainer)
    drawn = [part.old_logprobs_BT for part in parts]
    found = [gap_of(drawn, [read(d, p, trainer) for p in parts], parts) for d in (policy, old)]
    policy.load_state_dict(old.state_dict())
    trainer.engine.load(policy, version)
    return found[0], found[1]
