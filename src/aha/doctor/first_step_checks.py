"""Checks of a recipe's first step: are log-probs, masks, advantages and the update right?

With a fault of this kind every curve still looks plausible, so each is measured here.
"""

import math
from collections.abc import Iterator

import torch

from aha.algo.algorithms import chosen_of, method_of
from aha.core.findings import Checklist, Finding, fail, ok, warn
from aha.core.records import Completion
from aha.doctor.first_step_trial import LogprobGap, Trial
from aha.doctor.run_checks import first_step_findings
from aha.tasks.tags import read_answer

checks = Checklist()

# Mean gap in nats a token: the bounds of a warning and of a failure, for float32 and for others.
# bf16 keeps 8 bits, and its gaps reach .01.
EXACT, ROUNDED = (1e-4, 1e-2), (0.05, 0.2)
SAME = (1e-6, 1e-3)  # for two values of the same computation
HUGE_STEP = 0.05  # of the weights' norm, in one step
FEW_ANSWERS = 0.05  # share of the completions


def bounds(trial: Trial) -> tuple[float, float]:
    """The bounds of a gap in the number type of the trial."""
    return EXACT if trial.exact else ROUNDED


def gap_text(gap: LogprobGap) -> str:
    """A gap for a message."""
    return f"{gap.mean:.2g} nats a token, ratios {gap.low:.3f} to {gap.high:.3f}"


def check_gap(gap: LogprobGap, edges: tuple[float, float], what: str, fix: str) -> Finding:
    """A gap against the bounds of a warning and of a failure."""
    message = f"{what}: {gap_text(gap)}"
    if not gap.mean <= edges[0]:  # NaN as well
        return (warn if gap.mean <= edges[1] else fail)(message, fix)
    return ok(message)


def completions(trial: Trial) -> Iterator[Completion]:
    """All completions of the step."""
    return (graded.completion for group in trial.report.groups for graded in group)


def has_advantage(trial: Trial) -> bool:
    """Whether any completion has an advantage that is not 0."""
    return any(advantage != 0 for row in trial.report.advantages for advantage in row)


# -- log-probs ---------------------------------------------------------------------------------


@checks
def ratio(trial: Trial) -> Finding:
    """Computed twice, a policy's log-probs are the same: its ratio is 1 and its KL 0.

    Dropout, or an attention whose sums depend on chance, makes the first update off-policy.
    """
    fix = "the forward pass is random: no dropout, eval mode, a deterministic attention"
    return check_gap(trial.repeat, SAME, "the trainer, computed twice", fix)


@checks
def packing(trial: Trial) -> Finding:
    """The other rows of a batch, and padding, do not change a completion's log-probs."""
    fix = (
        "a token attends to other rows or padding, or positions shift: see the layout and the mask"
    )
    return check_gap(trial.packing, bounds(trial), "in a batch and alone", fix)


@checks
def mismatch(trial: Trial) -> Finding:
    """The engine's recorded log-probs are those of the policy that is trained.

    Causes of a gap: another temperature, top-k or top-p, another number type, old weights.
    """
    fix = (
        "one temperature for both, log-probs after it, no top-k or top-p; "
        "--rollout.dtype float32 --optim.dtype float32 or --algo.correction token_tis"
    )
    return check_gap(trial.engine, bounds(trial), "engine against trainer", fix)


@checks
def reference(trial: Trial) -> Finding | None:
    """The reference is the policy at version 0, so the KL to it is 0 there."""
    if trial.reference is None:
        return None
    fix = "copy the reference from the policy; compute it in the same type and temperature"
    return check_gap(trial.reference, SAME, "policy against reference", fix)


@checks
def stale(trial: Trial) -> Finding:
    """The engine generates with new weights at once.

    With old weights, or with cached keys of them, the training data come from another policy.
    """
    new, old = trial.republished
    message = (
        f"after new weights, engine and policy are {new.mean:.2g} nats apart, old {old.mean:.2g}"
    )
    if not new.mean <= max(0.5 * old.mean, bounds(trial)[0]):
        return fail(
            message, "`load` must replace every weight, and clear caches of keys and prefixes"
        )
    return ok(message)


