"""What happens between steps: one small class each, called with every step's report."""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from aha.core.records import Graded, Prompt, StepReport
from aha.eval.suite import EvalReport, completion_row, evaluate, grade_errors, write_completions
from aha.machine.device import PeakMemory
from aha.model.tokenizer import Tokenizer
from aha.model.weights import save_policy
from aha.rollout.engine import Sampling
from aha.store.checkpoint import save_checkpoint
from aha.store.jsonl import append
from aha.store.run_folder import Run
from aha.train.rl import RLTrainer


def step_row(report: StepReport, elapsed_s: float) -> dict:
    """One step as one row of metrics.jsonl: plain numbers, units in the names."""
    flat = [one for group in report.groups for one in group]
    tokens = sum(len(one.completion.tokens) for one in flat)
    seconds = sum(report.seconds.values())
    solved = [sum(one.correct for one in group) for group in report.groups]
    return {
        "step": report.version,
        "elapsed_s": round(elapsed_s, 3),
        "reward": sum(one.reward for one in flat) / len(flat),
        "solve_rate": sum(solved) / len(flat),
        "groups_none_solved": sum(s == 0 for s in solved) / len(solved),
        "groups_all_solved": sum(
            s == len(group) for s, group in zip(solved, report.groups, strict=True)
        )
        / len(solved),
        "mean_tokens": tokens / len(flat),
        "truncated": sum(one.completion.finish == "length" for one in flat) / len(flat),
        "tokens": tokens,
        "grade_errors": grade_errors(flat),
        "tokens_per_s": tokens / max(seconds, 1e-9),
        **report.numbers,
        **{f"{phase}_s": round(value, 4) for phase, value in report.seconds.items()},
    }


class Stopwatch:
    """Seconds of training, those before a resume included."""

    def __init__(self, before: float = 0.0):
        self.before, self.started = before, time.perf_counter()

    def __call__(self) -> float:
        return self.before + time.perf_counter() - self.started


class Record:
    """Writes completions/step_*.jsonl and metrics.jsonl, and hands the row on."""

    def __init__(
        self,
        run: Run,
        elapsed: Stopwatch,
        tell: Callable[[dict], None],
        tokenizer: Tokenizer,
        token_groups: int,
    ):
        self.run, self.elapsed, self.tell = run, elapsed, tell
        self.tokenizer, self.token_groups = tokenizer, token_groups

    def __call__(self, report: StepReport) -> None:
        row = step_row(report, self.elapsed())
        path = self.run.completions / f"step_{report.version:06d}.jsonl"
        path.unlink(missing_ok=True)
        append(path, list(completion_rows(report, self.tokenizer, self.token_groups)))
        # Last: whoever sees the step in the metrics finds its completions.
        append(self.run.metrics, [row])
        self.tell(row)


def completion_rows(report: StepReport, tokenizer: Tokenizer, token_groups: int) -> Iterator[dict]:
    """Every completion of a step with its group and its advantage; the most telling groups token
    by token, which for all of them would be ten times the text."""
    telling = by_interest(report)[:token_groups]
    pairs = zip(report.groups, report.advantages, strict=True)
    for index, (group, credits) in enumerate(pairs):
        for member, (one, credit) in enumerate(zip(group, credits, strict=True)):
            row = {
                "step": report.version,
                "group": index,
                "advantage": credit,
                **completion_row(one),
            }
            if index in telling:
                row |= token_columns(one, tokenizer)
                if report.token_advantages:
                    row["advantages"] = rounded(report.token_advantages[index][member])
            yield row


def token_columns(one: Graded, tokenizer: Tokenizer) -> dict[str, list]:
    """A completion token by token: its text, log-prob and entropy (nats)."""
    completion = one.completion
    columns = {
        "pieces": tokenizer.pieces(completion.tokens),
        "logprobs": rounded(completion.logprobs),
        "entropies": rounded(completion.entropies),
    }
    return {name: column for name, column in columns.items() if column}


def rounded(numbers: Sequence[float]) -> list[float]:
    # Three digits are finer than any colour, and half of the file.
    return [round(number, 3) for number in numbers]


