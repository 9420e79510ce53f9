"""Reinforcement learning: one step, one way.

Problem -> Prompt -> Completion -> Graded -> advantage -> Batch -> log-probs -> loss -> gradient.
The step logs nothing and saves nothing: watchers outside receive its report.

Shapes: P prompts, G completions of a prompt, B rows, T tokens.
"""

import time
from functools import partial
from itertools import islice

import torch

from aha.algo.advantages import informative
from aha.algo.aggregation import Totals, token_weights
from aha.algo.algorithms import chosen_of, method_of
from aha.algo.correction import mismatch_of
from aha.algo.entropy import entropy_bonus, held
from aha.algo.filters import counted, mixed_groups, overlong_rewards
from aha.batching.batch import Batch, pack_parts, totals_of
from aha.core.config import RunConfig
from aha.core.records import Graded, Problem, Prompt, StepReport
from aha.core.seeds import seed_for
from aha.machine.dtype import compute_dtype
from aha.machine.micro_batch import Room, trim_heap
from aha.model.optimizer import make_optimizer
from aha.model.policy import Policy
from aha.model.tokenizer import Tokenizer
from aha.rollout.engine import Engine, Sampling
from aha.tasks.protocol import Task
from aha.train.critic import Critic, Judged
from aha.train.curriculum import Curriculum
from aha.train.entropy import FollowingBonus, with_choice
from aha.train.reference import Reference


