"""What happens between steps: one small class each, called with the report of every step."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import pstdev
from typing import Any

from aha.core.errors import RunStopped
from aha.core.records import Graded, Prompt, StepReport
from aha.eval.behavior_numbers import ways_of
from aha.eval.grade_errors import GradeErrors
from aha.eval.suite import EvalReport, completion_row, write_completions
from aha.machine.device import PeakMemory
from aha.model.tokenizer import Tokenizer
from aha.model.weights import gather_weights, save_policy
from aha.rollout.engine import Sampling
from aha.store.checkpoint import checkpoints, prune, save_checkpoint, step_of
from aha.store.durable import disk_errors
from aha.store.run_folder import Run, append, read_rows
from aha.training.joint_work import ORDERS, compare_together, evaluate_together
from aha.training.rl import RLTrainer
from aha.training.sharded_trainer import SHARDS, light_state, write_own_shards


def step_row(report: StepReport, elapsed_s: float) -> dict[str, Any]:
    """One step as one row of metrics.jsonl: plain numbers, units in the names."""
    flat = [graded for group in report.groups for graded in group]
    tokens = sum(len(graded.completion.tokens) for graded in flat)
    seconds = sum(report.seconds.values())
    solved = [sum(graded.correct for graded in group) for group in report.groups]
    return {
        "step": report.version,
        "elapsed_s": round(elapsed_s, 3),
        "reward": sum(graded.reward for graded in flat) / len(flat),
        "solve_rate": sum(solved) / len(flat),
        "groups_none_solved": sum(s == 0 for s in solved) / len(solved),
        "groups_all_solved": sum(
            s == len(group) for s, group in zip(solved, report.groups, strict=True)
        )
        / len(solved),
        "groups": len(report.groups),
        "mean_tokens": tokens / len(flat),
        "truncated": sum(graded.completion.finish == "length" for graded in flat) / len(flat),
        "tokens": tokens,
        "grade_errors": GradeErrors.of(flat).failed,
        "tokens_per_s": tokens / max(seconds, 1e-9),
        **mean_parts(flat),
        **spread_of(report.groups),
        **ways_of(flat),
        **report.numbers,
        **{f"{phase}_s": round(value, 4) for phase, value in report.seconds.items()},
    }


def mean_parts(flat: Sequence[Graded]) -> dict[str, float]:
    """The mean of each part of the reward over the completions that have it; a failed grade has
    none."""
    columns: dict[str, list[float]] = {}
    for graded in flat:
        for name, part in graded.reward_parts().items():
            columns.setdefault(name, []).append(part)
    return {name: sum(column) / len(column) for name, column in columns.items()}


def spread_of(groups: Sequence[Sequence[Graded]]) -> dict[str, float]:
    """`reward_std`: the deviation of the rewards within a group, mean over the groups;
    `groups_flat`: the share of groups without one. Nothing where a group has one completion,
    because one has no deviation."""
    if any(len(group) < 2 for group in groups):
        return {}
    deviations = [pstdev(graded.reward for graded in group) for group in groups]
    count = len(deviations)
    return {"reward_std": sum(deviations) / count, "groups_flat": deviations.count(0.0) / count}


class Stopwatch:
    """Seconds of training, with those before a resume."""

    def __init__(self, before: float = 0.0):
        self.before, self.started = before, time.perf_counter()

    def __call__(self) -> float:
        return self.before + time.perf_counter() - self.started


class Record:
    """Writes completions/step_*.jsonl and metrics.jsonl, and calls `on_row` with the row.

    `last_step` is the last step whose row is written; `memory` is measured for each row.
    """

    def __init__(
        self,
        run: Run,
        elapsed: Stopwatch,
        on_row: Callable[[dict[str, Any]], None],
        tokenizer: Tokenizer,
        token_groups: int,
        last_step: int = 0,
        memory: PeakMemory | None = None,
    ):
        self.run, self.elapsed, self.on_row = run, elapsed, on_row
        self.tokenizer, self.token_groups = tokenizer, token_groups
        self.last_step, self.memory = last_step, memory

    def __call__(self, report: StepReport) -> None:
        row = step_row(report, self.elapsed())
        row |= self.memory.numbers() if self.memory else {}
        path = self.run.completions / f"step_{report.version:06d}.jsonl"
        with disk_errors(f"write {path}"):
            path.unlink(missing_ok=True)
        append(path, list(completion_rows(report, self.tokenizer, self.token_groups)))
        # Last: a reader that sees the step in the metrics can read its completions.
        append(self.run.metrics, [row])
        self.last_step = report.version
        self.on_row(row)


def completion_rows(
    report: StepReport, tokenizer: Tokenizer, token_groups: int
) -> Iterator[dict[str, Any]]:
    """Every completion of a step with its group and its advantage. The `token_groups` most
    interesting groups are kept token by token; all of them would be ten times the text."""
    by_token = by_interest(report)[:token_groups]
    pairs = zip(report.groups, report.advantages, strict=True)
    for index, (group, advantages) in enumerate(pairs):
        for member, (graded, advantage) in enumerate(zip(group, advantages, strict=True)):
            row: dict[str, Any] = {
                "step": report.version,
                "group": index,
                "advantage": advantage,
            }
            row |= completion_row(graded)
            if index in by_token:
                row |= token_columns(graded, tokenizer)
                if report.token_advantages:
                    row["advantages"] = rounded(report.token_advantages[index][member])
            yield row


def token_columns(graded: Graded, tokenizer: Tokenizer) -> dict[str, list[Any]]:
    """A completion token by token: its text, log-prob and entropy (nats)."""
    completion = graded.completion
    columns: dict[str, list[Any]] = {
        "pieces": tokenizer.pieces(completion.tokens),
        "logprobs": rounded(completion.logprobs),
        "entropies": rounded(completion.entropies),
    }
    return {name: column for name, column in columns.items() if column}


def rounded(numbers: Sequence[float]) -> list[float]:
    # Three digits are finer than any colour, and half of the file.
    return [round(number, 3) for number in numbers]


class Evaluate:
    """Evaluates held-out validation problems every `eval.every` steps; keeps the completions."""

    def __init__(
        self,
        trainer: RLTrainer,
        prompts: list[Prompt],
        run: Run,
        elapsed: Stopwatch,
        on_row: Callable[[dict[str, Any]], None],
    ):
        self.trainer, self.prompts, self.run = trainer, prompts, run
        self.elapsed, self.on_row = elapsed, on_row

    def __call__(self, report: StepReport) -> None:
        if self.is_due(report.version):
            self.evaluate(report.version)

    def is_due(self, step: int) -> bool:
        every = self.trainer.cfg.eval.every
        return bool(every) and step % every == 0

    def make_up(self) -> None:
        """Evaluate the present version where that is due and has no row: its process died between
        the checkpoint and the row."""
        step = self.trainer.version
        rows = read_rows(self.run.path / "evals.jsonl")
        if step and self.is_due(step) and all(row.get("step") != step for row in rows):
            self.evaluate(step)

    def evaluate(self, step: int) -> None:
        """Evaluate the present version, which is that of `step`, and write its row last."""
        rollout = self.trainer.cfg.rollout
        sampling = Sampling(rollout.max_new_tokens, 1, rollout.temperature, step)
        try:
            result = evaluate_together(self.trainer, self.prompts, sampling)
        except RunStopped as fault:
            fault.step = step
            raise
        row = {
            "step": step,
            "elapsed_s": round(self.elapsed(), 3),
            "split": "validation",
            **result.numbers,
        }
        # The same problems every time, so that the dashboard can show one problem over the run.
        path = self.run.completions / f"eval_{step:06d}.jsonl"
        with disk_errors(f"write {path}"):
            write_completions(path, result)
        append(self.run.path / "evals.jsonl", [row])
        self.on_row(row)


class Checkpoint:
    """Saves all that the next step depends on, every `checkpoint_every` steps.

    `base` names the base of an adapter; None where a base has gone that nothing needs. `saved` is
    the last step that has a checkpoint, -1 for none.
    """

    def __init__(
        self,
        trainer: RLTrainer,
        run: Run,
        elapsed: Stopwatch,
        base: Path | None,
        memory: PeakMemory,
        saved: int = -1,
    ):
        self.trainer, self.run, self.elapsed, self.base = trainer, run, elapsed, base
        self.memory, self.saved = memory, saved
        self.failed = -1  # the last step that could not be saved

    def __call__(self, report: StepReport) -> None:
        every = self.trainer.cfg.checkpoint_every
        if every and report.version % every == 0:
            self.compare_and_save()

    def compare_and_save(self) -> None:
        """`save`, after all ranks have compared their weights."""
        step = self.trainer.version
        if self.saved != step:
            try:
                compare_together(self.trainer, f"the checkpoint of step {step}")
            except RunStopped:  # nobody knows which rank is right
                self.failed = step
                raise
        self.save()

    def save(self, keep_older: bool = False) -> None:
        """Save the present version, once; `keep_older` removes no older checkpoint."""
        trainer = self.trainer
        if self.saved == trainer.version:
            # A process that died in the end may have saved this version and removed nothing.
            if not keep_older:
                prune(self.run.checkpoints, self.newest, self.kept_steps())
            return
        clocks = {"elapsed_s": self.elapsed(), "peak_bytes": self.memory.bytes()}
        self.failed = trainer.version
        save_checkpoint(
            self.run.checkpoints,
            trainer.version,
            light_state(trainer) | clocks,
            partial(save_whole, trainer, self.base),
            0 if keep_older else self.newest,
            self.kept_steps(),
        )
        self.saved, self.failed = trainer.version, -1

    @property
    def newest(self) -> int:
        """How many of the newest checkpoints are kept, whatever their steps."""
        return self.trainer.cfg.keep_last[0]

    def kept_steps(self) -> set[int]:
        """The steps whose checkpoints are kept besides the newest: that of the best validation, and
        every Mth where `keep_last` is [N, M]."""
        saved = map(step_of, checkpoints(self.run.checkpoints))
        regular = {
            step for every in self.trainer.cfg.keep_last[1:] for step in saved if not step % every
        }
        return regular | best_checkpoint(self.run).keys()


def best_checkpoint(run: Run) -> dict[int, float]:
    """{step: solve rate} of the checkpoint whose validation was the best, the first of equals;
    empty where no step has both."""
    saved = {step_of(path) for path in checkpoints(run.checkpoints)}
    rates = {
        row["step"]: row["solve_rate"]
        for row in read_rows(run.path / "evals.jsonl")
        if row.get("step") in saved and isinstance(row.get("solve_rate"), int | float)
    }
    best = max(rates, key=lambda step: (rates[step], -step), default=None)
    return {} if best is None else {best: rates[best]}


def save_trained(trainer: RLTrainer, base: Path | None, folder: Path) -> None:
    """What training has made: a model, or with LoRA the adapter, which names its base."""
    assert base is not None or trainer.policy.adapter is None, "an adapter without its base"
    world = trainer.world
    if world.in_shards and trainer.policy.adapter is None:
        world.broadcast(give_weights, 0, ORDERS)
    with world.joint(f"the weights of {folder}", watched=False):
        save_policy(folder, trainer.policy, trainer.tokenizer, base or folder)


def give_weights(trainer: RLTrainer) -> None:
    """What the other ranks do while rank 0 saves a policy in shards."""
    with trainer.world.joint("the weights for a file", watched=False):
        gather_weights(trainer.policy)


def save_whole(trainer: RLTrainer, base: Path | None, folder: Path) -> None:
    """What training has made, and beside it what else is in shards: each rank writes its own."""
    save_trained(trainer, base, folder)
    if trainer.world.in_shards:
        write = partial(write_own_shards, folder.absolute() / SHARDS)
        trainer.world.broadcast(write, 0, ORDERS)
        write(trainer)


class Show:
    """Hands the most interesting group of a step with its advantages to `on_group` every `every`
    steps, for people to read."""

    def __init__(
        self, every: int, on_group: Callable[[int, Sequence[Graded], Sequence[float]], None]
    ):
        self.every, self.on_group = every, on_group

    def __call__(self, report: StepReport) -> None:
        if self.every and report.version % self.every == 0:
            index = by_interest(report)[0]
            self.on_group(report.version, report.groups[index], report.advantages[index])


def by_interest(report: StepReport) -> list[int]:
    """Indices of the groups: those with a right completion first, the hardest of them first."""
    solved = [sum(graded.correct for graded in group) for group in report.groups]
    return sorted(range(len(solved)), key=lambda index: (not solved[index], solved[index], index))


def time_to_aha(rows: Sequence[Mapping[str, Any]], before: float, window: int = 3) -> float | None:
    """Seconds of training until the solve rate has doubled and passed one half, or None.

    Over the last `window` steps' training problems: new ones, unless a curriculum draws some again.
    """
    for index in range(window - 1, len(rows)):
        recent = rows[index - window + 1 : index + 1]
        rate = sum(row["solve_rate"] for row in recent) / window
        if rate > 0.5 and rate >= 2 * before:
            return float(rows[index]["elapsed_s"])
    return None


def summary_of(
    before: EvalReport | None,
    after: EvalReport | None,
    run: Run,
    rows: Sequence[Mapping[str, Any]],
    cost: Mapping[str, float | None],
    trainer: RLTrainer,
) -> dict[str, Any]:
    """summary.json: the run in one object."""
    environment = run.read_or_none("environment.json") or {}  # {}: damaged since
    return {
        "before": before and before.numbers,
        "after": after and after.numbers,
        "steps": trainer.version,
        "seconds": rows[-1]["elapsed_s"] if rows else 0.0,
        "time_to_aha_s": before and time_to_aha(rows, before.numbers["solve_rate"]),
        **cost,
        "seed": trainer.cfg.seed,
        "commit": environment.get("commit"),
    }
