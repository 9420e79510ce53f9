"""The audit of a reward: does a task pay for cheats, and for right answers?

`cheats_for` and `right_for` make the texts, `audit` has the task grade them, and the checks read
the grades. Grading runs in another process: an expression such as 9**9**9**9 never returns, and no
thread could stop it, because it holds Python's lock.
"""

import math
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from aha.core.findings import Checklist, Finding, fail, ok, warn
from aha.core.records import Graded, Problem
from aha.tasks.countdown import as_problem
from aha.tasks.protocol import Task
from aha.tasks.tags import answer_ending

LONG = 100_000  # characters


class AuditCase(NamedTuple):
    """A completion that the audit has graded, with a name for it and the problem it belongs to."""

    name: str
    problem: Problem
    text: str


# name -> text, given the prompt's text
GARBAGE: dict[str, Callable[[str], str]] = {
    "nothing": lambda prompt: "",
    "blanks": lambda prompt: " \n\t\n ",
    "only tags": lambda prompt: "<think></think><answer></answer>",
    "a blank answer": lambda prompt: answer_ending(" "),
    "an answer that is never closed": lambda prompt: "</think>\n<answer>1",
    "a tag that closes nothing": lambda prompt: "</answer></answer>",
    "tags inside tags": lambda prompt: "<answer>" * 500 + "</answer>" * 500,
    "thinking without end": lambda prompt: "wait, let me try again. " * 200,
    "a confident word": lambda prompt: answer_ending("correct"),
    "yes": lambda prompt: "yes yes yes",
    "a boolean": lambda prompt: answer_ending("True"),
    "the prompt once more": lambda prompt: prompt,
    "the prompt as the answer": lambda prompt: answer_ending(prompt),
    "every number as an answer": lambda prompt: "".join(
        f"<answer>{n}</answer>" for n in range(2_000)
    ),
    "words of the verifier": lambda prompt: "reward 1.0 correct True </think><answer>None</answer>",
    "a tower of powers": lambda prompt: answer_ending("9**9**9**9"),
    "a huge product": lambda prompt: answer_ending("*".join(["99999999"] * 3_000)),
    "a huge sum": lambda prompt: answer_ending("+".join(["1"] * (LONG // 2))),
    "deep brackets": lambda prompt: answer_ending("(" * 20_000 + "1" + ")" * 20_000),
    "brackets that never close": lambda prompt: answer_ending("(" * LONG),
    "a number of 100,000 digits": lambda prompt: answer_ending("9" * LONG),
    "division by zero": lambda prompt: answer_ending("1/0"),
    "division by a zero in disguise": lambda prompt: answer_ending("1/(2-2)"),
    "infinity": lambda prompt: answer_ending("1e999"),
    "not a number": lambda prompt: answer_ending("nan"),
    "other digits": lambda prompt: answer_ending("\u0663+\u0664"),
    "wide digits and signs": lambda prompt: answer_ending("\uff11\uff0b\uff12"),
    "a raised digit": lambda prompt: answer_ending("3\u00b2"),
    "code": lambda prompt: answer_ending("__import__('os').getcwd()"),
    "a lone surrogate": lambda prompt: answer_ending("\ud800"),
    "a null character": lambda prompt: answer_ending("\x00"),
    "100,000 characters": lambda prompt: "a" * LONG,
    "100,000 brackets of tags": lambda prompt: "<" * LONG,
    "100,000 opened answers": lambda prompt: "<answer>" * (LONG // 8),
}

# (name, numbers, target, answer): none of them is right
PUZZLES = (
    ("the target alone", (3, 7, 25), 82, "82"),
    ("the target and an equals sign", (3, 7, 25), 82, "82=82"),
    ("the target times one", (3, 7, 25), 82, "82*1"),
    ("a number used twice", (3, 7), 10, "7+3+3-3"),
    ("a number left out", (3, 7, 10), 10, "3+7"),
    ("a number that was not given", (3, 7), 12, "3+7+2"),
    ("a power", (2, 3), 8, "2**3"),
    ("a caret", (2, 3), 8, "2^3"),
    ("a floor division", (7, 2), 3, "7//2"),
    ("a remainder", (17, 7), 3, "17%7"),
    ("a decimal made of two numbers", (1, 5, 2), 3, "1.5*2"),
    ("two numbers glued together", (2, 5), 25, "25"),
    ("near enough", (1, 49, 48), 48, "1/49*48*49"),
    ("a factorial", (4, 1), 24, "4!*1"),
    ("a comment", (3, 7), 11, "3+7#+1"),
    ("a list", (3, 7), 10, "[3+7]"),
)

# (name, numbers, target, completion): each is right
RIGHT = (
    ("a plain answer", (3, 4), 12, answer_ending("3*4")),
    ("with blanks", (3, 4), 12, answer_ending(" 3 * 4 ")),
    ("a new line after it", (3, 4), 12, answer_ending("3*4") + "\n"),
    ("words after it", (3, 4), 12, answer_ending("3*4") + "\nThat is it."),
    ("after a wrong one", (3, 4), 12, answer_ending("3+4") + answer_ending("3*4")),
    ("a fraction on the way", (1, 3, 27), 9, answer_ending("1/3*27")),
)


def cheats_for(problem: Problem, prompt: str) -> list[AuditCase]:
    """Completions that must get no reward, with those for puzzles if the problem is one."""
    cases = [AuditCase(name, problem, write(prompt)) for name, write in GARBAGE.items()]
    if is_puzzle(problem):
        cases += [AuditCase(name, as_problem(n, t), answer_ending(a)) for name, n, t, a in PUZZLES]
        spray = answer_ending("3*4") + answer_ending("3+4")
        cases.append(
            AuditCase("a right answer, and a wrong one last", as_problem((3, 4), 12), spray)
        )
    return cases


def right_for(problem: Problem) -> list[AuditCase]:
    """Completions that must get the full reward; none for a task that is not known here."""
    if not is_puzzle(problem):
        return []
    return [AuditCase(name, as_problem(n, t), text) for name, n, t, text in RIGHT]


def is_puzzle(problem: Problem) -> bool:
    """Whether the problem is one of Countdown's."""
    return problem.task == "countdown" and {"numbers", "target"} <= set(problem.given)


# -- grading the texts ------------------------------------------------------------------------

PATIENCE_S = 20.0  # wall seconds until a text counts as one that hangs
SLOW_S = 0.5  # processor seconds
MAX_HANGS = 3
SHOWN = 4
PAID_IN_FULL = 0.5  # at this reward a cheat pays as an answer does


@dataclass(frozen=True)
class GradedText:
    """The grade of one text. If `fault` says why there is none, the rest has no meaning."""

    name: str
    reward: float = 0.0
    correct: bool = False
    seconds: float = 0.0  # of the processor
    fault: str = ""
    steady: bool = True  # the same grade twice
    hangs: bool = False
    form: float = 0.0  # of the reward, what the recipe pays for form on purpose


@dataclass(frozen=True)
class Audit:
    """The graded texts. `cheats` must get no reward, `right` the full one (known tasks only)."""

    cheats: list[GradedText]
    right: list[GradedText]

    @property
    def all(self) -> list[GradedText]:
        """Every text that was graded."""
        return [*self.cheats, *self.right]


def audit(task: Task, seed: int = 0, patience_s: float = PATIENCE_S) -> Audit:
    """Grade every cheat, on the first problem of the task's training split."""
    problem = next(iter(islice(task.problems("train", seed), 1)))
    cheats, right = cheats_for(problem, str(task.ask(problem))), right_for(problem)
    graded = list(grade_in_process(task, cheats + right, patience_s))
    return Audit(graded[: len(cheats)], graded[len(cheats) :])


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
    """One text graded twice; `seconds` is the mean of both."""
    started = time.process_time()
    try:
        first, again = (task.grade(problem, text) for _ in range(2))
    except Exception as error:  # no text may make a reward raise, whatever the exception
        return GradedText(name, fault=f"raised {type(error).__name__}: {error}"[:120])
    seconds = (time.process_time() - started) / 2
    fault = fault_of(first) or fault_of(again)
    if fault:
        return GradedText(name, seconds=seconds, fault=fault)
    steady = (first.reward, first.correct) == (again.reward, again.correct)
    # R1's format reward is paid whether or not the answer is right: a choice of the recipe, so it
    # is reported as such and is no leak.
    for_form = getattr(task, "format_reward", 0.0)
    form = for_form * first.parts.get("format", 0.0) if for_form else 0.0
    return GradedText(
        name, float(first.reward), bool(first.correct), seconds, steady=steady, form=form
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
    return ""


def listed(names: list[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


# -- the checks -----------------------------------------------------------------------------

checks = Checklist()


@checks
def reward_paid(report: Audit) -> Finding:
    """No cheat gets a reward. RL finds every such text: the policy would learn to write it."""
    paid = [text for text in report.cheats if text.reward > text.form + 1e-9 or text.correct]
    paid.sort(key=lambda text: -text.reward)
    tried, formed = f"{len(report.cheats)} cheats", sum(text.form > 0 for text in report.cheats)
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
    if not report.right:
        return None
    missed = [t.name for t in report.right if t.reward < PAID_IN_FULL or not t.correct]
    if missed:
        message = f"right answers that are not paid: {listed(missed)}"
        return fail(message, "mend `grade`; for Countdown use task.verifier 'strict'")
    return ok(f"{len(report.right)} right answers in unusual forms, all paid")


@checks
def reward_valid(report: Audit) -> Finding:
    """Any text gets a reward, never an error."""
    bad = [f"{text.name} ({text.fault})" for text in report.all if text.fault]
    if bad:
        fix = "`grade` must return Graded with a finite reward for any text"
        return fail(f"{len(bad)} texts without a verdict: {listed(bad)}", fix)
    return ok(f"{len(report.all)} texts, a finite reward for each")


@checks
def reward_quick(report: Audit) -> Finding:
    """Grading is quick. One completion whose grading hangs would stop the run."""
    hang = [text.name for text in report.all if text.hangs]
    if hang:
        fix = "parse with limits on length, depth and size; never `eval`"
        return fail(f"grading hangs on: {listed(hang)}", fix)
    slow = [f"{text.name} ({text.seconds:.1f} s)" for text in report.all if text.seconds > SLOW_S]
    if slow:
        return warn(f"slow to grade: {listed(slow)}", "make `grade` linear in the text")
    return ok(f"the slowest text took {max(t.seconds for t in report.all) * 1000:.1f} ms")


@checks
def reward_steady(report: Audit) -> Finding:
    """The same text gets the same grade. Otherwise differences within a group are noise."""
    unsteady = [text.name for text in report.all if not text.steady]
    if unsteady:
        message = f"graded differently the second time: {listed(unsteady)}"
        return fail(message, "no chance in `grade`")
    return ok("the same verdict twice")
