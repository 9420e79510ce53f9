"""A run from its records alone: did it learn, and if not, why not. No torch, no model.

Bounds are ours unless a source is named; they were set so that runs that learned (results/demo)
pass, and one that drifted (docs/log.md, laptop-3to4) does not.
"""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from aha.core.findings import Checklist, Finding, fail, ok, warn
from aha.doctor.run_files import FEW, RunRecords, mean, median

checks = Checklist()

FLAT = 0.05  # informative groups below this share teach nothing ...
RARE = 0.2  # ... and below this one waste most of the work
CUT_OFF = (0.2, 0.8)  # share of completions: worth a word, nothing is left
COLLAPSED = 0.2  # of the entropy at the start.  Source: algorithms survey, 1.8
EXPLODED = (10.0, 100.0)  # gradient norm against that of the start
GAP = (0.05, 0.2)  # nats a token between engine and trainer
PRICE = 2.0  # tokens for a right answer, and of a completion, against the start
ARITHMETIC = (0.85, 0.7)  # share of right lines
LEGALITY = (0.7, 0.5)  # share of lines whose numbers lie on the table
REPEATED = 0.4  # share of attempts that were made before
SOLVED = 0.9
HARDLY = 1e-4  # of the weights' norm; the demo's go 0.026


# -- is there something to judge? -----------------------------------------------------------


@checks
def steps(run: RunRecords) -> Finding:
    """Rows of metrics, one a step, none missing; whether the run came to its end."""
    wanted, seen = run.config.get("steps", 0), [row.get("step", 0) for row in run.metrics]
    if not seen:
        return fail("no step is recorded", "it stopped before its first step; `aha doctor RECIPE`")
    if any(b - a != 1 for a, b in pairwise(seen)):
        return warn("steps are missing in metrics.jsonl", "do not edit it while the run goes on")
    if not run.finished:
        fix = "if nothing runs: aha train --resume RUN"
        return ok(f"{seen[-1]} of {wanted} steps so far", fix)
    if len(seen) < 2 * FEW:
        return warn(f"only {len(seen)} steps", "too few to say why it did or did not learn")
    return ok(f"all {seen[-1]} steps are recorded")


@checks
def learned(run: RunRecords) -> Finding | None:
    """The solve rate before and after; a gain only where the intervals part."""
    start, end = run.solved
    if math.isnan(end):
        return None
    saw = f"solved {start:.3f} -> {end:.3f}"
    if run.before and run.after:
        if run.after["interval"][0] > run.before["interval"][1]:
            return ok(f"{saw} of the same held-out problems: it learned")
        why = "it got worse" if end < start - 0.02 else "the intervals overlap: no gain is shown"
        return fail(f"{saw}; {why}", "the other findings say why")
    if len(run.metrics) < 2 * FEW or end > start + 0.02:
        return ok(f"{saw} in training")
    return warn(f"{saw} in training: no gain so far", "the other findings may say why")


# -- the signal -----------------------------------------------------------------------------


def has_groups(run: RunRecords) -> bool:
    return run.setting("rollout", "group_size", 16) > 1


@checks
def none_solved(run: RunRecords) -> Finding | None:
    """Groups in which nothing is right have nothing to tell good from bad by."""
    share = run.end("groups_none_solved")
    if math.isnan(share):
        return None
    if share > 1 - FLAT and run.end("solve_rate") < 0.01:
        return fail(
            f"in {share:.0%} of the groups nothing was solved",
            "easier problems (task.numbers), a better base, or more tries (rollout.group_size)",
        )
    return ok(f"{share:.0%} of the groups without a right answer")


@checks
def all_solved(run: RunRecords) -> Finding | None:
    """Groups in which all is right teach as little; at the end of a run they are its success."""
    start, end = run.start("groups_all_solved"), run.end("groups_all_solved")
    if math.isnan(end):
        return None
    fix = "harder problems: more task.numbers"
    if start > 1 - FLAT:
        return fail(f"{start:.0%} of the groups were all solved from the start", fix)
    if end > SOLVED:
        return ok(f"{end:.0%} of the groups all solved at the end: it has outgrown them", fix)
    return ok(f"{end:.0%} of the groups all solved")


@checks
def informative(run: RunRecords) -> Finding | None:
    """The share of groups whose completions differ in reward: the only ones that teach."""
    share = run.end("informative")
    if math.isnan(share) or not has_groups(run):
        return None
    if share > RARE or run.end("groups_all_solved") > SOLVED:
        return ok(f"{share:.0%} of the groups teach")
    fix = "problems nearer to half solved, a larger rollout.group_size, or zero_variance resample"
    return (fail if share < FLAT else warn)(f"only {share:.0%} of the groups teach", fix)


