"""The texts of a reward's audit: cheats, right answers in unusual forms, the task's own ones."""

from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

from aha.core.findings import Finding, fail, warn
from aha.core.records import Problem
from aha.tasks.countdown import as_problem
from aha.tasks.protocol import Task
from aha.tasks.tags import answer_ending

SOLVED_PROBLEMS = 8
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


def solved_by(task: Task, seed: int) -> tuple[list[AuditCase], Finding | None]:
    """(the task's own right completions of its first training problems, why there are none)."""
    solve = getattr(task, "solve", None)
    unknown = "whether a right answer is paid was not tried"
    fix = "give the task `solve(problem)`, which returns a right completion, or None"
    if solve is None:
        return [], warn(f"the task has no `solve`: {unknown}", fix)
    cases = []
    for problem in islice(task.problems("train", seed), SOLVED_PROBLEMS):
        try:
            text = solve(problem)
        except Exception as error:  # the task's code, whatever it raises
            reason = " ".join(f"`solve` raised {type(error).__name__}: {error}".split())[:200]
            return [], fail(f"{reason}: {unknown}", fix)
        if text is not None:
            cases.append(AuditCase(problem.id, problem, text))
    if cases:
        return cases, None
    return [], warn(f"`solve` knows none of the first training problems: {unknown}", fix)


def is_puzzle(problem: Problem) -> bool:
    """Whether the problem is one of Countdown's."""
    return problem.task == "countdown" and {"numbers", "target"} <= set(problem.given)
