"""Checks of a run from its records: did it learn, and if not, why? Needs no torch and no model.

Bounds are ours unless a source is named. They were chosen so that runs that learned (results/demo)
pass, and a run whose policy drifted (docs/log.md, laptop-3to4) does not.
"""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from aha.core.config import EARLY
from aha.core.findings import WORST_FIRST, Checklist, Finding, fail, ok, warn
from aha.doctor import metric_checks
from aha.doctor.damaged_files import damaged_files
from aha.doctor.grade_checks import FAULTY, failed_grades, grading
from aha.doctor.run_files import COLLAPSED, FEW, SOLVED, RunRecords, mean
from aha.store.run_folder import is_tuning

checks = Checklist()

# Pairs are the bounds of a warning and of a failure.
FLAT = 0.05  # with fewer informative groups nothing is learned ...
RARE = 0.2  # ... and with fewer than this share most of the work is wasted
TRUNCATED = (0.2, 0.8)  # share of completions
LONGER = 2.0  # tokens of a completion, and tokens for a right answer, against the start
ARITHMETIC = (0.85, 0.7)  # share of lines that are right
LEGALITY = (0.7, 0.5)  # share of lines whose numbers are on the table
VERDICTS = (0.95, 0.8)  # share of verdicts that are true
REPEATED = 0.4  # share of attempts that were made before
EXPECTED_SOLVED = 10  # completions; chance makes none of them once in 20,000 times
SUDDEN = 0.3  # share of the solve rate before, that the last step with one still has
NEW = 0.5  # share of the problems that a step has and no other step of those that were looked at


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
        message = f"only {len(recorded)} steps: too few to say why it did or did not learn"
        if is_tuning(run.config):
            return warn(message, "a new run with more --epochs: this one goes on as it began")
        return warn(message, f"aha train --resume RUN --steps {2 * FEW}, or more")
    return ok(f"all {recorded[-1]} steps are recorded")


@checks
def learned(run: RunRecords) -> Finding | None:
    """The solve rate before and after; a gain only where its interval leaves out 0, or where the
    completions of the tests have gone, where the intervals of both rates do not overlap."""
    start, end = run.solve_rates
    if math.isnan(end):
        return None
    message = f"solved {start:.3f} -> {end:.3f}"
    if run.before and run.after:
        learnt, why = gain_shown(run)
        if learnt:
            return ok(f"{message} of the same held-out problems: it learned")
        return fail(f"{message}; {why}", "the other findings say why")
    if len(run.metrics) < 2 * FEW or end > start + 0.02:
        return ok(f"{message} in training")
    return warn(f"{message} in training: no gain so far", "the other findings may say why")


def gain_shown(run: RunRecords) -> tuple[bool, str]:
    """(whether the two tests show a gain, else why not)."""
    if run.gain is not None:
        low, high = run.gain.interval
        verdict = run.gain.verdict
        if verdict == "worse":
            return False, "it got worse"
        return verdict == "better", f"a gain of {low:+.3f} to {high:+.3f}: no evidence"
    assert run.before and run.after, "both tests are there"
    start, end = run.solve_rates
    if run.after["interval"][0] > run.before["interval"][1]:
        return True, ""
    return False, "it got worse" if end < start - 0.02 else "the intervals overlap"


@checks
def noticed(run: RunRecords) -> Finding | None:
    """The faults that the run itself has noticed, the worst of them in words."""
    if not run.findings:
        return None
    worst = min(run.findings, key=lambda row: WORST_FIRST.index(row["level"]))
    others = f" (and {len(run.findings) - 1} more in findings.jsonl)" if run.findings[1:] else ""
    message = f"step {worst['step']}, {worst['check']}: {worst['message']}{others}"
    return Finding(worst["level"], message, worst["fix"])


# -- the signal --------------------------------------------------------------------------------


def has_groups(run: RunRecords) -> bool:
    """Whether a prompt has several completions."""
    return bool(run.setting("rollout", "group_size", 16) > 1)


checks(grading)


def stopped_paying(run: RunRecords) -> int | None:
    """The first step from which on nothing was solved, where the steps right before it would let
    expect many and the policy kept its entropy; None where there is none.

    A policy that forgets does so over many steps, or with its entropy: this one was right and got
    nothing for it.
    """
    rates = run.column("solve_rate")
    zeros = next((i for i, rate in enumerate(reversed(rates)) if rate > 0), len(rates))
    first = len(rates) - zeros
    if zeros < 3 or first < 1 or first >= len(rates) or len(rates) != len(run.metrics):
        return None
    before = rates[max(0, first - FEW) : first]
    count = run.setting("rollout", "prompts", 32) * run.setting("rollout", "group_size", 16)
    level = max(mean(before), mean(rates[:FEW]))
    if min(before[-1], mean(before)) < SUDDEN * level:
        return None  # it went down by steps
    if mean(before) * count * zeros < EXPECTED_SOLVED:
        return None
    old, new = (row.get("entropy") for row in (run.metrics[first - 1], run.metrics[first]))
    kept = not old or not new or new > COLLAPSED * old
    return int(run.metrics[first]["step"]) if kept else None