@checks
def asked(run: RunRecords) -> Finding | None:
    """`resample` that never finds enough mixed groups pays for rollouts and throws them away."""
    rounds, most = run.of("asked"), run.setting("algo", "resample_rounds", 3)
    if not rounds:
        return None
    spent = mean([float(r >= most) for r in rounds])
    if most > 1 and spent > 0.5:
        return warn(
            f"in {spent:.0%} of the steps all {most} rollouts were not enough",
            "problems nearer to half solved, or a larger rollout.group_size",
        )
    return ok(f"{mean(rounds):.1f} rollouts a step")


@checks
def format_only(run: RunRecords) -> Finding | None:
    """Reward that rises while nothing more is right is paid for form."""
    start, end = run.start("reward"), run.end("reward")
    solved = run.end("solve_rate") - run.start("solve_rate")
    if math.isnan(end):
        return None
    if end - start > 0.03 and solved < 0.2 * (end - start):
        return fail(
            f"reward {start:.2f} -> {end:.2f}, but {solved:+.2f} solved",
            "pay for right answers alone, or far less for form; `aha doctor RECIPE` audits it",
        )
    return ok(f"reward {start:.2f} -> {end:.2f}, solved {solved:+.2f}")


# -- what the completions became ------------------------------------------------------------


@checks
def entropy(run: RunRecords) -> Finding | None:
    """A policy that always says the same explores nothing."""
    start, end = run.start("entropy"), run.end("entropy")
    if not start > 0 or math.isnan(end):
        return None
    saw = f"entropy {start:.3f} -> {end:.3f} nats a token"
    if end < COLLAPSED * start and run.end("solve_rate") < SOLVED:
        return fail(
            f"{saw}: collapsed",
            "a lower optim.lr, algo.clip_high 0.28 with ppo_clip, or a small algo.entropy_coef",
        )
    if end > 3 * start:
        return warn(f"{saw}: it dissolves", "a lower optim.lr, or a KL (algo.kl loss)")
    return ok(saw)


@checks
def truncated(run: RunRecords) -> Finding | None:
    """Completions that were cut off have no answer, and are graded wrong."""
    share, limit = run.end("truncated"), run.setting("rollout", "max_new_tokens", 0)
    if math.isnan(share):
        return None
    saw = f"{share:.0%} of the completions cut off at {limit} tokens"
    if share < CUT_OFF[0]:
        return ok(saw)
    if run.start("truncated") > CUT_OFF[1]:
        fix = "the base never stops: see its stop token (`aha doctor RECIPE`) and template"
    else:
        fix = "a higher rollout.max_new_tokens, or a lower optim.lr if the text wanders"
    return (fail if share > CUT_OFF[1] else warn)(saw, fix)


@checks
def length(run: RunRecords) -> Finding | None:
    """Longer is fine while it pays: what a right answer costs in tokens tells the two apart."""
    start, end = run.start("mean_tokens"), run.end("mean_tokens")
    rates = run.start("solve_rate"), run.end("solve_rate")
    if math.isnan(end) or not min(rates) > 0:
        return None
    prices = start / rates[0], end / rates[1]
    saw = f"{start:.0f} -> {end:.0f} tokens, {prices[0]:.0f} -> {prices[1]:.0f} for a right answer"
    if end > PRICE * start and prices[1] > PRICE * prices[0]:
        return warn(f"{saw}: it runs away", "a lower optim.lr; algo.aggregation sequence_sum")
    return ok(saw)


def bounded(run: RunRecords, key: str, bounds: tuple[float, float], what: str, fix: str):
    """A ratio of the completions' lines that should stay high."""
    found = run.habit(key)
    if found is None:
        return None
    first, last = found
    saw = f"{first:.0%} -> {last:.0%} of the {what}"
    if last >= bounds[0] or last > first - 0.05:
        return ok(saw)
    low = [e["step"] for e in run.evals if e.get("behaviors", {}).get(key, 1) < bounds[0]]
    since = f", first seen at step {low[0]}" if low else ""
    return (fail if last < bounds[1] else warn)(f"{saw}: it drifts{since}", fix)


@checks
def arithmetic(run: RunRecords) -> Finding | None:
    """RL pays for answers alone: wrong sums on the way there go unpunished."""
    fix = "a lower optim.lr or an earlier checkpoint; a base that calculates better"
    return bounded(run, "line_accuracy", ARITHMETIC, "lines are right arithmetic", fix)


@checks
def illegal(run: RunRecords) -> Finding | None:
    """Lines with numbers that nobody gave: the search has lost the table."""
    fix = "a lower optim.lr or an earlier checkpoint; shorter problems first"
    return bounded(run, "line_legality", LEGALITY, "lines use numbers on the table", fix)


@checks
def verdicts(run: RunRecords) -> Finding | None:
    """A "yes" that is not true ends the search too early."""
    fix = "a lower optim.lr; a base whose verdicts are true"
    return bounded(run, "verdict_truth", (0.95, 0.8), "verdicts are true", fix)


