"""A recipe's first step, judged: are its log-probs, masks, credits and updates what they seem?

Trap numbers are those of the survey in docs/doctor.md. A silent fault of this kind leaves every
curve plausible, which is why each is measured here rather than guessed from a curve later.
"""

import math
from collections.abc import Iterator

import torch

from aha.algo.algorithms import chosen_of, method_of
from aha.core.findings import Checklist, Finding, fail, ok, warn
from aha.core.records import Completion
from aha.doctor.first_step_trial import Gap, Trial
from aha.doctor.run_checks import first_step
from aha.tasks.tags import read_answer

checks = Checklist()

# Mean gap in nats a token: worth a word, broken. bf16 keeps 8 bits, and its gaps reach .01.
EXACT, ROUNDED = (1e-4, 1e-2), (0.05, 0.2)
HUGE_STEP = 0.05  # of the weights' norm, in one step
RARELY = 0.05  # share of completions with an answer


def bounds(trial: Trial) -> tuple[float, float]:
    return EXACT if trial.exact else ROUNDED


def shown(gap: Gap) -> str:
    return f"{gap.mean:.2g} nats a token, ratios {gap.low:.3f} to {gap.high:.3f}"


def judged(gap: Gap, edges: tuple[float, float], what: str, fix: str) -> Finding:
    saw = f"{what}: {shown(gap)}"
    if not gap.mean <= edges[0]:  # NaN as well
        return (warn if gap.mean <= edges[1] else fail)(saw, fix)
    return ok(saw)


def completions(trial: Trial) -> Iterator[Completion]:
    return (one.completion for group in trial.report.groups for one in group)


def has_credit(trial: Trial) -> bool:
    return any(credit != 0 for credits in trial.report.advantages for credit in credits)


# -- log-probs --------------------------------------------------------------------------------


@checks
def ratio(trial: Trial) -> Finding:
    """At version 0 the policy is itself: its ratio is 1 and its KL 0 (traps T17, T18)."""
    fix = "the forward pass is left to chance: no dropout, eval mode, a deterministic attention"
    return judged(trial.repeat, (1e-6, 1e-3), "the trainer against itself", fix)


@checks
def packing(trial: Trial) -> Finding:
    """What else is in the batch must not matter (traps T19, T21)."""
    fix = (
        "a token sees other rows or padding, or positions shift: see the layout and the causal mask"
    )
    return judged(trial.packing, bounds(trial), "among others against alone", fix)


@checks
def mismatch(trial: Trial) -> Finding:
    """The engine's recorded log-probs are those of the policy that is trained (traps T15-T17)."""
    fix = (
        "one temperature for both, log-probs after it, no top-k or top-p; "
        "--rollout.dtype float32 --optim.dtype float32 or --algo.correction token_tis"
    )
    return judged(trial.engine, bounds(trial), "engine against trainer", fix)


@checks
def reference(trial: Trial) -> Finding | None:
    """The reference is the policy at version 0, so its KL is 0."""
    if trial.reference is None:
        return None
    fix = "copy the reference from the policy, and read it in the same type and temperature"
    return judged(trial.reference, (1e-6, 1e-3), "policy against reference", fix)


@checks
def stale(trial: Trial) -> Finding:
    """An engine that keeps old weights, or a cache of theirs, trains on another policy's text."""
    new, old = trial.republished
    saw = f"after new weights, engine and policy are {new.mean:.2g} nats apart, old {old.mean:.2g}"
    if not new.mean <= max(0.5 * old.mean, bounds(trial)[0]):
        return fail(saw, "`load` must replace every weight, and clear caches of keys and prefixes")
    return ok(saw)


@checks
def steady(trial: Trial) -> Finding:
    if not trial.steady:
        return warn(
            "the same seed drew other tokens", "a run cannot be repeated: draw by seed alone"
        )
    return ok("the same seed draws the same tokens")


# -- tokens and text --------------------------------------------------------------------------


@checks
def mask(trial: Trial) -> Finding:
    """1 exactly on the completion's own tokens, its stop token included (trap T20)."""
    wrong = 0
    for part, rows in zip(trial.parts, trial.rows, strict=True):
        for b, one in enumerate(rows):
            prompt, own = one.completion.prompt.tokens, one.completion.tokens
            wanted = torch.zeros_like(part.mask_BT[b])
            first = len(prompt) - part.start
            wanted[first : first + len(own)] = 1.0
            row = tuple(part.tokens_BT[b, : len(prompt) + len(own)].tolist())
            wrong += row != prompt + own or not torch.equal(part.mask_BT[b], wanted)
    if wrong:
        fix = "build the mask from lengths: first token after the prompt to the stop token"
        return fail(f"{wrong} completions whose mask is not exactly their tokens", fix)
    tokens = sum(part.num_tokens for part in trial.parts)
    return ok(f"it covers {tokens} tokens, exactly those that were drawn")


@checks
def stopping(trial: Trial) -> Finding:
    """`stop` ends with one stop token, `length` has none and is full (traps T26, T28)."""
    stops, limit = set(trial.tokenizer.stop_ids), trial.cfg.rollout.max_new_tokens
    odd = ended = total = 0
    for one in completions(trial):
        inside = any(token in stops for token in one.tokens[:-1])
        last = bool(one.tokens) and one.tokens[-1] in stops
        full = len(one.tokens) == limit
        odd += inside or last != (one.finish == "stop") or not (last or full)
        ended, total = ended + last, total + 1
    if odd:
        fix = "record how a completion ended, add no stop token to one that was cut off"
        return fail(f"{odd} of {total} completions did not end as they say", fix)
    return ok(f"{ended} of {total} completions end with their stop token, the others are cut off")


