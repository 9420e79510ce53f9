"""The audit of a reward: does a task pay for cheats, and for right answers?

`audit_cases` makes the texts, `audit` has the task grade them, and the checks read the grades.
Grading runs in another process: an expression such as 9**9**9**9 never returns, and no thread could
stop it, because it holds Python's lock. An isolated task has one already. Its faults come as
grades, and are read as faults here.
"""

import math
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

from aha.core.findings import Checklist, Finding, fail, ok, warn
from aha.core.records import Graded, Problem
from aha.tasks.audit_cases import AuditCase, cheats_for, right_for, solved_by
from aha.tasks.isolation import IsolatedTask
from aha.tasks.protocol import Task
from aha.tasks.wording import unworded

# -- grading the texts ------------------------------------------------------------------------

PATIENCE_S = 20.0  # wall seconds until a text counts as one that hangs
SLOW_S = 0.5  # of the processor, or of the wall twice
MAX_HANGS = 3
SHOWN = 4
PAID_IN_FULL = 0.5  # at this reward a cheat pays as an answer does


@dataclass(frozen=True)
class GradedText:
    """The grade of one text. If `fault` says why there is none, the rest has no meaning."""

    name: str
    reward: float = 0.0
    correct: bool = False
    seconds: float = 0.0  # see `grade_twice`
    fault: str = ""
    steady: bool = True  # the same grade twice
    hangs: bool = False
    form: float = 0.0  # of the reward, what the recipe pays for form on purpose
    reason: str = ""  # of the grade

    @property
    def has_verdict(self) -> bool:
        """Whether there is a grade."""
        return not (self.fault or self.hangs)

    @property
    def is_paid(self) -> bool:
        """Whether it has the reward of a right answer."""
        return self.has_verdict and self.correct and self.reward >= PAID_IN_FULL


@dataclass(frozen=True)
class Audit:
    """The graded texts. `cheats` must get no reward; `right` (of known tasks) and `solved` (by the
    task itself) must get the full one. `unsolved` says why there are none of the last."""

    cheats: list[GradedText]
    right: list[GradedText]
    solved: list[GradedText]
    unsolved: Finding | None

    @property
    def all(self) -> list[GradedText]:
        """Every text that was graded."""
        return [*self.cheats, *self.right, *self.solved]

    @property
    def is_blind(self) -> bool:
        """Whether no text at all has a verdict: then no check of rewards can say anything."""
        return not any(text.has_verdict for text in self.all)


def audit(task: Task, seed: int = 0, patience_s: float = PATIENCE_S) -> Audit:
    """Grade every cheat, on the first problem of the task's training split, and right answers."""
    problem = next(iter(islice(task.problems("train", seed), 1)))
    cheats, right = cheats_for(problem, str(task.ask(problem))), right_for(problem)
    solved, unsolved = solved_by(task, seed)
    cases = cheats + right + solved
    if isinstance(unworded(task), IsolatedTask):
        graded = list(grade_in_turn(task, cases))
    else:
        graded = list(grade_in_process(task, cases, patience_s))
    first, last = len(cheats), len(cheats) + len(right)
    return Audit(graded[:first], graded[first:last], graded[last:], unsolved)


def grade_in_turn(task: Task, cases: list[AuditCase]) -> Iterator[GradedText]:
    """The outcomes in order, of a task that has its own process and time limit."""
    hangs = 0
    for name, problem, text in cases:
        if hangs < MAX_HANGS:
            graded = grade_twice(task, name, problem, text)
            hangs += graded.hangs
            yield graded
        else:
            yield GradedText(name, fault=f"not tried, after {MAX_HANGS} that hang")


def grade_in_process(task: Task, cases: list[AuditCase], patience_s: float) -> Iterator[GradedText]:
    """The outcomes in order, graded in another process.

    A text that takes more than `patience_s` seconds ends the process, and another one goes on with
    the next text. After `MAX_HANGS` of them the rest is not tried.
    """
    forks = "fork" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("fork") if forks else multiprocessing.get_context("spawn")
    index = hangs = 0
    while index < len(cases) and hangs < MAX_HANGS:
        ours, theirs = context.Pipe(duplex=False)
        worker = context.Process(target=grade_all, args=(task, cases[index:], theirs), daemon=True)
        worker.start()
        theirs.close()
        try:
            while index < len(cases) and ours.poll(patience_s):
                yield ours.recv()
                index += 1
        except EOFError:  # it died: out of memory, or a crash in foreign code
            yield GradedText(cases[index].name, fault="the process that graded it died")
            index += 1
        else:
            if index < len(cases):
                yield GradedText(cases[index].name, hangs=True)
                index, hangs = index + 1, hangs + 1
        worker.kill()
        worker.join()
    for case in cases[index:]:
        yield GradedText(case.name, fault=f"not tried, after {MAX_HANGS} that hang")


def grade_all(task: Task, cases: list[AuditCase], pipe: "Connection[Any, Any]") -> None:
    """In the other process: grade the texts and send the outcomes one by one."""
    for name, problem, text in cases:
        pipe.send(grade_twice(task, name, problem, text))