@checks
def repeats(run: RunRecords) -> Finding | None:
    found = run.habit("repeat_share")
    if found is None:
        return None
    saw = f"{found[0]:.0%} -> {found[1]:.0%} of the attempts were made before"
    if found[1] > REPEATED and found[1] > found[0]:
        return warn(f"{saw}: it turns in circles", "a lower optim.lr, a higher temperature")
    return ok(saw)


# -- the machinery --------------------------------------------------------------------------


@checks
def finite(run: RunRecords) -> Finding | None:
    """NaN or infinity anywhere is the end of a run, whatever the curves look like."""
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
    norms = run.of("grad_norm")
    if not norms or any(math.isnan(norm) for norm in norms):
        return None
    zero = mean([float(norm == 0) for norm in norms])
    if zero > 0.5:
        fix = "nothing was learned there: see whether groups are flat; `aha doctor RECIPE`"
        return fail(f"the gradient is exactly 0 in {zero:.0%} of the steps", fix)
    start, end = median(norms[:FEW]), median(norms[-max(FEW, len(norms) // 4) :])
    saw = f"gradient norm {start:.3g} -> {end:.3g}"
    if end > EXPLODED[0] * start > 0:
        fix = "a lower optim.lr, a smaller optim.grad_clip"
        return (fail if end > EXPLODED[1] * start else warn)(f"{saw}: it explodes", fix)
    return ok(saw)


@checks
def learning_rate(run: RunRecords) -> Finding | None:
    rates = run.of("lr")
    if not rates:
        return None
    if max(rates) == 0:
        return fail("the learning rate is 0 at every step", "--optim.lr 3e-4")
    return ok(f"learning rate up to {max(rates):.2g}")


@checks
def weights(run: RunRecords) -> Finding | None:
    """A step smaller than half the distance to the next number of the storage type is no step.

    bf16 keeps 8 bits: weights of 0.02 are 1e-4 apart there, and a rate of 1e-6 rounds away.
    """
    if run.restless is None or len(run.metrics) < FEW:
        return None
    saw = f"{run.restless:.1%} of the weights differ from the base's"
    if run.restless < 0.5 and max(run.of("grad_norm"), default=0) > 0:
        fix = "the rate is too small for the type: a higher optim.lr, or weights stored in float32"
        return (fail if run.restless < 0.05 else warn)(saw, fix)
    if run.distance is None:
        return ok(saw)
    saw = f"{saw}, {run.distance:.2g} of their size away"
    if run.distance < HARDLY and len(run.metrics) >= 2 * FEW:
        return warn(f"{saw}: hardly anywhere", "a higher optim.lr, or more steps")
    return ok(saw)


@checks
def mismatch(run: RunRecords) -> Finding | None:
    """The engine's log-probs against the trainer's, for the same tokens and weights."""
    start, end = run.start("mismatch"), run.end("mismatch")
    if math.isnan(end):
        return None
    saw = f"gap of engine and trainer {start:.4f} -> {end:.4f} nats a token"
    if end > GAP[0] or (end > 0.03 and end > 4 * start):
        fix = "float32 in rollout.dtype and optim.dtype, or algo.correction token_tis"
        return (fail if end > GAP[1] else warn)(saw, fix)
    return ok(saw)


@checks
def held_out(run: RunRecords) -> Finding | None:
    """Reward in training that rises while held-out problems fall: learned by heart, or cheated."""
    looks = [look for look in run.evals if "interval" in look]
    if len(looks) < 2:
        return None
    best, last = max(looks, key=lambda look: look["solve_rate"]), looks[-1]
    saw = f"held out {best['solve_rate']:.3f} at step {best['step']}, {last['solve_rate']:.3f} now"
    if last["interval"][1] < best["interval"][0]:
        risen = run.end("reward") > run.start("reward") + 0.02
        why = "while the reward in training rose: overfitting or a cheat" if risen else "it fell"
        return fail(f"{saw}, {why}", f"use the checkpoint of step {best['step']}; a lower optim.lr")
    return ok(saw)


def unexplained(found: list[Finding]) -> list[Finding]:
    """A run that did not learn although nothing else is off was short, or slow."""
    off = {finding.check for finding in found if finding.level != "ok"}
    if "learned" not in off or off - {"learned", "steps"}:
        return []
    fix = "more steps, or a higher optim.lr; `aha doctor RECIPE` looks at its first step"
    return [replace(warn("nothing else is off: it had too little training", fix), check="why")]


def diagnose(path: Path) -> list[Finding]:
    """All findings about a finished or running run."""
    found = checks.run(RunRecords.read(path))
    return found + unexplained(found)


# -- a look at the first step of every run ---------------------------------------------------

FIRST = ("none_solved", "all_solved", "informative", "truncated", "mismatch", "finite", "gradient")


def first_step_findings(row: dict, config: dict) -> list[Finding]:
    """What one row of metrics says already."""
    return Checklist({name: checks[name] for name in FIRST}).run(RunRecords(config, [row], []))