@checks
def none_solved(run: RunRecords) -> Finding | None:
    """Groups in which no completion is right have no advantage."""
    share = run.end("groups_none_solved")
    if math.isnan(share) or failed_grades(run.metrics) > FAULTY:
        return None  # what got no grade is not known to be unsolved: see `grading`
    if (step := stopped_paying(run)) is not None:
        return fail(
            f"from step {step} on nothing was solved, from one step to the next and with the same "
            "policy: its grader has changed, not the policy",
            "a grader without a memory that gives the same grade twice, and without a limit that "
            f"it may reach; compare the reasons in completions/ of step {step - 1} and {step}",
        )
    if share > 1 - FLAT and run.end("solve_rate") < 0.01:
        return fail(
            f"in {share:.0%} of the groups nothing was solved",
            "easier problems (task.numbers), a better base, or more tries (rollout.group_size)",
        )
    return ok(f"{share:.0%} of the groups without a right answer")


@checks
def new_problems(run: RunRecords) -> Finding | None:
    """Each step has new problems: one that comes again and again is memorised."""
    steps = run.prompts_by_step
    if len(steps) < 3 or run.setting("algo", "curriculum", "off") != "off":
        return None
    different = len(frozenset().union(*steps))
    total = sum(map(len, steps))
    message = f"{different} different problems in {len(steps)} steps of {max(map(len, steps))}"
    if different / total > NEW:
        return ok(message)
    fix = "`problems` draws by its seed, and the train split has more problems than a step takes"
    return (fail if different == max(map(len, steps)) else warn)(message, fix)


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
    if math.isnan(share) or not has_groups(run) or stopped_paying(run) is not None:
        return None
    if share > RARE or run.end("groups_all_solved") > SOLVED:
        return ok(f"{share:.0%} of the groups are informative")
    fix = "problems nearer to half solved, a larger rollout.group_size, or zero_variance resample"
    return (fail if share < FLAT else warn)(f"only {share:.0%} of the groups are informative", fix)


@checks
def resampling(run: RunRecords) -> Finding | None:
    """`resample` gets enough informative groups; otherwise most rollouts are discarded."""
    # The column counts the rollouts of a step; the last one may have been enough.
    rounds, limit = run.column("asked"), run.setting("algo", "resample_rounds", 3)
    if not rounds:
        return None
    rows = [row for row in run.metrics if isinstance(row.get("asked"), int | float)]
    exhausted = mean([float(row["asked"] >= limit and row.get("informative") != 1) for row in rows])
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
    early = run.setting("algo", "overlong", "keep") == EARLY
    limit -= run.setting("algo", "overlong_buffer", 0) if early else 0
    if math.isnan(share):
        return None
    message = f"{share:.0%} of the completions truncated at {limit} tokens"
    if share < TRUNCATED[0]:
        return ok(message)
    if run.start("truncated") > TRUNCATED[1]:
        fix = "the base never stops: see its stop token (`aha doctor RECIPE`) and template"
    else:
        longer = "smaller algo.overlong_buffer" if early else "higher rollout.max_new_tokens"
        fix = f"a {longer}, or a lower optim.lr if the text makes no sense"
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
    findings = all_findings(RunRecords.read(path))
    return findings + unexplained(findings) + damaged_files(path)


def all_findings(run: RunRecords) -> list[Finding]:
    """The findings of these checks and of those of the training's numbers."""
    return checks.run(run) + metric_checks.checks.run(run)


# -- the first step of every run ---------------------------------------------------------------

FIRST_STEP = {
    name: check
    for name, check in (checks | metric_checks.checks).items()
    if name
    in (
        *("none_solved", "all_solved", "informative", "truncated", "mismatch"),
        *("mismatch_weights", "drawing", "duplicates", "finite", "gradient"),
    )
}


def first_step_findings(row: dict[str, Any], config: dict[str, Any]) -> list[Finding]:
    """The findings that one row of metrics is enough for; `config` is the run's config.json."""
    return Checklist(FIRST_STEP).run(RunRecords(config, [row], []))
