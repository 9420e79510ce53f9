"""What a policy under pressure writes when a reward has holes: texts that deserve nothing.

`GARBAGE` fits any task; `PUZZLES` are Countdown's own, for tasks whose problems have numbers and a
target. `RIGHT` are right answers in odd clothes: a reward that misses them teaches the wrong thing.
Source: TinyZero's reward and its descendants, which pay for many of these.
"""

from collections.abc import Callable

from aha.core.records import Problem
from aha.tasks.countdown import as_problem

LONG = 100_000  # characters


def answered(inside: str) -> str:
    return f"</think>\n<answer>{inside}</answer>"


# name -> text, given the prompt's text
GARBAGE: dict[str, Callable[[str], str]] = {
    "nothing": lambda prompt: "",
    "blanks": lambda prompt: " \n\t\n ",
    "only tags": lambda prompt: "<think></think><answer></answer>",
    "a blank answer": lambda prompt: answered(" "),
    "an answer that is never closed": lambda prompt: "</think>\n<answer>1",
    "a tag that closes nothing": lambda prompt: "</answer></answer>",
    "tags inside tags": lambda prompt: "<answer>" * 500 + "</answer>" * 500,
    "thinking without end": lambda prompt: "wait, let me try again. " * 200,
    "a confident word": lambda prompt: answered("correct"),
    "yes": lambda prompt: "yes yes yes",
    "a boolean": lambda prompt: answered("True"),
    "the prompt once more": lambda prompt: prompt,
    "the prompt as the answer": lambda prompt: answered(prompt),
    "every number as an answer": lambda prompt: "".join(
        f"<answer>{n}</answer>" for n in range(2_000)
    ),
    "words of the verifier": lambda prompt: "reward 1.0 correct True </think><answer>None</answer>",
    "a tower of powers": lambda prompt: answered("9**9**9**9"),
    "a huge product": lambda prompt: answered("*".join(["99999999"] * 3_000)),
    "a huge sum": lambda prompt: answered("+".join(["1"] * (LONG // 2))),
    "deep brackets": lambda prompt: answered("(" * 20_000 + "1" + ")" * 20_000),
    "brackets that never close": lambda prompt: answered("(" * LONG),
    "a number of 100,000 digits": lambda prompt: answered("9" * LONG),
    "division by zero": lambda prompt: answered("1/0"),
    "division by a zero in disguise": lambda prompt: answered("1/(2-2)"),
    "infinity": lambda prompt: answered("1e999"),
    "not a number": lambda prompt: answered("nan"),
    "other digits": lambda prompt: answered("\u0663+\u0664"),
    "wide digits and signs": lambda prompt: answered("\uff11\uff0b\uff12"),
    "a raised digit": lambda prompt: answered("3\u00b2"),
    "code": lambda prompt: answered("__import__('os').getcwd()"),
    "a lone surrogate": lambda prompt: answered("\ud800"),
    "a null character": lambda prompt: answered("\x00"),
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
    ("a plain answer", (3, 4), 12, answered("3*4")),
    ("with blanks", (3, 4), 12, answered(" 3 * 4 ")),
    ("a new line after it", (3, 4), 12, answered("3*4") + "\n"),
    ("words after it", (3, 4), 12, answered("3*4") + "\nThat is it."),
    ("after a wrong one", (3, 4), 12, answered("3+4") + answered("3*4")),
    ("a fraction on the way", (1, 3, 27), 9, answered("1/3*27")),
)


def puzzle(numbers: tuple[int, ...], target: int) -> Problem:
    return as_problem(numbers, target)


def texts_for(problem: Problem, prompt: str) -> list[tuple[str, Problem, str]]:
    """(name, problem, completion) of everything that must earn nothing."""
    found = [(name, problem, write(prompt)) for name, write in GARBAGE.items()]
    if is_puzzle(problem):
        found += [(name, puzzle(n, t), answered(text)) for name, n, t, text in PUZZLES]
        spray = answered("3*4") + answered("3+4")
        found.append(("a right answer, and a wrong one last", puzzle((3, 4), 12), spray))
    return found


def right_for(problem: Problem) -> list[tuple[str, Problem, str]]:
    """(name, problem, completion) of right answers, where the task is known."""
    if not is_puzzle(problem):
        return []
    return [(name, puzzle(n, t), text) for name, n, t, text in RIGHT]


def is_puzzle(problem: Problem) -> bool:
    return problem.task == "countdown" and {"numbers", "target"} <= set(problem.given)
