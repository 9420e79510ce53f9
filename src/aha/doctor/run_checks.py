"""Checks of a run from its records: did it learn, and if not, why? Needs no torch and no model.

Bounds are ours unless a source is named. They were chosen so that runs that learned (results/demo)
pass, and a run whose policy drifted (docs/log.md, laptop-3to4) does not.
"""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from aha.core.findings import Checklist, Finding, fail, ok, warn
from aha.doctor.grade_checks import FAULTY, failed_grades, grading
from aha.doctor.run_files import FEW, RunRecords, mean, median

checks = Checklist()

# Pairs are the bounds of a warning and of a failure.
FLAT = 0.05  # with fewer informative groups nothing is learned ...
RARE = 0.2  # ... and with fewer than this share most of the work is wasted
TRUNCATED = (0.2, 0.8)  # share of completions
COLLAPSED = 0.2  # share of the entropy at the start
EXPLODED = (10.0, 100.0)  # gradient norm against that of the start
GAP = (0.05, 0.2)  # nats a token between engine and trainer
LONGER = 2.0  # tokens of a completion, and tokens for a right answer, against the start
ARITHMETIC = (0.85, 0.7)  # share of lines that are right
LEGALITY = (0.7, 0.5)  # share of lines whose numbers are on the table
VERDICTS = (0.95, 0.8)  # share of verdicts that are true
REPEATED = 0.4  # share of attempts that were made before
SOLVED = 0.9
TINY_DISTANCE = 1e-4  # of the weights' norm; in the demo it is 0.026


# -- the run as a whole ------------------------------------------------------------------------


@checks
def steps(run: RunRecords) -> Finding:
    """There is one row of metrics for each step, and there are enough steps."""
    planned, recorded = run.config.get("steps", 0), [row.get("step", 0) for row in run.metrics]
    if not recorded:
        return fail("no step is recorded", "it stopped before its first step; `aha doctor RECIPE`")
    if any(b - a != 1 for a, b in pairwise(recorded)):
        return warn("steps are missing in metrics.jsonl", "do not edit it while the run goes on")
    if not run.finished:
        fix = "if nothing runs: aha train --resume RUN"
        return ok(f"{recorded[-1]} of {planned} steps so far", fix)
    if len(recorded) < 2 * FEW:
        return warn(f"only {len(recorded)} steps", "too few to say why it did or did not learn")
    return ok(f"all {recorded[-1]} steps are recorded")


@checks
def learned(run: RunRecords) -> Finding | None:
    """The solve rate before and after; a gain only where the intervals do not overlap."""
    start, end = run.solve_rates
    if math.isnan(end):
        return None
    message = f"solved {start:.3f} -> {end:.3f}"
    if run.before and run.after:
        if run.after["interval"][0] > run.before["interval"][1]:
            return ok(f"{message} of the same held-out problems: it learned")
        why = "it got worse" if end < start - 0.02 else "the intervals overlap: no gain is shown"
        return fail(f"{message}; {why}", "the other findings say why")
    if len(run.metrics) < 2 * FEW or end > start + 0.02:
        return ok(f"{message} in training")
    return warn(f"{message} in training: no gain so far", "the other findings may say why")


# -- the signal --------------------------------------------------------------------------------


def has_groups(run: RunRecords) -> bool:
    """Whether a prompt has several completions."""
    return bool(run.setting("rollout", "group_size", 16) > 1)


checks(grading)


@checks
def none_solved(run: RunRecords) -> Finding | None:
    """Groups in which no completion is right have no advantage."""
    share = run.end("groups_none_solved")
    if math.isnan(share) or failed_grades(run.metrics) > FAULTY:
        return None  # what got no grade is not known to be unsolved: see `grading`
    if share > 1 - FLAT and run.end("solve_rate") < 0.01:
        return fail(
            f"in {share:.0%} of the groups nothing was solved",
            "easier problems (task.numbers), a better base, or more tries (rollout.group_size)",
        )
    return ok(f"{share:.0%} of the groups without a right answer")


