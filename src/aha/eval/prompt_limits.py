"""What a problem's prompt has to fit, and what is wrong with one that does not."""

from dataclasses import dataclass

from aha.core.errors import AhaError
from aha.core.records import Problem, Prompt
from aha.model.tokenizer import Tokenizer
from aha.tasks.protocol import Task

RECOGNISED = 200  # characters of a row's text: enough to recognise it


@dataclass(frozen=True)
class PromptLimits:
    """What a prompt has to fit: a tokenizer, and `positions` less the tokens of a completion.

    The others are for errors: the model's name, and how its user types the token limit and the rule
    for bad rows.
    """

    tokenizer: Tokenizer
    positions: int
    max_new_tokens: int
    model: str
    option: str = "--rollout.max_new_tokens"
    drop: str = "--task.bad_rows drop"

    def fault(self, problem: Problem, task: Task) -> "PromptFault | None":
        """What is wrong with a problem's prompt; None where the model can read it."""
        try:
            tokens = len(Prompt.of(problem, task, self.tokenizer).tokens)
        except AhaError as error:
            faulty = (error.got, 0, error.wanted, error.fix, text_of(problem))
            return PromptFault(problem.id, *faulty)
        if not tokens:
            return PromptFault(problem.id, "an empty prompt", 0, "at least one token", "mend `ask`")
        if tokens + self.max_new_tokens > self.positions:
            reason = f"{self.option[2:]} {self.max_new_tokens} after a prompt of {tokens} tokens"
            expected = f"at most the {self.positions} positions of {self.model} together"
            return PromptFault(problem.id, reason, tokens, expected, "", text_of(problem))
        return None

    def shorter(self, longest: int) -> str:
        """The option with which prompts of up to `longest` tokens fit; empty where none does."""
        left = self.positions - longest
        return f"{self.option} {left}" if left > 0 else ""


@dataclass(frozen=True)
class PromptFault:
    """A problem whose prompt cannot be read, and why. `tokens` is 0 unless it is too long; `text`
    is the beginning of the problem's own text, by which its row can be recognised."""

    problem: str
    reason: str
    tokens: int = 0
    expected: str = "a prompt that the model can read"
    fix: str = ""
    text: str = ""


def text_of(problem: Problem) -> str:
    """The beginning of the first text that a problem was given; empty where there is none."""
    texts = (value for value in problem.given.values() if isinstance(value, str))
    return next(texts, "")[:RECOGNISED]
