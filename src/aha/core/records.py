"""The records that carry one problem through a step. Each holds the one before it.

    Problem -> Prompt -> Completion -> Graded -> (advantage) -> Batch row

All are frozen: a later room can read where a thing came from, and cannot change it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Problem:
    """A puzzle with its truth. `given` is what the task needs to ask and to grade it."""

    id: str
    task: str
    given: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem as the model reads it: the only place where text becomes tokens."""

    problem: Problem
    text: str
    tokens: tuple[int, ...]

    @classmethod
    def of(cls, problem: Problem, task, tokenizer) -> "Prompt":
        text = tokenizer.say(task.ask(problem))
        return cls(problem, text, tuple(tokenizer.encode(text)))


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote. `tokens` ends with the stop token when `finish` is "stop".

    `logprobs` are the log-probabilities (nats) under which each token was sampled, by the policy
    whose weights had had `version` updates. `text` is decoded once and is what gets graded.
    `entropies` (nats) are those of the distributions that the tokens were drawn from; none where
    an engine does not tell them.
    """

    prompt: Prompt
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish: Finish
    version: int = 0
    entropies: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.tokens) == len(self.logprobs), "a token without its log-prob"
        assert len(self.entropies) in (0, len(self.tokens)), "a token without its entropy"


@dataclass(frozen=True, slots=True)
class Graded:
    """A judged completion: the reward, its parts, and the reason in words."""

    reward: float
    correct: bool
    reason: str
    parts: Mapping[str, float] = field(default_factory=dict)
    completion: Completion | None = None

    @classmethod
    def of(cls, completion: Completion, task) -> "Graded":
        """The task's verdict on the text alone, tied to the completion."""
        judged = task.grade(completion.prompt.problem, completion.text)
        return replace(judged, completion=completion)


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one RL step did, for the watchers. The step itself logs and saves nothing.

    `groups` has the graded completions by prompt, `advantages` one number for each of them;
    `token_advantages` has one for each of their tokens where a critic judged tokens, else nothing.
    `numbers` are scalars (loss, gradient norm, entropy ...), `seconds` the wall time by phase.
    """

    version: int
    groups: tuple[tuple[Graded, ...], ...]
    advantages: tuple[tuple[float, ...], ...]
    numbers: Mapping[str, float]
    seconds: Mapping[str, float]
    token_advantages: tuple[tuple[tuple[float, ...], ...], ...] = ()