@checks
def steady(trial: Trial) -> Finding:
    """The same seed draws the same tokens."""
    if not trial.reproducible:
        return warn(
            "the same seed drew other tokens", "a run cannot be repeated: draw by seed alone"
        )
    return ok("the same seed draws the same tokens")


# -- tokens and text ---------------------------------------------------------------------------


@checks
def mask(trial: Trial) -> Finding:
    """The mask is 1 exactly on the completion's own tokens, the stop token included.

    A mask made from pad ids loses the stop token where both are one token, and then the policy
    never learns to stop.
    """
    wrong = 0
    for part, rows in zip(trial.parts, trial.rows, strict=True):
        for b, graded in enumerate(rows):
            prompt, own = graded.completion.prompt.tokens, graded.completion.tokens
            expected_T = torch.zeros_like(part.mask_BT[b])
            first = len(prompt) - part.start
            expected_T[first : first + len(own)] = 1.0
            row = tuple(part.tokens_BT[b, : len(prompt) + len(own)].tolist())
            wrong += row != prompt + own or not torch.equal(part.mask_BT[b], expected_T)
    if wrong:
        fix = "build the mask from lengths: first token after the prompt to the stop token"
        return fail(f"{wrong} completions whose mask is not exactly their tokens", fix)
    tokens = sum(part.num_tokens for part in trial.parts)
    return ok(f"it has exactly the {tokens} tokens that were drawn")


@checks
def stopping(trial: Trial) -> Finding:
    """A completion's `finish` is right: `stop` ends with a stop token, `length` is at the limit.

    A stop token that was added to a truncated completion trains the policy on a token that it did
    not draw.
    """
    stops, limit = set(trial.tokenizer.stop_ids), trial.cfg.rollout.max_new_tokens
    wrong = ended = total = 0
    for completion in completions(trial):
        tokens = completion.tokens
        inside = any(token in stops for token in tokens[:-1])
        last = bool(tokens) and tokens[-1] in stops
        full = len(tokens) == limit
        wrong += inside or last != (completion.finish == "stop") or not (last or full)
        ended, total = ended + last, total + 1
    if wrong:
        fix = "record how a completion ended, add no stop token to a truncated one"
        return fail(f"{wrong} of {total} completions did not end as `finish` says", fix)
    return ok(f"{ended} of {total} completions end with their stop token, the others are truncated")


@checks
def text(trial: Trial) -> Finding:
    """The graded text is decoded from the tokens that are trained, and the policy drew these.

    Text that is tokenized again may have other tokens, with other log-probs.
    """
    drawn = list(completions(trial))
    wrong = sum(c.text != trial.tokenizer.decode(c.tokens) for c in drawn)
    if wrong:
        fix = "decode once, from the drawn tokens; never encode a completion again"
        return fail(f"{wrong} completions whose text is not that of their tokens", fix)
    stale_rows = sum(c.version != trial.report.version - 1 for c in drawn)
    if stale_rows:
        fix = "hand every new version to the engine before the next rollout"
        return fail(
            f"{stale_rows} completions of another version than the one that is trained", fix
        )
    return ok("each text is that of its tokens, drawn by this version")


@checks
def answers(trial: Trial) -> Finding | None:
    """The base model answers in the format that is graded; else no completion has a reward."""
    if trial.task != "countdown":
        return None
    answered = [read_answer(c.text).text is not None for c in completions(trial)]
    share = sum(answered) / len(answered)
    message = f"{share:.0%} of the completions have an answer"
    if share < FEW_ANSWERS:
        fix = (
            "a template that the base was trained on (task.template), or supervised training first"
        )
        return (fail if share == 0 else warn)(message, fix)
    return ok(message)


# -- advantages and update ---------------------------------------------------------------------


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


def check_first_step(trial: Trial) -> list[Finding]:
    """The findings of these checks, and of the run's checks that one row of metrics is enough
    for."""
    findings = checks.run(trial)
    names = {finding.check for finding in findings}
    config = trial.cfg.model_dump(mode="json")
    return findings + [f for f in first_step_findings(trial.row, config) if f.check not in names]
