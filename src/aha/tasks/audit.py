"""The audit of a reward: cheats and garbage through a task's own `grade`, under a time limit.

Grading happens in a process of its own: one power of powers holds Python's lock for ever, and no
thread could stop it.
"""

import math
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from aha.core.findings import Checklist, Finding, fail, ok, warn
from aha.core.records import Graded, Problem
from aha.tasks.cheats import right_for, texts_for
from aha.tasks.protocol import Task

checks = Checklist()

PATIENCE_S = 20.0  # wall seconds until a text counts as one that hangs
SLOW_S = 0.5  # processor seconds
MAX_HANGS = 3
SHOWN = 4
PAID_IN_FULL = 0.5  # at this reward a cheat pays as an answer does


@dataclass(frozen=True)
class GradedText:
    """What one text earned. `fault` says why the verdict itself is none."""

    name: str
    reward: float = 0.0
    correct: bool = False
    seconds: float = 0.0  # of the processor
    fault: str = ""
    steady: bool = True  # the same verdict twice
    hangs: bool = False
    form: float = 0.0  # of the reward, what the recipe pays for form on purpose


@dataclass(frozen=True)
class Audit:
    """`cheats` deserve nothing, `right` deserve all; the latter only for tasks that are known."""

    cheats: list[GradedText]
    right: list[GradedText]

    @property
    def all(self) -> list[GradedText]:
        return [*self.cheats, *self.right]


def audit(task: Task, seed: int = 0, patience_s: float = PATIENCE_S) -> Audit:
    """Grade every cheat, on the first problem of the task's training split."""
    problem = next(iter(islice(task.problems("train", seed), 1)))
    cheats, right = texts_for(problem, str(task.ask(problem))), right_for(problem)
    verdicts = list(grade_apart(task, cheats + right, patience_s))
    return Audit(verdicts[: len(cheats)], verdicts[len(cheats) :])


def grade_apart(task: Task, texts: list, patience_s: float) -> Iterator[GradedText]:
    """Verdicts in order. A text that hangs ends its process, and the next one begins another."""
    kinds = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork" if "fork" in kinds else "spawn")
    place = hangs = 0
    while place < len(texts) and hangs < MAX_HANGS:
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=grade_all, args=(task, texts[place:], theirs), daemon=True)
        worker.start()
        theirs.close()
        try:
            while place < len(texts) and ours.poll(patience_s):
                yield ours.recv()
                place += 1
        except EOFError:  # it died: out of memory, or a crash in foreign code
            yield GradedText(texts[place][0], fault="the process that graded it died")
            place += 1
        else:
            if place < len(texts):
                yield GradedText(texts[place][0], hangs=True)
                place, hangs = place + 1, hangs + 1
        worker.kill()
        worker.join()
    for name, *_ in texts[place:]:
        yield GradedText(name, fault=f"not tried, after {MAX_HANGS} that hang")


def grade_all(task: Task, texts: list, pipe) -> None:
    for name, problem, text in texts:
        pipe.send(verdict_on(task, name, problem, text))


def verdict_on(task: Task, name: str, problem: Problem, text: str) -> GradedText:
    """One text graded twice."""
    started = time.process_time()
    try:
        first, again = (task.grade(problem, text) for _ in range(2))
    except Exception as error:  # whatever a stranger's reward raises, it must not
        return GradedText(name, fault=f"raised {type(error).__name__}: {error}"[:120])
    seconds = (time.process_time() - started) / 2
    fault = fault_of(first) or fault_of(again)
    if fault:
        return GradedText(name, seconds=seconds, fault=fault)
    steady = (first.reward, first.correct) == (again.reward, again.correct)
    # R1 pays for form whether or not the answer is right: a choice, and told as one.
    for_form = getattr(task, "format_reward", 0.0)
    form = for_form * first.parts.get("format", 0.0) if for_form else 0.0
    return GradedText(
        name, float(first.reward), bool(first.correct), seconds, steady=steady, form=form
    )


def fault_of(judged: object) -> str:
    """Why this is no verdict; empty if it is one."""
    if not isinstance(judged, Graded):
        return f"returned {type(judged).__name__}, not Graded"
    if isinstance(judged.reward, bool) or not isinstance(judged.reward, int | float):
        return f"a reward that is no number: {judged.reward!r}"[:80]
    if not math.isfinite(judged.reward):
        return f"a reward of {judged.reward}"
    if not isinstance(judged.reason, str):
        return f"a reason that is no text: {type(judged.reason).__name__}"
    return ""


def some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


# -- what it means --------------------------------------------------------------------------


@checks
def reward_paid(found: Audit) -> Finding:
    """RL finds every hole: what is paid here is what the policy will write."""
    paid = [v for v in found.cheats if v.reward > v.form + 1e-9 or v.correct]
    paid.sort(key=lambda v: -v.reward)
    tried, formed = f"{len(found.cheats)} cheats", sum(v.form > 0 for v in found.cheats)
    if not paid:
        but = f" but for the form that task.format_reward asks for ({formed})" if formed else ""
        return ok(f"{tried}, none of them paid{but}")
    listed = some([f"{v.name} ({v.reward:g})" for v in paid])
    saw = f"{len(paid)} of {tried} are paid: {listed}"
    if any(v.correct or v.reward >= PAID_IN_FULL for v in paid):
        return fail(saw, "mend `grade`; for Countdown use task.verifier 'strict'")
    return warn(saw, "pay for form only while the base lacks it, and at most 0.1")


@checks
def reward_right(found: Audit) -> Finding | None:
    """A right answer that earns nothing is the costliest fault of all."""
    if not found.right:
        return None
    missed = [v.name for v in found.right if v.reward < PAID_IN_FULL or not v.correct]
    if missed:
        saw = f"right answers that are not paid: {some(missed)}"
        return fail(saw, "mend `grade`; for Countdown use task.verifier 'strict'")
    return ok(f"{len(found.right)} right answers in odd clothes, all paid")


@checks
def reward_valid(found: Audit) -> Finding:
    """Any text at all gets a reward, never an error."""
    bad = [f"{v.name} ({v.fault})" for v in found.all if v.fault]
    if bad:
        fix = "`grade` must return Graded with a finite reward for any text"
        return fail(f"{len(bad)} texts without a verdict: {some(bad)}", fix)
    return ok(f"{len(found.all)} texts, a finite reward for each")


@checks
def reward_quick(found: Audit) -> Finding:
    """One completion that hangs stops the whole run."""
    hang = [v.name for v in found.all if v.hangs]
    if hang:
        fix = "parse with limits on length, depth and size; never `eval`"
        return fail(f"grading hangs on: {some(hang)}", fix)
    slow = [f"{v.name} ({v.seconds:.1f} s)" for v in found.all if v.seconds > SLOW_S]
    if slow:
        return warn(f"slow to grade: {some(slow)}", "make `grade` linear in the text")
    return ok(f"the slowest text took {max(v.seconds for v in found.all) * 1000:.1f} ms")


@checks
def reward_steady(found: Audit) -> Finding:
    """The same text, the same verdict: else a group's comparison is noise."""
    moody = [v.name for v in found.all if not v.steady]
    if moody:
        return fail(f"graded differently the second time: {some(moody)}", "no chance in `grade`")
    return ok("the same verdict twice")