@checks
def all_solved(run: RunRecords) -> Finding | None:
    """Groups in which all completions are right have none either; at the end they mean success."""
    start, end = run.start("groups_all_solved"), run.end("groups_all_solved")
    if math.isnan(end):
        return None
    fix = "harder problems: more task.numbers"
    if start > 1 - FLAT:
        return fail(f"{start:.0%} of the groups were all solved from the start", fix)
    if end > SOLVED:
        return ok(f"{end:.0%} of the groups all solved at the end: now too easy", fix)
    return ok(f"{end:.0%} of the groups all solved")


@checks
def informative(run: RunRecords) -> Finding | None:
    """The share of groups whose completions differ in reward: only these have an advantage."""
    share = run.end("informative")
    if math.isnan(share) or not has_groups(run):
        return None
    if share > RARE or run.end("groups_all_solved") > SOLVED:
        return ok(f"{share:.0%} of the groups are informative")
    fix = "problems nearer to half solved, a larger rollout.group_size, or zero_variance resample"
    return (fail if share < FLAT else warn)(f"only {share:.0%} of the groups are informative", fix)


@checks
def resampling(run: RunRecords) -> Finding | None:
    """`resample` gets enough informative groups; otherwise most rollouts are discarded."""
    # The column counts the rollouts of a step.
    rounds, limit = run.column("asked"), run.setting("algo", "resample_rounds", 3)
    if not rounds:
        return None
    exhausted = mean([float(r >= limit) for r in rounds])
    if limit > 1 and exhausted > 0.5:
        return warn(
            f"in {exhausted:.0%} of the steps all {limit} rollouts were not enough",
            "problems nearer to half solved, or a larger rollout.group_size",
        )
    return ok(f"{mean(rounds):.1f} rollouts a step")


@checks
def format_only(run: RunRecords) -> Finding | None:
    """A reward that rises while the solve rate does not is given for the format."""
    start, end = run.start("reward"), run.end("reward")
    gain = run.end("solve_rate") - run.start("solve_rate")
    if math.isnan(end):
        return None
    if end - start > 0.03 and gain < 0.2 * (end - start):
        return fail(
            f"reward {start:.2f} -> {end:.2f}, but {gain:+.2f} solved",
            "reward right answers alone, or the format far less; `aha doctor RECIPE` audits it",
        )
    return ok(f"reward {start:.2f} -> {end:.2f}, solved {gain:+.2f}")


# -- the completions ---------------------------------------------------------------------------


@checks
def entropy(run: RunRecords) -> Finding | None:
    """A policy whose entropy is gone explores nothing."""
    start, end = run.start("entropy"), run.end("entropy")
    if not start > 0 or math.isnan(end):
        return None
    message = f"entropy {start:.3f} -> {end:.3f} nats a token"
    if end < COLLAPSED * start and run.end("solve_rate") < SOLVED:
        return fail(
            f"{message}: collapsed",
            "a lower optim.lr, algo.clip_high 0.28 with ppo_clip, or a small algo.entropy_coef",
        )
    if end > 3 * start:
        return warn(f"{message}: it grows", "a lower optim.lr, or a KL (algo.kl loss)")
    return ok(message)


@checks
def truncated(run: RunRecords) -> Finding | None:
    """Truncated completions have no answer and are graded as wrong."""
    share, limit = run.end("truncated"), run.setting("rollout", "max_new_tokens", 0)
    if math.isnan(share):
        return None
    message = f"{share:.0%} of the completions truncated at {limit} tokens"
    if share < TRUNCATED[0]:
        return ok(message)
    if run.start("truncated") > TRUNCATED[1]:
        fix = "the base never stops: see its stop token (`aha doctor RECIPE`) and template"
    else:
        fix = "a higher rollout.max_new_tokens, or a lower optim.lr if the text makes no sense"
    return (fail if share > TRUNCATED[1] else warn)(message, fix)


