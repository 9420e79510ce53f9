"""The protocol of a task: three methods, no torch."""

from collections.abc import Iterator
from typing import Protocol

from aha.core.records import Graded, Problem


class Task(Protocol):
    """Where problems come from, how they are put into words, and what counts as right."""

    name: str

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """Different problems of a split, in an order that only `seed` decides; may be endless."""

    def ask(self, problem: Problem) -> str:
        """The prompt's text, up to the point where the model goes on."""

    def grade(self, problem: Problem, text: str) -> Graded:
        """Judge a completion by its text alone. Any text at all gets a reward, never an error."""