@checks
def text(trial: Trial) -> Finding:
    """Text is decoded from the tokens that are trained, of this very version (trap T25)."""
    found = list(completions(trial))
    odd = sum(one.text != trial.tokenizer.decode(one.tokens) for one in found)
    if odd:
        fix = "decode once, from the drawn tokens; never encode a completion again"
        return fail(f"{odd} completions whose text is not that of their tokens", fix)
    late = sum(one.version != trial.report.version - 1 for one in found)
    if late:
        fix = "hand every new version to the engine before the next rollout"
        return fail(f"{late} completions of another version than the one that is trained", fix)
    return ok("each text is that of its tokens, drawn by this version")


@checks
def answers(trial: Trial) -> Finding | None:
    """A base that never answers in the form that is graded cannot be paid for anything."""
    if trial.task != "countdown":
        return None
    found = [read_answer(one.text).text is not None for one in completions(trial)]
    share = sum(found) / len(found)
    saw = f"{share:.0%} of the completions hold an answer"
    if share < RARELY:
        fix = "a template the base knows (task.template), or first imitate worked answers"
        return (fail if share == 0 else warn)(saw, fix)
    return ok(saw)


# -- credit and update ------------------------------------------------------------------------


@checks
def credit(trial: Trial) -> Finding:
    """Advantages are numbers, and none where a whole group earned the same (trap T3)."""
    rows = trial.report.advantages
    if not all(math.isfinite(credit) for credits in rows for credit in credits):
        return fail("an advantage that is no number", "see the advantage's division by deviation")
    flat = [
        credits
        for credits, group in zip(rows, trial.report.groups, strict=True)
        if len(group) > 1 and len({one.reward for one in group}) == 1
    ]
    # Without a group baseline, with a critic or with other terms in the reward, flat groups teach.
    as_graded = not chosen_of(trial.cfg.algo).overlong.facts.changes_rewards
    if method_of(trial.cfg).flat_is_zero and as_graded:
        paid = sum(any(credit != 0 for credit in credits) for credits in flat)
        if paid:
            fix = "test a group's smallest reward against its largest, and give exactly 0"
            return fail(f"{paid} groups of equal rewards have advantages", fix)
    return ok(f"advantages are finite; {len(flat)} of {len(rows)} groups earned all the same")


@checks
def gradient(trial: Trial) -> Finding | None:
    norm = trial.row.get("grad_norm")
    if norm is None:
        return None
    if not math.isfinite(norm):
        return fail(f"a gradient norm of {norm}", "a lower optim.lr, float32")
    if norm == 0:
        why = "although groups differ" if has_credit(trial) else "every group earned all the same"
        fix = "see `informative`" if not has_credit(trial) else "see the loss and its mask"
        return fail(f"the gradient is exactly 0: {why}", fix)
    return ok(f"gradient norm {norm:.3g}")


@checks
def moves(trial: Trial) -> Finding | None:
    """The step reaches every tensor, and is neither lost in rounding nor a leap (trap T29)."""
    moved = trial.moved
    if not trial.row.get("grad_norm") or not math.isfinite(trial.row["grad_norm"]):
        return None
    saw = f"the step moves {moved.share:.1%} of the weights by {moved.size:.1g} of their size"
    if moved.share < 0.5:
        return (fail if moved.share < 0.05 else warn)(
            saw, "a higher optim.lr: steps this small are lost in rounding; or weights are frozen"
        )
    if not moved.size <= HUGE_STEP:
        return warn(f"{saw}: a leap", "a lower optim.lr, or a longer optim.warmup")
    return ok(saw)


@checks
def frozen(trial: Trial) -> Finding | None:
    """A tensor that no gradient reaches is not part of the policy that is trained."""
    still = trial.moved.still
    if not trial.moved.share:
        return None
    if still:
        fix = "give every parameter to the optimiser, and cut no graph with detach or no_grad"
        return warn(f"{len(still)} tensors do not move: {', '.join(still[:3])}", fix)
    return ok("every tensor moves")


@checks
def direction(trial: Trial) -> Finding | None:
    """After the step, what was paid for is likelier: a sign is easily lost (trap T14)."""
    if trial.gain is None or method_of(trial.cfg).critic:
        return None
    saw = f"advantage x rise of the log-prob: {trial.gain:+.2g} a token"
    if not trial.gain > 0:
        fix = "the step makes what is paid for rarer: the sign of the loss; or a lower optim.lr"
        return fail(saw, fix)
    return ok(saw)


@checks
def lr_zero(trial: Trial) -> Finding:
    """With a rate of 0 nothing may move: else something besides the gradient does."""
    if trial.idle.share:
        fix = "weight decay apart from the rate, or weights written outside the optimiser"
        return fail(f"a step with lr 0 moves {trial.idle.share:.1%} of the weights", fix)
    return ok("a step with lr 0 moves nothing")


def judge(trial: Trial) -> list[Finding]:
    """These findings, and what a run's records say of the same step."""
    found = checks.run(trial)
    met = {finding.check for finding in found}
    config = trial.cfg.model_dump(mode="json")
    return found + [f for f in first_step(trial.row, config) if f.check not in met]