@checks
def length(run: RunRecords) -> Finding | None:
    """Longer completions are good only if they solve more: measured in tokens for a right
    answer."""
    start, end = run.start("mean_tokens"), run.end("mean_tokens")
    rates = run.start("solve_rate"), run.end("solve_rate")
    if math.isnan(end) or not min(rates) > 0:
        return None
    old, new = start / rates[0], end / rates[1]  # tokens for a right answer
    message = f"{start:.0f} -> {end:.0f} tokens, {old:.0f} -> {new:.0f} for a right answer"
    if end > LONGER * start and new > LONGER * old:
        return warn(
            f"{message}: completions grow and solve no more",
            "a lower optim.lr; algo.aggregation sequence_sum",
        )
    return ok(message)


def check_share(
    run: RunRecords, key: str, bounds: tuple[float, float], what: str, fix: str
) -> Finding | None:
    """A share of the completions' lines must not fall by more than 5 points."""
    shares = run.first_and_last(key)
    if shares is None:
        return None
    first, last = shares
    message = f"{first:.0%} -> {last:.0%} of the {what}"
    if last >= bounds[0] or last > first - 0.05:
        return ok(message)
    steps = [e["step"] for e in run.evals if e.get("behaviors", {}).get(key, 1) < bounds[0]]
    since = f", first seen at step {steps[0]}" if steps else ""
    return (fail if last < bounds[1] else warn)(f"{message}: it falls{since}", fix)


@checks
def arithmetic(run: RunRecords) -> Finding | None:
    """The arithmetic stays right. The reward is for the answer alone and does not enforce this."""
    fix = "a lower optim.lr or an earlier checkpoint; a base that calculates better"
    return check_share(run, "line_accuracy", ARITHMETIC, "lines are right arithmetic", fix)


@checks
def illegal(run: RunRecords) -> Finding | None:
    """Lines use numbers that are on the table; otherwise the search has lost track of them."""
    fix = "a lower optim.lr or an earlier checkpoint; shorter problems first"
    return check_share(run, "line_legality", LEGALITY, "lines use numbers on the table", fix)


@checks
def verdicts(run: RunRecords) -> Finding | None:
    """Verdicts are true. A wrong "yes" ends the search too early."""
    fix = "a lower optim.lr; a base whose verdicts are true"
    return check_share(run, "verdict_truth", VERDICTS, "verdicts are true", fix)


@checks
def repeats(run: RunRecords) -> Finding | None:
    """A search that repeats itself explores nothing."""
    shares = run.first_and_last("repeat_share")
    if shares is None:
        return None
    first, last = shares
    message = f"{first:.0%} -> {last:.0%} of the attempts were made before"
    if last > REPEATED and last > first:
        return warn(f"{message}: it repeats itself", "a lower optim.lr, a higher temperature")
    return ok(message)


# -- the numbers of the training ---------------------------------------------------------------