class Evaluate:
    """Looks at held-out validation problems every so many steps, and keeps the completions."""

    def __init__(
        self,
        trainer: RLTrainer,
        prompts: list[Prompt],
        run: Run,
        elapsed: Stopwatch,
        tell: Callable[[dict], None],
    ):
        self.trainer, self.prompts, self.run = trainer, prompts, run
        self.elapsed, self.tell = elapsed, tell

    def __call__(self, report: StepReport) -> None:
        every = self.trainer.cfg.eval.every
        if not every or report.version % every:
            return
        rollout = self.trainer.cfg.rollout
        sampling = Sampling(rollout.max_new_tokens, 1, rollout.temperature, report.version)
        found = evaluate(self.trainer.engine, self.trainer.task, self.prompts, sampling)
        row = {
            "step": report.version,
            "elapsed_s": round(self.elapsed(), 3),
            "split": "validation",
            **found.numbers,
        }
        # The same problems every time: what they got each time is worth a look later.
        write_completions(self.run.completions / f"eval_{report.version:06d}.jsonl", found)
        append(self.run.path / "evals.jsonl", [row])
        self.tell(row)


class Checkpoint:
    """Saves everything that the next step depends on, every so many steps."""

    def __init__(
        self, trainer: RLTrainer, run: Run, elapsed: Stopwatch, base: Path, memory: PeakMemory
    ):
        self.trainer, self.run, self.elapsed, self.base = trainer, run, elapsed, base
        self.memory = memory
        self.saved = -1

    def __call__(self, report: StepReport) -> None:
        every = self.trainer.cfg.checkpoint_every
        if every and report.version % every == 0:
            self.save()

    def save(self) -> None:
        trainer = self.trainer
        if self.saved == trainer.version:
            return
        told = {"elapsed_s": self.elapsed(), "peak_bytes": self.memory.bytes()}
        state = trainer.state_dict() | told
        save_checkpoint(
            self.run.checkpoints,
            trainer.version,
            state,
            lambda folder: save_policy(folder, trainer.policy, trainer.tokenizer, self.base),
            trainer.cfg.keep_last,
        )
        self.saved = trainer.version


class Show:
    """Prints a completion or two every so many steps, for people who want to look."""

    def __init__(self, every: int, tell: Callable[[int, Graded], None]):
        self.every, self.tell = every, tell

    def __call__(self, report: StepReport) -> None:
        if self.every and report.version % self.every == 0:
            self.tell(report.version, most_telling(report))


def by_interest(report: StepReport) -> list[int]:
    """The places of the groups: hardest first of those with a right completion, then the rest."""
    solved = [sum(one.correct for one in group) for group in report.groups]
    return sorted(range(len(solved)), key=lambda place: (not solved[place], solved[place], place))


def most_telling(report: StepReport) -> Graded:
    """The right completion of the hardest group that has one, else the first completion."""
    group = report.groups[by_interest(report)[0]]
    return next((one for one in group if one.correct), group[0])


def time_to_aha(rows: list[dict], before: float, window: int = 3) -> float | None:
    """Seconds of training until the solve rate has doubled and passed one half, or None.

    Over the last `window` steps' fresh training problems, none of which was seen before.
    """
    for index in range(window - 1, len(rows)):
        recent = rows[index - window + 1 : index + 1]
        rate = sum(row["solve_rate"] for row in recent) / window
        if rate > 0.5 and rate >= 2 * before:
            return rows[index]["elapsed_s"]
    return None


def summary_of(
    before: EvalReport | None,
    after: EvalReport | None,
    run: Run,
    rows: list[dict],
    cost: dict,
    trainer: RLTrainer,
) -> dict:
    """summary.json: the run in one object."""
    start = before.numbers["solve_rate"] if before else 0.0
    return {
        "before": before and before.numbers,
        "after": after and after.numbers,
        "steps": trainer.version,
        "seconds": rows[-1]["elapsed_s"] if rows else 0.0,
        "time_to_aha_s": time_to_aha(rows, start),
        **cost,
        "seed": trainer.cfg.seed,
        "commit": run.read("environment.json")["commit"],
    }
