"""The Task protocol: three methods, and one that a task may have."""

from collections.abc import Iterator
from typing import Protocol

from aha.core.records import Graded, Problem


class Task(Protocol):
    """Gives problems, writes the prompt of each, and grades its completions.

    A task may also have `solve(problem) -> str | None`: a completion of its own that is right and
    deserves the full reward; None where it knows none for the problem. `aha doctor` grades it: a
    reward that does not pay for a right answer teaches nothing.
    """

    name: str

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """Different problems of a split ("train", "validation", "test"); may be endless.

        The order follows from `seed` alone, and no problem belongs to two splits.
        """

    def ask(self, problem: Problem) -> str:
        """The text of the prompt, up to the point where the model goes on."""

    def grade(self, problem: Problem, text: str) -> Graded:
        """The reward of a completion, from its text alone. Any text gets a reward, never an error:
        a wrong or unreadable answer is a low reward with a reason."""