@checks
def finite(run: RunRecords) -> Finding | None:
    """All metrics are finite. After a NaN or an infinity nothing is learned."""
    bad = [
        (row.get("step"), key)
        for row in run.metrics
        for key, value in row.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    if bad:
        step, key = bad[0]
        fix = "go back to a checkpoint before it, with a lower optim.lr or float32"
        return fail(f"{key} is not finite from step {step} on", fix)
    return ok("every number is finite") if run.metrics else None


@checks
def gradient(run: RunRecords) -> Finding | None:
    """A gradient of 0 teaches nothing; one that grows a hundredfold destroys the policy."""
    norms = run.column("grad_norm")
    if not norms or any(math.isnan(norm) for norm in norms):
        return None
    zero = mean([float(norm == 0) for norm in norms])
    if zero > 0.5:
        fix = "nothing was learned there: see whether groups are flat; `aha doctor RECIPE`"
        return fail(f"the gradient is exactly 0 in {zero:.0%} of the steps", fix)
    start, end = median(norms[:FEW]), median(norms[-max(FEW, len(norms) // 4) :])
    message = f"gradient norm {start:.3g} -> {end:.3g}"
    if end > EXPLODED[0] * start > 0:
        fix = "a lower optim.lr, a smaller optim.grad_clip"
        return (fail if end > EXPLODED[1] * start else warn)(f"{message}: it explodes", fix)
    return ok(message)


@checks
def learning_rate(run: RunRecords) -> Finding | None:
    """With a learning rate of 0 nothing is learned."""
    rates = run.column("lr")
    if not rates:
        return None
    if max(rates) == 0:
        return fail("the learning rate is 0 at every step", "--optim.lr 3e-4")
    return ok(f"learning rate up to {max(rates):.2g}")


@checks
def weights(run: RunRecords) -> Finding | None:
    """The weights change. Too small an update is rounded to nothing in the stored type.

    bf16 keeps 8 bits: near 0.02 its numbers are 1e-4 apart, and an update of 1e-6 is lost.
    """
    if run.changed_share is None or len(run.metrics) < FEW:
        return None
    message = f"{run.changed_share:.1%} of the weights differ from the base's"
    if run.changed_share < 0.5 and max(run.column("grad_norm"), default=0) > 0:
        fix = "the rate is too small for the type: a higher optim.lr, or weights stored in float32"
        return (fail if run.changed_share < 0.05 else warn)(message, fix)
    if run.distance is None:
        return ok(message)
    message = f"{message}, {run.distance:.2g} of their norm away"
    if run.distance < TINY_DISTANCE and len(run.metrics) >= 2 * FEW:
        return warn(f"{message}: they hardly changed", "a higher optim.lr, or more steps")
    return ok(message)


@checks
def mismatch(run: RunRecords) -> Finding | None:
    """The engine's log-probs against the trainer's, for the same tokens and weights."""
    start, end = run.start("mismatch"), run.end("mismatch")
    if math.isnan(end):
        return None
    message = f"gap of engine and trainer {start:.4f} -> {end:.4f} nats a token"
    if end > GAP[0] or (end > 0.03 and end > 4 * start):
        fix = "float32 in rollout.dtype and optim.dtype, or algo.correction token_tis"
        return (fail if end > GAP[1] else warn)(message, fix)
    return ok(message)


@checks
def held_out(run: RunRecords) -> Finding | None:
    """A reward that rises while held-out problems fall: memorised problems, or a cheat."""
    reports = [report for report in run.evals if "interval" in report]
    if len(reports) < 2:
        return None
    best, last = max(reports, key=lambda report: report["solve_rate"]), reports[-1]
    message = (
        f"held out {best['solve_rate']:.3f} at step {best['step']}, {last['solve_rate']:.3f} now"
    )
    if last["interval"][1] < best["interval"][0]:
        reward_rose = run.end("reward") > run.start("reward") + 0.02
        why = (
            "while the reward in training rose: overfitting or a cheat"
            if reward_rose
            else "it fell"
        )
        return fail(
            f"{message}, {why}", f"use the checkpoint of step {best['step']}; a lower optim.lr"
        )
    return ok(message)


def unexplained(findings: list[Finding]) -> list[Finding]:
    """For a run that did not learn though all other checks passed: it was too short."""
    failed = {finding.check for finding in findings if finding.level != "ok"}
    if "learned" not in failed or failed - {"learned", "steps"}:
        return []
    fix = "more steps, or a higher optim.lr; `aha doctor RECIPE` looks at its first step"
    return [replace(warn("no other fault: it had too little training", fix), check="why")]


def diagnose(path: Path) -> list[Finding]:
    """All findings about a finished or running run. Raises RunError where there is no run."""
    findings = checks.run(RunRecords.read(path))
    return findings + unexplained(findings)


# -- the first step of every run ---------------------------------------------------------------

FIRST_STEP = (
    "none_solved",
    "all_solved",
    "informative",
    "truncated",
    "mismatch",
    "finite",
    "gradient",
)


def first_step_findings(row: dict[str, Any], config: dict[str, Any]) -> list[Finding]:
    """The findings that one row of metrics is enough for; `config` is the run's config.json."""
    return Checklist({name: checks[name] for name in FIRST_STEP}).run(RunRecords(config, [row], []))
