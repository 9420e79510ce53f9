"""A ladder of tasks from easy to hard: sums, products, Countdown with two, three, four numbers.

Each step of training mixes the rungs. With `algo.curriculum` the pool draws by solve rate, so that
training moves up the ladder as the model learns.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

from aha.core.errors import ConfigError
from aha.core.records import Graded, Problem
from aha.core.seeds import seed_for
from aha.tasks.calculate import Calculate
from aha.tasks.countdown import Countdown
from aha.tasks.multiply import Multiply
from aha.tasks.splits import check_split
from aha.tasks.tags import shown_frame

RUNGS = ("sums", "products", "countdown2", "countdown3", "countdown4", "multiply")
# For each size puzzles of the training split, with an expression that solves them.
SHOWN = {
    2: (((25, 13), 38, "25 + 13"), ((7, 61), 54, "61 - 7")),
    3: (((25, 13, 8), 30, "25 + 13 - 8"), ((7, 61, 20), 34, "61 - 7 - 20")),
    4: (((25, 13, 8, 4), 34, "25 + 13 - 8 + 4"), ((7, 61, 20, 3), 37, "61 - 7 - 20 + 3")),
}


class ShownCountdown(Countdown):
    """Countdown in which an instruct model is shown how two puzzles are answered.

    Told in words, as Countdown itself does, 135 million parameters write no expression to begin
    with; shown, they solve one puzzle of two numbers in six.
    """

    def ask(self, problem: Problem) -> str:
        """The prompt; in other frames that of Countdown."""
        if self.template != "instruct":
            return super().ask(problem)
        numbers, target = problem.given["numbers"], problem.given["target"]
        shown = [
            (puzzle(given, goal), f"{expression} = {goal} <answer>{expression}</answer>")
            for given, goal, expression in SHOWN[len(numbers)]
        ]
        return shown_frame(shown, puzzle(numbers, target))


def puzzle(numbers: Sequence[int], target: int) -> str:
    """A puzzle as a question."""
    return f"Which equation of the numbers {list(numbers)} equals {target}?"


Rung = Calculate | ShownCountdown | Multiply


class Ladder:
    """Sums and products of numbers up to 20 and 12, Countdown with 2, 3 or 4 numbers, and the
    products of `multiply`, in one stream; each problem is graded by the task of its rung.

    `rungs` are drawn evenly. Raises `ConfigError` for one that does not exist.
    """

    name = "ladder"

    def __init__(self, rungs: Sequence[str] = RUNGS[:4], template: str = "plain"):
        chosen = (rungs,) if isinstance(rungs, str) else tuple(rungs)
        if not chosen or not all(isinstance(rung, str) and rung in RUNGS for rung in chosen):
            raise ConfigError(f"rungs {list(chosen)}", f"some of {', '.join(RUNGS)}")
        self.rungs = {rung: task_of_rung(rung, template) for rung in dict.fromkeys(chosen)}

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """Different problems of one split from all rungs; a rung without any left is passed by."""
        check_split(split)
        rng = Random(seed_for("ladder", split, seed, *self.rungs))
        streams = [task.problems(split, seed) for task in self.rungs.values()]
        while streams:
            stream = rng.choice(streams)
            problem = next(stream, None)
            if problem is None:
                streams.remove(stream)
            else:
                yield replace(problem, task=self.name)

    def task_of(self, problem: Problem) -> Rung:
        """The task of a problem, by its columns: Countdown asks and grades all sizes alike, and so
        does `Calculate` all operations. Raises KeyError for a problem of no rung."""
        columns = problem.given
        kind = (
            ShownCountdown if "numbers" in columns else Calculate if "op" in columns else Multiply
        )
        return {type(task): task for task in self.rungs.values()}[kind]

    def ask(self, problem: Problem) -> str:
        """The prompt, as the task of its rung writes it."""
        return self.task_of(problem).ask(problem)

    def grade(self, problem: Problem, text: str) -> Graded:
        """The grade, as the task of its rung gives it."""
        return self.task_of(problem).grade(problem, text)

    def solve(self, problem: Problem) -> str | None:
        """A right completion, as the task of its rung writes it."""
        return self.task_of(problem).solve(problem)


def task_of_rung(rung: str, template: str) -> Rung:
    """The task of a rung."""
    if rung == "multiply":
        return Multiply(template=template)
    if rung == "sums":
        return Calculate(("+",), largest=20, template=template)
    if rung == "products":
        return Calculate(("*",), smallest=2, largest=12, template=template)
    return ShownCountdown((int(rung.removeprefix("countdown")),), template)
