"""Reinforcement learning: one step, one way.

Problem -> Prompt -> Completion -> Graded -> advantage -> Batch -> log-probs -> loss -> gradient.
The step logs nothing and saves nothing: watchers outside receive its report.

Shapes: P prompts, G completions of a prompt, B rows, T tokens.
"""

import time
from itertools import islice

import torch

from aha.algo.advantages import ADVANTAGES
from aha.algo.batch import Batch, pack_parts, totals_of
from aha.algo.losses import LOSSES, Totals, token_weights
from aha.algo.registry import call
from aha.core.config import RunConfig
from aha.core.records import Graded, Problem, Prompt, StepReport
from aha.core.seeds import seed_for
from aha.model.tokenizer import Tokenizer
from aha.model.transformer import Decoder
from aha.rollout.engine import Engine, Sampling
from aha.rollout.native import compute_dtype
from aha.tasks.base import Task


class Clock:
    """Wall seconds by phase of one step."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def lap(self, phase: str) -> None:
        now = time.perf_counter()
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.last
        self.last = now


class RLTrainer:
    """Turns problems into updates of a policy."""

    def __init__(
        self, decoder: Decoder, tokenizer: Tokenizer, task: Task, engine: Engine, cfg: RunConfig
    ):
        self.decoder, self.tokenizer, self.task = decoder, tokenizer, task
        self.engine, self.cfg = engine, cfg
        self.optimizer = torch.optim.AdamW(
            decoder.parameters(),
            lr=cfg.optim.lr,
            betas=(cfg.optim.beta1, cfg.optim.beta2),
            weight_decay=cfg.optim.weight_decay,
            fused=True,
        )
        self.dtype = compute_dtype(cfg.optim.dtype, decoder.device)
        self.version = 0

    def problems(self) -> list[Problem]:
        """The problems of the coming step: a function of the seed and the version alone, so that
        a resumed run, or one on more machines, meets the same ones."""
        seed = seed_for(self.cfg.seed, "problems", self.version)
        return list(islice(self.task.problems("train", seed), self.cfg.rollout.prompts))

    def sampling(self) -> Sampling:
        rollout = self.cfg.rollout
        return Sampling(
            rollout.max_new_tokens,
            rollout.group_size,
            rollout.temperature,
            seed_for(self.cfg.seed, "rollout", self.version),
        )

    def step(self, problems: list[Problem]) -> StepReport:
        """P problems in, one optimiser update out."""
        clock = Clock()
        # Ask: words become tokens here, once.
        prompts = [Prompt.of(problem, self.task, self.tokenizer) for problem in problems]
        groups = self.engine.generate(prompts, self.sampling())
        clock.lap("rollout")
        # Grade: a bad completion is a low reward with a reason, never an exception.
        graded = [[Graded.of(completion, self.task) for completion in group] for group in groups]
        # Credit: each completion against its own group.
        rewards = [[float(one.reward) for one in group] for group in graded]
        rewards_PG = torch.tensor(rewards)
        lengths_PG = torch.tensor(
            [[float(len(one.completion.tokens)) for one in g] for g in graded]
        )
        estimator = ADVANTAGES[self.cfg.algo.advantage]
        advantages_PG = call(estimator, rewards_PG, lengths_PG=lengths_PG)
        clock.lap("grade")
        numbers = self.learn(graded, advantages_PG)
        clock.lap("train")
        # Publish: the engine must never run behind by accident.
        self.version += 1
        self.engine.load(self.decoder, self.version)
        clock.lap("publish")
        return StepReport(
            self.version,
            tuple(map(tuple, graded)),
            tuple(map(tuple, advantages_PG.tolist())),
            numbers,
            clock.seconds,
        )

    def learn(self, graded: list[list[Graded]], advantages_PG: torch.Tensor) -> dict[str, float]:
        """The updates on one rollout: its groups are dealt into `updates` equal shares."""
        shares = self.cfg.algo.updates
        reports = [
            self.update(graded[first::shares], advantages_PG[first::shares])
            for first in range(shares)
        ]
        numbers = {key: sum(r[key] for r in reports) / shares for key in reports[0]}
        return numbers | {"informative": float((advantages_PG != 0).any(1).float().mean())}

    def update(self, graded: list[list[Graded]], advantages_PG: torch.Tensor) -> dict[str, float]:
        """Forward, backward and one optimiser step, in parts that fit memory."""
        flat = [one for group in graded for one in group]
        rows = list(zip(flat, advantages_PG.flatten().tolist(), strict=True))
        totals = totals_of(rows, self.cfg.rollout.max_new_tokens)
        # Rows without credit cannot move anything: they count in the totals but are not computed.
        useful = [row for row in rows if row[1] != 0.0]
        sums = torch.zeros(4)
        for part in pack_parts(useful, self.tokenizer.pad_id, self.cfg.optim.micro_batch_tokens):
            sums += self.backward(part.to(self.decoder.device), totals)
        lr = self.schedule()
        grad_norm = torch.nn.utils.clip_grad_norm_(
            self.decoder.parameters(), self.cfg.optim.grad_clip
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        loss, gap, surprise, trained = sums.tolist()
        return {
            "loss": loss,
            "grad_norm": float(grad_norm),
            "mismatch": gap / max(trained, 1.0),
            "entropy": surprise / max(trained, 1.0),
            "lr": lr,
        }

    def backward(self, part: Batch, totals: Totals) -> torch.Tensor:
        """Add one part's gradient. Returns [loss, sum |logp - old|, sum -old, tokens]."""
        algo, mask_BT = self.cfg.algo, part.mask_BT
        logprobs_BT = self.decoder.token_logprobs(
            part.tokens_BT, part.start, self.dtype, self.cfg.rollout.temperature
        )
        losses_BT = call(
            LOSSES[algo.loss],
            logprobs_BT,
            part.old_logprobs_BT,
            part.advantages_BT,
            mask_BT=mask_BT,
            clip_low=algo.clip_low,
            clip_high=algo.clip_high,
        )
        weights_BT = token_weights(mask_BT, algo.aggregation, totals, part.prompts)
        loss = (losses_BT * weights_BT).sum()
        loss.backward()
        gap = ((logprobs_BT.detach() - part.old_logprobs_BT).abs() * mask_BT).sum()
        surprise = -(part.old_logprobs_BT * mask_BT).sum()
        return torch.stack([loss.detach(), gap, surprise, mask_BT.sum()]).cpu()

    def schedule(self) -> float:
        """Set and return the learning rate: linear warm-up, then linear to `final_lr`."""
        optim = self.cfg.optim
        warm = min(1.0, (self.version + 1) / (optim.warmup + 1))
        done = min(1.0, self.version / max(1, self.cfg.steps - 1))
        lr = optim.lr * warm * (1 - done * (1 - optim.final_lr))
        self.optimizer.param_groups[0]["lr"] = lr
        return lr

    def state_dict(self) -> dict:
        """All that the next step depends on besides the weights: every random stream is a
        function of the seed and the version."""
        return {"optimizer": self.optimizer.state_dict(), "version": self.version}

    def load_state_dict(self, state: dict) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.version = state["version"]
        self.engine.load(self.decoder, self.version)