def grade_twice(task: Task, name: str, problem: Problem, text: str) -> GradedText:
    """One text graded twice. `seconds` is the mean of this process, or the shorter wall time where
    that is more: an isolated grader computes elsewhere, and may wait."""
    started, grades, walls = time.process_time(), [], []
    for _ in range(2):
        begun = time.monotonic()
        try:
            graded = task.grade(problem, text)
        except Exception as error:  # no text may make a reward raise, whatever the exception
            return GradedText(name, fault=f"raised {type(error).__name__}: {error}"[:120])
        walls.append(time.monotonic() - begun)
        if isinstance(graded, Graded) and graded.parts.get("grade_timeout"):
            return GradedText(name, seconds=walls[-1], hangs=True, reason=graded.reason)
        if fault := fault_of(graded):
            return GradedText(name, seconds=walls[-1], fault=fault)
        grades.append(graded)
    seconds = max((time.process_time() - started) / 2, min(walls))
    first, again = grades
    steady = (first.reward, first.correct) == (again.reward, again.correct)
    # R1's format reward is paid whether or not the answer is right: a choice of the recipe, so it
    # is reported as such and is no leak.
    for_form = getattr(task, "format_reward", 0.0)
    form = for_form * first.parts.get("format", 0.0) if for_form else 0.0
    return GradedText(
        name,
        float(first.reward),
        bool(first.correct),
        seconds,
        steady=steady,
        form=form,
        reason=first.reason,
    )


def fault_of(graded: object) -> str:
    """Why the result of a grader is no grade; empty if it is one."""
    if not isinstance(graded, Graded):
        return f"returned {type(graded).__name__}, not Graded"
    if isinstance(graded.reward, bool) or not isinstance(graded.reward, int | float):
        return f"a reward that is no number: {graded.reward!r}"[:80]
    if not math.isfinite(graded.reward):
        return f"a reward of {graded.reward}"
    if not isinstance(graded.reason, str):
        return f"a reason that is no text: {type(graded.reason).__name__}"
    if graded.parts.get("grade_error"):
        return graded.reason
    return ""


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


# -- the checks -----------------------------------------------------------------------------

checks = Checklist()


@checks
def reward_paid(report: Audit) -> Finding | None:
    """No cheat gets a reward. RL finds every such text: the policy would learn to write it."""
    cheats = [text for text in report.cheats if text.has_verdict]
    if not cheats:
        return None
    paid = [text for text in cheats if text.reward > text.form + 1e-9 or text.correct]
    paid.sort(key=lambda text: -text.reward)
    tried, formed = f"{len(cheats)} cheats", sum(text.form > 0 for text in cheats)
    if not paid:
        but = f" but for the form that task.format_reward asks for ({formed})" if formed else ""
        return ok(f"{tried}, none of them paid{but}")
    names = listed([f"{text.name} ({text.reward:g})" for text in paid])
    message = f"{len(paid)} of {tried} are paid: {names}"
    if any(text.correct or text.reward >= PAID_IN_FULL for text in paid):
        return fail(message, "mend `grade`; for Countdown use task.verifier 'strict'")
    return warn(message, "pay for form only while the base lacks it, and at most 0.1")


@checks
def reward_right(report: Audit) -> Finding | None:
    """Right answers get their reward. Otherwise there is nothing to learn from."""
    right = [text for text in report.right if text.has_verdict]
    if not right:
        return None
    missed = [text.name for text in right if not text.is_paid]
    if missed:
        message = f"right answers that are not paid: {listed(missed)}"
        return fail(message, "mend `grade`; for Countdown use task.verifier 'strict'")
    return ok(f"{len(right)} right answers in unusual forms, all paid")


@checks
def reward_solved(report: Audit) -> Finding | None:
    """What the task itself calls right is paid: the positive control of its reward."""
    if report.unsolved:
        return report.unsolved
    solved = [text for text in report.solved if text.has_verdict]
    missed = [f"{t.name} ({t.reward:g}: {t.reason:.60})" for t in solved if not t.is_paid]
    if missed:
        message = f"{len(missed)} of {len(solved)} right completions by the task itself are not"
        return fail(f"{message} paid: {listed(missed)}", "mend `grade`, or `solve`")
    if not solved:
        return None
    return ok(f"{len(solved)} right completions by the task itself, all paid")


@checks
def reward_valid(report: Audit) -> Finding:
    """Any text gets a reward, never an error."""
    bad = [f"{text.name} ({text.fault})" for text in report.all if text.fault]
    if bad:
        fix = "`grade` must return Graded with a finite reward for any text"
        return fail(f"{len(bad)} texts without a verdict: {listed(bad)}", fix)
    return ok(f"{len(report.all)} texts, a finite reward for each")


@checks
def reward_quick(report: Audit) -> Finding | None:
    """Grading is quick. One completion whose grading hangs would stop the run."""
    hang = [text.name for text in report.all if text.hangs]
    if hang:
        fix = "parse with limits on length, depth and size; never `eval`"
        return fail(f"grading hangs on: {listed(hang)}", fix)
    texts = [text for text in report.all if text.has_verdict]
    slow = [f"{text.name} ({text.seconds:.1f} s)" for text in texts if text.seconds > SLOW_S]
    if slow:
        return warn(f"slow to grade: {listed(slow)}", "make `grade` linear in the text")
    if not texts:
        return None
    return ok(f"the slowest text took {max(t.seconds for t in texts) * 1000:.1f} ms")


@checks
def reward_steady(report: Audit) -> Finding | None:
    """The same text gets the same grade. Otherwise differences within a group are noise."""
    if report.is_blind:
        return None
    unsteady = [text.name for text in report.all if not text.steady]
    if unsteady:
        message = f"graded differently the second time: {listed(unsteady)}"
        return fail(message, "no chance in `grade`")
    return ok("the same verdict twice")
