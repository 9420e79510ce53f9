"""Reinforcement learning: one step, one way.

Problem -> Prompt -> Completion -> Graded -> advantage -> batch -> loss -> gradient -> version + 1.

The step logs nothing and saves nothing: watchers outside (train.watchers) receive its report. Its
parts are built from the recipe in train.parts. Most optional features are chosen there: one that
is not chosen becomes a part that does nothing.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from aha.algo.algorithms import method_of
from aha.batching.batch import num_completion_tokens, totals_of
from aha.core.config import RunConfig
from aha.core.errors import RunStopped
from aha.core.records import Problem, StepReport
from aha.dist.world import World
from aha.machine.device import compute_dtype
from aha.machine.micro_batch import MicroBatchSize
from aha.model.optimizer import make_optimizer
from aha.model.policy import Policy
from aha.model.tokenizer import Tokenizer
from aha.rollout.engine import Engine
from aha.tasks.protocol import Task
from aha.training.advantage_estimators import Estimate
from aha.training.finite_checks import check_advantages, check_numbers, check_rollout
from aha.training.parts import make_estimator, make_objective, make_reference, make_source
from aha.training.rollouts import PhaseClock, Rollout, StepSeeds
from aha.training.step_attempt import StepAttempt


class RLTrainer:
    """Turns problems into updates of a policy.

    Where `world` has several ranks, each has a trainer of its own, and all make the same calls.
    """

    def __init__(
        self,
        policy: Policy,
        tokenizer: Tokenizer,
        task: Task,
        engine: Engine,
        cfg: RunConfig,
        world: World | None = None,
        device: torch.device | None = None,
    ):
        self.world = world = world or World()
        # The policy's, unless it moves there as shards.
        self.device = device = device or policy.device
        self.policy, self.cfg, self.method = policy, cfg, method_of(cfg)
        policy.recompute = cfg.optim.recompute
        self.dtype = compute_dtype(cfg.optim.dtype, device)
        self.optimizer = make_optimizer(policy.trainable(), cfg.optim, self.dtype)
        self.micro_batch = MicroBatchSize(cfg.optim.micro_batch_tokens, device)
        self.source = make_source(cfg, task)
        self.rollout = Rollout(tokenizer, task, engine, self.source, cfg.rollout, cfg.algo, world)
        self.reference = make_reference(cfg, policy, self.dtype, world)
        shared = (cfg, policy, self.dtype, self.reference)
        self.advantages = make_estimator(*shared, tokenizer.pad_id, self.micro_batch, world)
        self.objective = make_objective(*shared, world)
        self.optimizers = [self.optimizer, *self.advantages.optimizers]
        self.version = 0
        self.tokens = 0  # of all completions so far, discarded ones included
        self.published_updates = 0  # of `num_updates`, those that the version contains
        self.mesh: Any = None  # how the models lie in the ranks, where they are in shards
        self.failed_step: StepAttempt | None = None  # where the last step ended in an exception

    @property
    def tokenizer(self) -> Tokenizer:
        return self.rollout.tokenizer

    @property
    def task(self) -> Task:
        return self.rollout.task

    @property
    def engine(self) -> Engine:
        return self.rollout.engine

    @property
    def seeds(self) -> StepSeeds:
        """Seeds of the next step."""
        return StepSeeds(self.cfg.seed, self.version)

    def problems(self) -> list[Problem]:
        """The problems of the next step."""
        return self.source.problems(self.seeds)

    @property
    def num_updates(self) -> int:
        """Changes of the weights by any optimiser."""
        return sum(optimizer.num_updates for optimizer in self.optimizers)

    @property
    def mid_step(self) -> bool:
        """Between a step's first change of weights and its publication: such weights are of no
        version."""
        return self.num_updates != self.published_updates

    def step(self, problems: list[Problem]) -> StepReport:
        """One training step: generate, grade, update. Returns the report.

        Raises RunStopped for a number that is not finite, and for too many grades that failed,
        before it changes a weight.
        """
        clock = PhaseClock()
        with self.attempt(clock) as attempt:
            # Generate and grade completions.
            attempt.collected = collected = self.rollout.collect(problems, self.seeds, clock)
            check_rollout(collected, self.cfg.task.max_grade_errors)
            self.tokens += collected.tokens
            # Compute advantages: against the group, or against the critic's predictions.
            estimate = self.advantages.estimate(collected.groups, collected.scores)
            attempt.estimate = estimate
            check_advantages(estimate)
            clock.lap(self.advantages.phase)
            # Update. The engine gives up its copy of the weights first: training needs the memory.
            self.engine.release()
            self.objective.begin_step([graded for group in collected.groups for graded in group])
            numbers = self.learn(estimate) | collected.numbers | {"generated": float(self.tokens)}
            numbers = self.reference.numbers() | numbers
            clock.lap("train")
            # Publish: the engine must never generate with old weights.
            self.version += 1
            self.publish()
            self.reference.follow(self.policy, self.version)
            self.published_updates = self.num_updates
            clock.lap("publish")
            return attempt.report(numbers)

    @contextmanager
    def attempt(self, clock: PhaseClock) -> Iterator[StepAttempt]:
        """A step that fails before it changes a weight leaves the trainer at its last whole step.

        `failed_step` then has what the step had computed.
        """
        attempt = StepAttempt(self.version + 1, clock)
        names = ("curriculum", "objective", "micro_batch")
        tokens, parts = self.tokens, [self.parts[name] for name in names]
        states = [copy.deepcopy(part.state_dict()) for part in parts]
        try:
            yield attempt
        except BaseException as error:  # an interrupt too
            self.failed_step = attempt
            if isinstance(error, RunStopped):
                error.step = attempt.version
            for optimizer in self.optimizers:
                optimizer.clear()
            if not self.mid_step:
                self.tokens = tokens
                for part, state in zip(parts, states, strict=True):
                    part.load_state_dict(state)
            raise

    def publish(self) -> None:
        """Hand the present version to the engine."""
        with self.world.joint(f"the weights of version {self.version}"):
            self.engine.load(self.policy, self.version)

    def learn(self, estimate: Estimate) -> dict[str, float]:
        """All updates on one rollout: its groups are split into `algo.updates` equal shares."""
        reports = []
        with self.world.joint(f"the updates of step {self.version + 1}"):
            for index in range(self.cfg.algo.updates):
                share = estimate.share(index, self.cfg.algo.updates)
                report = self.advantages.learn(share, self.learning_rate)
                # Before that version only the critic learns.
                if self.version >= self.advantages.first_version:
                    report |= self.update(share, index)
                reports.append(report)
        informative = {"informative": estimate.informative_share()}
        numbers = means_of(reports) | engine_gap_of(reports)
        check_numbers(numbers)
        return numbers | informative | self.micro_batch.numbers()

    def update(self, share: Estimate, index: int = 0) -> dict[str, float]:
        """Forward, backward and one optimiser step, in micro-batches that fit memory.

        `index` updates on the same rollout came before this one.
        """
        rows = self.objective.begin_update(share.counted_rows(), index)
        totals = totals_of(rows, self.rollout.limit) if rows else None
        # Rows with advantage 0 stay in the denominators. They are computed only if the method gives
        # them a gradient (for example with a KL in the loss).
        every = self.method.computes_every_row(index, self.objective.entropy_coef)
        computed = [row for row in rows if every or row.advantages_T.any()]
        own = self.world.deal(computed, num_completion_tokens)
        gradient = partial(self.objective.accumulate_gradient, own, totals, self.tokenizer.pad_id)
        sums = self.micro_batch.fit(gradient, self.optimizer.clear)
        sums = self.optimizer.add_up(
            self.world, sums, f"update {index + 1} of step {self.version + 1}"
        )
        numbers = self.objective.numbers(sums)
        check_numbers(numbers)
        rate = self.learning_rate(self.cfg.optim.lr)
        norm = self.optimizer.update(rate)
        return numbers | {"grad_norm": norm, "lr": rate}

    def learning_rate(self, peak: float) -> float:
        """The rate of the next step: linear warm-up times linear decay to `optim.final_lr` of the
        peak. With a token budget it decays with the tokens spent, so that methods whose steps
        differ in size end at the same rate."""
        optim, cfg = self.cfg.optim, self.cfg
        warm = min(1.0, (self.version + 1) / (optim.warmup + 1))
        done = min(1.0, self.version / max(1, cfg.steps - 1))
        done = max(done, min(1.0, self.tokens / (cfg.tokens or math.inf)))
        return peak * warm * (1 - done * (1 - optim.final_lr))

    @property
    def finished(self) -> bool:
        """All steps done, or the tokens spent, whichever comes first."""
        return self.version >= self.cfg.steps or self.tokens >= (self.cfg.tokens or math.inf)

    @property
    def parts(self) -> dict[str, Any]:
        """The parts with a state, under the names that checkpoint files use: "critic" is the
        advantage estimator, "curriculum" the source of problems."""
        return {
            "optimizer": self.optimizer,
            "reference": self.reference,
            "critic": self.advantages,
            "curriculum": self.source,
            "objective": self.objective,
            "micro_batch": self.micro_batch,
        }

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on besides the weights: every random stream is a function
        of the seed and the version."""
        states = {name: part.state_dict() for name, part in self.parts.items()}
        kept = {name: state for name, state in states.items() if state}
        return kept | {"version": self.version, "tokens": self.tokens}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """From a checkpoint of this version of the program or an older one."""
        state = upgraded(state)
        for name, part in self.parts.items():
            part.load_state_dict(state.get(name, {}))
        self.load_progress(state)
        self.publish()

    def load_progress(self, state: Mapping[str, Any]) -> None:
        """How far a checkpoint's run is, and no more."""
        self.version, self.tokens = state["version"], state.get("tokens", 0)


def means_of(reports: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each number over the updates that report it: some updates report fewer, as one
    without a computed row has no log-ratios."""
    keys = dict.fromkeys(key for report in reports for key in report)
    columns = {key: [report[key] for report in reports if key in report] for key in keys}
    return {key: sum(column) / len(column) for key, column in columns.items()}


def engine_gap_of(reports: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """How far the engine's log-probs are from the trainer's, of the first update that computed any:
    before it no weight has moved. Later updates would add how far the policy has moved since."""
    first = next((report for report in reports if "mismatch" in report), {})
    return {key: value for key, value in first.items() if key.startswith("mismatch")}


def upgraded(state: dict[str, Any]) -> dict[str, Any]:
    """A trainer's state under today's names, from checkpoints of any age."""
    new = {"tokens": 0} | state
    new.setdefault("micro_batch", {"tokens": state.get("micro_batch_tokens")})
    new.setdefault("objective", {"entropy": {"coef": state.get("entropy_coef")}})
    return new
