"""Checks of a recipe's first update: advantages, tokens in the loss, gradient, weights."""

import math

from aha.algo.algorithms import chosen_of, method_of
from aha.core.findings import Checklist, Finding, fail, ok, warn
from aha.doctor.first_step_trial import Trial

checks = Checklist()

HUGE_STEP = 0.05  # of the weights' norm, in one step
SPREAD = 1e-3  # of the largest gradient; a sum in another order differs by 1e-6


def has_advantage(trial: Trial) -> bool:
    """Whether any completion has an advantage that is not 0."""
    return any(advantage != 0 for row in trial.report.advantages for advantage in row)


@checks
def advantages(trial: Trial) -> Finding:
    """Advantages are finite, and 0 where all rewards of a group are equal.

    The mean of equal floats can differ from them by rounding, and a division by a deviation of
    almost 0 turns that into an advantage.
    """
    rows = trial.report.advantages
    if not all(math.isfinite(advantage) for row in rows for advantage in row):
        return fail("an advantage that is not finite", "see the advantage's division by deviation")
    flat = [
        row
        for row, group in zip(rows, trial.report.groups, strict=True)
        if len(group) > 1 and len({graded.reward for graded in group}) == 1
    ]
    # Without a group baseline, with a critic or with other terms in the reward, equal rewards may
    # have advantages.
    as_graded = not chosen_of(trial.cfg.algo).overlong.facts.changes_rewards
    if method_of(trial.cfg).flat_is_zero and as_graded:
        wrong = sum(any(advantage != 0 for advantage in row) for row in flat)
        if wrong:
            fix = "compare a group's smallest reward with its largest, and give exactly 0"
            return fail(f"{wrong} groups of equal rewards have advantages", fix)
    return ok(f"advantages are finite; {len(flat)} of {len(rows)} groups have equal rewards")


# -- the loss ----------------------------------------------------------------------------------


@checks
def loss_tokens(trial: Trial) -> Finding | None:
    """Every own token of a completion with an advantage is in the loss, and no other token is.

    Without its stop token a policy never learns to stop; a mask or targets that are shifted by one
    train a token of the prompt, or one after the end.
    """
    probe = trial.probe
    if probe.strangers or probe.left_out:
        message = f"{probe.strangers} rows that nobody drew, {probe.left_out} completions left out"
        return fail(message, "train exactly the completions of the step that have an advantage")
    rows = [row for row in probe.rows if row.advantages_T.any()]
    outside = sum(row.elsewhere != 0 for row in probe.rows)
    if outside:
        fix = "mask and targets: a token's log-prob stands in the column of that token"
        return fail(f"{outside} completions move tokens that are not their own", fix)
    control = chosen_of(trial.cfg.algo).control
    if not rows or (control and control.facts.role == "keep"):
        return None  # a control leaves tokens out on purpose
    missing = [(row.own_T == 0) & (row.advantages_T != 0) for row in rows]
    without_end = sum(bool(row_T[-1]) for row_T in missing)
    partial = sum(bool(row_T[:-1].any()) for row_T in missing)
    if without_end > partial:
        message = f"the last token of {without_end} completions is not in the loss"
        return fail(message, "the mask reaches to the stop token and includes it")
    if partial:
        message = f"{partial} of {len(rows)} completions have tokens that are not in the loss"
        return fail(message, "the mask covers all own tokens; nothing is clipped at ratio 1")
    return ok(f"all {sum(len(row.own_T) for row in rows)} tokens with an advantage, and no other")


@checks
def micro_batches(trial: Trial) -> Finding | None:
    """The size of the micro-batches does not change the gradient.

    A denominator for each micro-batch makes it as many times too large as there are of them.
    """
    if not any(row.advantages_T.any() for row in trial.probe.rows):
        return None  # what a KL leaves then is rounding
    message = f"one micro-batch or many: gradients differ by {trial.probe.spread:.1g}"
    if not trial.probe.spread <= SPREAD:
        return fail(message, "denominators of the whole update (`totals_of` all its rows)")
    return ok(message)


# -- the gradient and the weights --------------------------------------------------------------


@checks
def gradient(trial: Trial) -> Finding | None:
    """The gradient is finite and not 0."""
    norm = trial.row.get("grad_norm")
    if norm is None:
        return None
    if not math.isfinite(norm):
        return fail(f"a gradient norm of {norm}", "a lower optim.lr, float32")
    if norm == 0:
        why = "although groups differ" if has_advantage(trial) else "all groups have equal rewards"
        fix = "see `informative`" if not has_advantage(trial) else "see the loss and its mask"
        return fail(f"the gradient is exactly 0: {why}", fix)
    return ok(f"gradient norm {norm:.3g}")


@checks
def moves(trial: Trial) -> Finding | None:
    """The step changes most weights, and not by too much.

    An update that is too small for the precision of the stored type changes nothing.
    """
    change = trial.weight_change
    if not trial.row.get("grad_norm") or not math.isfinite(trial.row["grad_norm"]):
        return None
    message = (
        f"the step changes {change.share:.1%} of the weights by {change.size:.1g} of their norm"
    )
    if change.share < 0.5:
        return (fail if change.share < 0.05 else warn)(
            message,
            "a higher optim.lr: steps this small are lost in rounding; or weights are frozen",
        )
    if not change.size <= HUGE_STEP:
        return warn(f"{message}: a very large step", "a lower optim.lr, or a longer optim.warmup")
    return ok(message)


@checks
def frozen(trial: Trial) -> Finding | None:
    """The gradient reaches every tensor."""
    unchanged = trial.weight_change.unchanged
    if not trial.weight_change.share:
        return None
    if unchanged:
        fix = "give every parameter to the optimiser, and detach no part of the graph"
        return warn(f"{len(unchanged)} tensors do not change: {', '.join(unchanged[:3])}", fix)
    return ok("every tensor changes")


@checks
def direction(trial: Trial) -> Finding | None:
    """After the step, tokens with a positive advantage are more likely; a wrong sign shows here."""
    if trial.advantage_gain is None or method_of(trial.cfg).critic:
        return None
    message = f"advantage x rise of the log-prob: {trial.advantage_gain:+.2g} a token"
    if not trial.advantage_gain > 0:
        fix = (
            "tokens with an advantage become less likely: the sign of the loss; or a lower optim.lr"
        )
        return fail(message, fix)
    return ok(message)


@checks
def lr_zero(trial: Trial) -> Finding:
    """With a learning rate of 0 no weight changes, as only the gradient moves weights."""
    if trial.idle_change.share:
        fix = "weight decay that ignores the rate, or weights written outside the optimiser"
        return fail(f"a step with lr 0 changes {trial.idle_change.share:.1%} of the weights", fix)
    return ok("a step with lr 0 changes nothing")