class Clock:
    """Wall seconds by phase of one step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.last
        self.last = now


def lengths(graded: list[list[Graded]]) -> torch.Tensor:
    return torch.tensor([[float(len(one.completion.tokens)) for one in g] for g in graded])


def cut_off(graded: list[list[Graded]]) -> torch.Tensor:
    """[P, G]: 1 where the limit ended the completion; by its finish, never by its last token."""
    return torch.tensor([[float(one.completion.finish == "length") for one in g] for g in graded])


class RLTrainer:
    """Turns problems into updates of a policy."""

    def __init__(
        self, policy: Policy, tokenizer: Tokenizer, task: Task, engine: Engine, cfg: RunConfig
    ):
        self.policy, self.tokenizer, self.task = policy, tokenizer, task
        self.engine, self.cfg = engine, cfg
        self.chosen, self.method = chosen_of(cfg.algo), method_of(cfg)
        self.dtype = compute_dtype(cfg.optim.dtype, policy.device)
        self.optimizer = make_optimizer(policy.trainable(), cfg.optim, self.dtype)
        policy.recompute = cfg.optim.recompute
        self.room = Room(cfg.optim.micro_batch_tokens, policy.device)
        temperature = cfg.rollout.temperature
        referenced = self.method.reference
        self.reference = Reference(policy, self.dtype, temperature) if referenced else None
        own = (policy, cfg, self.dtype, tokenizer.pad_id, self.room)
        self.critic = Critic(*own) if self.method.critic else None
        self.curriculum = None
        if cfg.algo.curriculum != "off":
            problems = task.problems("train", seed_for(cfg.seed, "pool"))
            self.curriculum = Curriculum(cfg.algo.curriculum, cfg.algo.pool, problems)
        self.control = self.chosen.control and self.chosen.control.facts.role
        self.following = FollowingBonus(cfg.algo) if self.control == "bonus" else None
        self.bonus = cfg.algo.entropy_coef  # of entropy, in the coming update
        # Of each part's tokens, where another program than ours may have drawn them.
        self.log_rhos: list[torch.Tensor] | None = None
        if cfg.rollout.engine != "native" or cfg.algo.correction != "none":
            self.log_rhos = []
        self.version = 0
        self.tokens = 0  # of all completions so far, those of a thrown-away rollout too

    def seed(self, name: str, again: int) -> int:
        """Of the coming step; `again` counts the further rollouts of the same step."""
        return seed_for(self.cfg.seed, name, self.version, *([again] if again else []))

    def problems(self, again: int = 0) -> list[Problem]:
        """The problems of the coming step: a function of the seed and the version alone, so that
        a resumed run, or one on more machines, meets the same ones. With a curriculum also of what
        was solved before, which checkpoints keep."""
        if self.curriculum:
            wanted = self.cfg.rollout.prompts
            return self.curriculum.draw(wanted, self.seed("problems", 0), again)
        seed = self.seed("problems", again)
        return list(islice(self.task.problems("train", seed), self.cfg.rollout.prompts))

    def sampling(self, again: int = 0) -> Sampling:
        rollout = self.cfg.rollout
        return Sampling(
            rollout.max_new_tokens,
            rollout.group_size,
            rollout.temperature,
            self.seed("rollout", again),
        )

    def step(self, problems: list[Problem]) -> StepReport:
        """P problems in, one optimiser update out."""
        clock = Clock()
        graded, asked = self.rollout(problems, clock)
        # Credit: each completion against its own group, or each token against the critic.
        judged = self.critic and self.critic.judge(graded, self.rewards(graded), self.reference)
        advantages_PG = judged.advantages_PG if judged else self.credit(graded)
        clock.lap("judge" if judged else "grade")
        self.engine.release()  # room for what training holds
        numbers = self.learn(graded, advantages_PG, judged) | asked
        numbers["generated"] = float(self.tokens)
        trim_heap()
        clock.lap("train")
        # Publish: the engine must never run behind by accident.
        self.publish()
        clock.lap("publish")
        return StepReport(
            self.version,
            tuple(map(tuple, graded)),
            tuple(map(tuple, advantages_PG.tolist())),
            numbers,
            clock.seconds,
            judged.credits if judged else (),
        )

    def answer(self, problems: list[Problem], again: int, clock: Clock) -> list[list[Graded]]:
        """One rollout, graded."""
        # Ask: words become tokens here, once.
        prompts = [Prompt.of(problem, self.task, self.tokenizer) for problem in problems]
        groups = self.engine.generate(prompts, self.sampling(again))
        self.tokens += sum(len(one.tokens) for group in groups for one in group)
        clock.lap("rollout")
        # Grade: a bad completion is a low reward with a reason, never an exception.
        graded = [[Graded.of(completion, self.task) for completion in group] for group in groups]
        clock.lap("grade")
        return graded

    def rollout(self, problems: list[Problem], clock: Clock) -> tuple[list[list[Graded]], dict]:
        """The graded groups of a step. With `resample`, other problems are asked until as many
        groups teach as were wanted; the price is told in `asked`, rollouts per step."""
        graded, rounds = self.answer(problems, 0, clock), 1
        resample = self.method.resamples
        while resample and rounds < self.cfg.algo.resample_rounds:
            if int(informative(self.rewards(graded)).sum()) >= len(problems):
                break
            graded = graded + self.answer(self.problems(rounds), rounds, clock)
            rounds += 1
        told = {"asked": float(rounds)} if resample else {}
        if self.curriculum:  # only now: within a step the order of the problems stays
            self.curriculum.note(graded)
            told["pool_open"] = float(self.curriculum.open)
        if not resample:
            return graded, told
        chosen = mixed_groups(self.rewards(graded), len(problems))
        return [graded[p] for p in chosen], told

    def rewards(self, graded: list[list[Graded]]) -> torch.Tensor:
        """[P, G] after the rule for completions that were cut off."""
        algo, limit = self.cfg.algo, self.cfg.rollout.max_new_tokens
        rewards_PG = torch.tensor([[float(one.reward) for one in group] for group in graded])
        return overlong_rewards(
            rewards_PG, lengths(graded), cut_off(graded), algo.overlong, limit, algo.overlong_buffer
        )

    def credit(self, graded: list[list[Graded]]) -> torch.Tensor:
        """[P, G] advantages: rewards, less the way from the reference if that is paid there."""
        algo, rewards_PG = self.cfg.algo, self.rewards(graded)
        if algo.kl == "reward":
            measure = partial(self.reference.distances, graded, self.tokenizer.pad_id)
            distances_PG = self.room.fit(measure, clear=lambda: None)
            rewards_PG = rewards_PG - algo.kl_coef * distances_PG
        advantage = self.chosen.advantage
        settings = advantage.settings(algo)
        return advantage(rewards_PG, lengths_PG=lengths(graded), **settings)

    def publish(self) -> None:
        """The next version, in the engine as well, and in the reference when its time has come."""
        self.version += 1
        self.engine.load(self.policy, self.version)
        every = self.cfg.algo.reference_reset
        if self.reference and every and self.version % every == 0:
            self.reference.reset(self.policy)

    def learn(
        self, graded: list[list[Graded]], advantages_PG: torch.Tensor, judged: Judged | None = None
    ) -> dict[str, float]:
        """The updates on one rollout: its groups are dealt into `updates` equal shares."""
        shares, reports = self.cfg.algo.updates, []
        if self.following:
            self.bonus = self.following.next(graded)
        for first in range(shares):
            share = slice(first, None, shares)
            report = {}
            if judged:
                lr = self.rate(self.cfg.critic.lr)
                report = self.critic.update(graded[share], judged[share], lr)
            if not judged or self.version >= self.cfg.critic.warmup:
                credits = judged[share].rows("advantages_PGT") if judged else None
                report |= self.update(graded[share], advantages_PG[share], credits, first)
            reports.append(report)
        numbers = {key: sum(r[key] for r in reports) / shares for key in reports[0]}
        numbers["informative"] = float((advantages_PG != 0).any(1).float().mean())
        return numbers | self.room.numbers

    def update(
        self,
        graded: list[list[Graded]],
        advantages_PG: torch.Tensor,
        credits: list[torch.Tensor] | None = None,
        done: int = 0,
    ) -> dict[str, float]:
        """Forward, backward and one optimiser step, in parts that fit memory.

        `credits` has an advantage for each token of each completion, where there is a critic.
        `done` updates on the same rollout came before this one.
        """
        algo = self.cfg.algo
        counted_PG = counted(advantages_PG, cut_off(graded), algo.overlong, algo.zero_variance)
        flat = [one for group in graded for one in group]
        rows = list(zip(flat, credits or advantages_PG.flatten().tolist(), strict=True))
        rows = [row for row, counts in zip(rows, counted_PG.flatten(), strict=True) if counts]
        # Rows without credit move nothing unless the loss has a term of its own: they count in the
        # totals but are not computed. A step in which no row counts has no totals and no parts.
        every = self.method.computes_every_row(done, self.bonus)
        if self.control in ("keep", "hold"):
            rows = with_choice(rows, algo, done)
        useful = [row for row in rows if every or row[1] != 0.0]
        totals = totals_of(rows, self.cfg.rollout.max_new_tokens) if rows else None
        sums = self.room.fit(partial(self.gradient, useful, totals), self.optimizer.clear)
        lr = self.rate(self.cfg.optim.lr)
        grad_norm = self.optimizer.update(lr)
        loss, gap, surprise, trained, kl = sums.tolist()
        numbers = {
            "loss": loss,
            "grad_norm": grad_norm,
            "mismatch": gap / max(trained, 1.0),
            "entropy": surprise / max(trained, 1.0),
            "lr": lr,
        }
        if self.log_rhos:
            numbers |= mismatch_of(torch.cat(self.log_rhos))
        numbers |= {"kl": kl / max(trained, 1.0)} if algo.kl == "loss" else {}
        return numbers | ({"entropy_bonus": self.bonus} if self.following else {})

    def gradient(self, rows: list, totals: Totals, tokens: int) -> torch.Tensor:
        """The whole step's gradient, in parts of at most `tokens`: the sum is the same for any.
        Returns the sum of what `backward` does."""
        sums = torch.zeros(5)
        if self.log_rhos:
            self.log_rhos.clear()  # of the update before, or of an attempt that did not fit
        how = (self.tokenizer.pad_id, tokens, self.policy.shares_prompts)
        for part in pack_parts(rows, *how):
            sums += self.backward(part.to(self.policy.device), totals)
        return sums

    def read(self, part: Batch) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Log-probs [B, T] by the policy now, and its entropy there if that is paid for."""
        at = (part.tokens_BT, part.start, self.dtype, self.cfg.rollout.temperature)
        if not self.bonus:
            return self.policy.token_logprobs(*at, layout=part.layout), None
        return self.policy.scores(*at, entropy=True, layout=part.layout)

    def token_losses(self, part: Batch, logprobs_BT, entropies_BT) -> tuple[torch.Tensor, float]:
        """[B, T] of all terms, and the sum of the KL."""
        algo, mask_BT, old_BT = self.cfg.algo, part.mask_BT, part.old_logprobs_BT
        loss, correction = self.chosen.loss, self.chosen.correction
        losses_BT = loss(
            logprobs_BT, old_BT, part.advantages_BT, mask_BT=mask_BT, **loss.settings(algo)
        )
        if correction:
            log_rho_BT = logprobs_BT.detach() - old_BT
            losses_BT = losses_BT * correction(log_rho_BT, mask_BT, **correction.settings(algo))
        if part.chosen_BT is not None:
            if self.control == "hold":
                losses_BT = losses_BT + held(logprobs_BT, old_BT, part.chosen_BT)
            else:
                losses_BT = losses_BT * part.chosen_BT
        kl_sum = 0.0
        if algo.kl == "loss":
            ref_BT = self.reference.logprobs(part)
            kl_BT = self.chosen.estimator(logprobs_BT, ref_BT, old_logprobs_BT=old_BT)
            kl_sum = float((kl_BT.detach() * mask_BT).sum())
            losses_BT = losses_BT + algo.kl_coef * kl_BT
        if entropies_BT is not None:
            losses_BT = losses_BT + entropy_bonus(entropies_BT, self.bonus)
        return losses_BT, kl_sum

    def backward(self, part: Batch, totals: Totals) -> torch.Tensor:
        """Add one part's gradient. Returns [loss, sum |logp - old|, sum -old, tokens, sum KL]."""
        algo, mask_BT = self.cfg.algo, part.mask_BT
        logprobs_BT, entropies_BT = self.read(part)
        losses_BT, kl_sum = self.token_losses(part, logprobs_BT, entropies_BT)
        weights_BT = token_weights(mask_BT, algo.aggregation, totals, part.prompts)
        loss = (losses_BT * weights_BT).sum()
        loss.backward()
        gap = ((logprobs_BT.detach() - part.old_logprobs_BT).abs() * mask_BT).sum()
        if self.log_rhos is not None:
            log_rho_BT = logprobs_BT.detach() - part.old_logprobs_BT
            self.log_rhos.append(log_rho_BT[mask_BT > 0].cpu())
        surprise = -(part.old_logprobs_BT * mask_BT).sum()
        kl = loss.new_tensor(kl_sum)
        return torch.stack([loss.detach(), gap, surprise, mask_BT.sum(), kl]).cpu()

    def rate(self, lr: float) -> float:
        """A learning rate at this version: linear warm-up, then linear to `final_lr` of it. With a
        token budget it falls with the tokens that are spent, so that methods with steps of
        different sizes end alike."""
        optim = self.cfg.optim
        warm = min(1.0, (self.version + 1) / (optim.warmup + 1))
        done = min(1.0, self.version / max(1, self.cfg.steps - 1))
        if self.cfg.tokens:
            done = max(done, min(1.0, self.tokens / self.cfg.tokens))
        return lr * warm * (1 - done * (1 - optim.final_lr))

    @property
    def finished(self) -> bool:
        """All steps done, or the tokens spent, whichever comes first."""
        spent = 0 < self.cfg.tokens <= self.tokens
        return spent or self.version >= self.cfg.steps

    def state_dict(self) -> dict:
        """All that the next step depends on besides the weights: every random stream is a
        function of the seed and the version."""
        state = {
            "optimizer": self.optimizer.state_dict(),
            "version": self.version,
            "tokens": self.tokens,
            "micro_batch_tokens": self.room.tokens,
        }
        if self.reference:
            state["reference"] = self.reference.state_dict()
        if self.critic:
            state["critic"] = self.critic.state_dict()
        if self.curriculum:
            state["curriculum"] = self.curriculum.state_dict()
        if self.following:
            state["entropy_coef"] = self.following.coef
        return state

    def load_state_dict(self, state: dict) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        if self.reference:
            self.reference.load_state_dict(state["reference"])
        if self.critic:
            self.critic.load_state_dict(state["critic"])
        if self.curriculum:
            self.curriculum.load_state_dict(state["curriculum"])
        if self.following:
            self.following.coef = state["entropy_coef"]
        # Checkpoints of older versions count no tokens, and knew no smaller micro-batch.
        self.tokens = state.get("tokens", 0)
        self.room.tokens = state.get("micro_batch_tokens", self.room.tokens)
        self.version = state["version"]
        self.engine.load(self.policy, self.version)
