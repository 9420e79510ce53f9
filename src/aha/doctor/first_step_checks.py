"""Checks of a recipe's first step: are log-probs, draws, masks and texts right?

With a fault of this kind every curve still looks plausible, so each is measured here. The checks of
advantages and of the update are in `update_checks`.
"""

from collections.abc import Iterator

import torch

from aha.core.errors import RunStopped
from aha.core.findings import Checklist, Finding, fail, failure_of, ok, warn
from aha.core.records import Completion
from aha.doctor import update_checks
from aha.doctor.first_step_trial import LogprobGap, Trial, run_trial
from aha.doctor.run_checks import first_step_findings
from aha.tasks.tags import read_answer
from aha.training.draw_checks import check_draws
from aha.training.recipe_fit import nothing_solved
from aha.training.rl import RLTrainer

checks = Checklist()

# Mean gap in nats a token: the bounds of a warning and of a failure, for float32 and for others.
# bf16 keeps 8 bits, and its gaps reach .01.
EXACT, ROUNDED = (1e-4, 1e-2), (0.05, 0.2)
SAME = (1e-6, 1e-3)  # for two values of the same computation
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
def recomputed(trial: Trial) -> Finding:
    """The engine's recorded log-probs are those of the policy that is trained, computed again.

    Causes of a gap: another temperature, top-k or top-p, another number type, old weights.
    """
    fix = (
        "one temperature for both, log-probs after it, no top-k or top-p; "
        "--rollout.dtype float32 --optim.dtype float32 or --algo.correction token_tis"
    )
    return check_gap(trial.engine, bounds(trial), "engine against the policy, computed again", fix)


@checks
def mismatch(trial: Trial) -> Finding | None:
    """The trainer itself computes these log-probs too: the mismatch that its update has reported.

    Where it is large although `recomputed` is not, the fault is in the trainer's forward pass.
    """
    gap = trial.row.get("mismatch")
    if gap is None:
        return None
    message = f"engine against trainer, as the update measured it: {gap:.2g} nats a token"
    low, high = bounds(trial)
    if gap <= low:
        return ok(message)
    if not trial.engine.mean <= low:
        return (warn if gap <= high else fail)(message, "see `recomputed`")
    fix = (
        "the trainer's own pass: the rollout's temperature, targets that are not shifted, "
        "positions and masks as in `token_logprobs`"
    )
    return fail(f"{message}, computed again {trial.engine.mean:.2g}", fix)


@checks
def drawing(trial: Trial) -> Finding:
    """Tokens are drawn from the policy: the mean of -log p is then its entropy, but for chance.

    The sign says which way a rule that is not recorded has gone.
    """
    return check_draws(trial.draws.gap, trial.draws.z, trial.report.numbers["entropy"])


@checks
def reference(trial: Trial) -> Finding | None:
    """The reference is the policy at version 0: the KL to it is 0 there, and not at version 1."""
    if trial.reference is None:
        return None
    fix = "copy the reference from the policy; compute it in the same type and temperature"
    finding = check_gap(trial.reference, SAME, "policy against reference", fix)
    stayed = trial.reference_after
    if finding.level == "ok" and stayed is not None and not stayed.mean <= SAME[0]:
        message = f"the reference moves with the policy: {stayed.mean:.2g} nats in one step"
        return fail(message, "a copy of the weights, not the policy itself")
    return finding


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
    stops, limit = set(trial.tokenizer.stop_ids), trial.cfg.training_limit
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


@checks
def base_solves(trial: Trial) -> Finding:
    """The base solves some of the problems: without a reward that differs nothing is learned."""
    graded = [one for group in trial.report.groups for one in group]
    right, rewards = sum(one.correct for one in graded), [one.reward for one in graded]
    ended = sum(one.completion.finish == "stop" for one in graded)
    finding = nothing_solved(rewards, right, 1 - ended / len(graded))
    return finding or ok(f"the base solves {right} of {len(graded)} tries")


def try_first_step(trainer: RLTrainer) -> list[Finding]:
    """Make the first step of a new trainer and look at it. A step that cannot be finished, because
    a number is none, is one failure."""
    try:
        trial = run_trial(trainer)
    except RunStopped as fault:
        return [failure_of(fault)]
    return check_first_step(trial)


def check_first_step(trial: Trial) -> list[Finding]:
    """The findings of these checks, of those of the update, and of the run's checks that one row of
    metrics is enough for."""
    findings = checks.run(trial) + update_checks.checks.run(trial)
    names = {finding.check for finding in findings}
    config = trial.cfg.model_dump(mode="json")
    return findings + [f for f in first_step_findings(trial.row, config) if f.check not in names]
