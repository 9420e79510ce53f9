"""Checks of a rollout's draws and of the mismatch, from the numbers of a step or of a whole run.

`step_checks` gets those that a run looks at after every step; there a fault is a warning, as the
run may be meant so. Imports no torch: the doctor reads records with the same functions.
"""

from dataclasses import replace

from aha.core.findings import Finding, fail, ok, warn
from aha.core.records import StepReport
from aha.training.step_watch import step_checks

Z = 6.0  # standard errors: chance reaches it once in 10^9 times
MIN_DRAW_GAP = 0.01  # of the entropy: with many tokens rounding alone is significant
DUPLICATES = (10, 2.0)  # pairs: so many more than so many times the expected number
EFFECTIVE = (0.9, 0.5)  # share of the tokens that count; bounds of a warning and of a failure


def check_draws(gap: float, z: float, entropy: float) -> Finding:
    """Whether tokens were drawn from the policy, from the mean of -log p less the entropy: `gap` in
    nats a token, `z` in standard errors."""
    message = f"-log p of the drawn tokens less the entropy: {gap:+.4f} nats, {z:+.1f} sigma"
    if abs(z) <= Z or abs(gap) <= MIN_DRAW_GAP * entropy:
        return ok(message)
    if gap < 0:
        way = "drawn more greedily than the policy says"
        fix = "no temperature, top-k, top-p or min-p in the engine that is not in the log-probs"
    else:
        way = "drawn less greedily than the policy says"
        fix = "no higher temperature and no penalty on repetition that is not in the log-probs"
    return fail(f"{message}: {way}", fix)


def check_duplicates(pairs: float, expected: float) -> Finding:
    """Whether equal completions within a group are more frequent than their probabilities say."""
    message = f"{pairs:.0f} pairs of equal completions in a group, {expected:.1f} expected"
    if pairs > DUPLICATES[0] + DUPLICATES[1] * expected:
        return fail(message, "the engine draws each completion by a seed of its own")
    return ok(message)


def check_effective(share: float) -> Finding:
    """Whether the weights that make up for the mismatch leave enough tokens."""
    message = f"with the weights of the correction {share:.1%} of the tokens count"
    if share >= EFFECTIVE[0]:
        return ok(message)
    fix = "see `mismatch`: float32 in rollout.dtype and optim.dtype, the same temperature in both"
    return (fail if share < EFFECTIVE[1] else warn)(message, fix)


def as_warning(finding: Finding) -> Finding:
    """A failure as a warning, which does not end a run."""
    return replace(finding, level="warn") if finding.level == "fail" else finding


@step_checks
def drawing(report: StepReport) -> Finding | None:
    """Tokens are drawn from the distribution that is recorded."""
    numbers = report.numbers
    if "draw_z" not in numbers:
        return None
    return as_warning(check_draws(numbers["draw_gap"], numbers["draw_z"], numbers["entropy"]))


@step_checks
def duplicates(report: StepReport) -> Finding | None:
    """Completions of a group are drawn independently."""
    if "duplicates" not in report.numbers:
        return None
    pairs, expected = report.numbers["duplicates"], report.numbers["duplicates_expected"]
    return as_warning(check_duplicates(pairs, expected))


@step_checks
def mismatch_weights(report: StepReport) -> Finding | None:
    """The correction leaves enough tokens."""
    share = report.numbers.get("mismatch_ess")
    return None if share is None else as_warning(check_effective(share))
