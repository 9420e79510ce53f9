"""Checks of a run's numbers: draws, log-probs, gradient, KL, critic, weights. Without torch.

Bounds are ours unless a source is named, chosen as those of `run_checks`.
"""

import math

from aha.core.findings import Checklist, Finding, fail, ok, warn
from aha.doctor.run_files import FEW, SOLVED, RunRecords, mean, median
from aha.training.draw_checks import check_draws, check_duplicates, check_effective

checks = Checklist()

# Pairs are the bounds of a warning and of a failure.
EXPLODED = (10.0, 100.0)  # gradient norm against that of the start
VANISHED = 0.01  # the same
GAP = (0.05, 0.2)  # nats a token between engine and trainer
TINY_DISTANCE = 1e-4  # of the weights' norm; in the demo it is 0.026
UNMOVED_KL = 1e-9  # nats a token
EXPLAINED = 0.01  # share of the variance of the returns


# -- the draws -----------------------------------------------------------------------------------


@checks
def drawing(run: RunRecords) -> Finding | None:
    """Tokens are drawn from the distribution that is recorded: the mean of -log p is its entropy.

    A fault here trains a policy on text that it did not write, and `mismatch` does not show it.
    """
    scores, gaps = run.column("draw_z"), run.column("draw_gap")
    if not scores:
        return None
    # Of each step chance has mean 0 and deviation 1.
    z = sum(scores) / math.sqrt(len(scores))
    return check_draws(mean(gaps), z, mean(run.column("entropy")))


@checks
def duplicates(run: RunRecords) -> Finding | None:
    """Equal completions in a group are as frequent as their probabilities say.

    More of them mean that seeds are shared: a group then compares fewer completions than it has.
    """
    pairs, expected = sum(run.column("duplicates")), sum(run.column("duplicates_expected"))
    if not run.column("duplicates"):
        return None
    return check_duplicates(pairs, expected)


# -- the update ----------------------------------------------------------------------------------


@checks
def finite(run: RunRecords) -> Finding | None:
    """All metrics are finite. After a NaN or an infinity nothing is learned.

    A run writes null for them; older ones wrote NaN.
    """
    bad = [
        (row.get("step"), key)
        for row in run.metrics
        for key, value in row.items()
        if value is None or (isinstance(value, float) and not math.isfinite(value))
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
    solved = run.end("groups_all_solved") > SOLVED or run.end("solve_rate") > SOLVED
    if end < VANISHED * start and len(norms) >= 2 * FEW and not solved:
        fix = "see `informative` and `truncated`; without them a lower algo.kl_coef"
        return warn(f"{message}: it vanishes", fix)
    return ok(message)


@checks
def learning_rate(run: RunRecords) -> Finding | None:
    """With a learning rate of 0 nothing is learned."""
    rates = run.column("lr")
    if not rates:
        return None
    if max(rates) == 0:
        fix = "an optim.lr above 0: `aha doctor RECIPE` names one that suits the model"
        return fail("the learning rate is 0 at every step", fix)
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
def mismatch_weights(run: RunRecords) -> Finding | None:
    """Weights that make up for the mismatch: the share of the tokens that still count."""
    share = run.end("mismatch_ess")
    return None if math.isnan(share) else check_effective(share)


@checks
def kl(run: RunRecords) -> Finding | None:
    """A policy that learns moves away from its reference; a KL of exactly 0 measures it against
    itself."""
    values = run.column("kl")
    if not values:
        return None
    message = f"KL to the reference {values[0]:.2g} -> {values[-1]:.2g} nats a token"
    moved = max(run.column("grad_norm"), default=0) > 0 and max(run.column("lr"), default=0) > 0
    reset = run.setting("algo", "reference_reset", 0) == 1
    if len(values) >= FEW and moved and not reset and max(map(abs, values)) <= UNMOVED_KL:
        fix = "the reference is the policy itself: it must be a copy, and not follow every step"
        return fail(f"{message}: it is 0 in every step", fix)
    return ok(message)


@checks
def critic(run: RunRecords) -> Finding | None:
    """The critic explains a part of the returns; one that explains nothing is a constant."""
    values = run.column("explained")
    if not values:
        return None
    message = f"the critic explains {run.start('explained'):.0%} -> {run.end('explained'):.0%}"
    message += " of the variance of the returns"
    if len(values) >= 4 * FEW and run.end("explained") < EXPLAINED:
        fix = "a higher critic.lr, a longer critic.warmup; or --algo.advantage dr_grpo with groups"
        return warn(f"{message}: it has learned nothing", fix)
    return ok(message)
