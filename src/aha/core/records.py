"""The records that carry one problem through a step. Each holds the one before it.

    Problem -> Prompt -> Completion -> Graded -> (advantage) -> row of a batch

All are frozen: a later room can read where a value came from, and cannot change it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, cast

Finish = Literal["stop", "length"]
REWARD_PART = "reward_"  # begins the names of those parts of a reward that metrics and files keep


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem of a task; `given` holds what prompt and grading need, in types that JSON has."""

    id: str
    task: str
    given: Mapping[str, Any]


class PromptWriter(Protocol):
    """The part of a task that writes prompts. It may have `template_args`: variables of the model's
    chat template."""

    def ask(self, problem: Problem) -> str: ...


class Grader(Protocol):
    """The part of a task that grades."""

    def grade(self, problem: Problem, text: str) -> "Graded": ...


class TextEncoder(Protocol):
    """The part of a tokenizer that prompts need: `say` frames a text, `encode` makes its tokens.

    It may have `own_tags(text)`, the `Prompt.own_tags` of a text that `say` has framed.
    """

    def say(self, text: str, /, **options: object) -> str: ...

    def encode(self, text: str) -> Sequence[int]: ...


@dataclass(frozen=True, slots=True)
class Prompt:
    """A problem as the model reads it: the only place where text becomes tokens.

    `own_tags` are (the model's, the task's) tags, where the model thinks in others than the task
    reads, such as ("[/THINK]", "</think>").
    """

    problem: Problem
    text: str
    tokens: tuple[int, ...]
    own_tags: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, problem: Problem, task: PromptWriter, tokenizer: TextEncoder) -> "Prompt":
        """The task's prompt for the problem, encoded once."""
        text = tokenizer.say(task.ask(problem), **getattr(task, "template_args", {}))
        own_tags = getattr(tokenizer, "own_tags", lambda text: ())(text)
        return cls(problem, text, tuple(tokenizer.encode(text)), own_tags)

    def in_task_tags(self, completion: str) -> str:
        """A completion's text as the task reads it, in the task's own tags."""
        for own, of_task in self.own_tags:
            completion = completion.replace(own, of_task)
        return completion


@dataclass(frozen=True, slots=True)
class Completion:
    """The text that the model wrote. `tokens` ends with the stop token when `finish` is "stop".

    `logprobs` are the log-probabilities (nats) under which each token was sampled, by the policy
    of version `version` (steps done so far). `text` is decoded once, and is the text that is
    graded. `entropies` (nats) are those of the distributions that the tokens were drawn from; empty
    where an engine does not return them.

    `forced` are the places of tokens that a thinking budget has put there: nothing was drawn, so
    they have no part in a loss nor in statistics of draws. The log-prob of one is that of the
    moment when it was put there; tokens before it may have been taken back then.
    """

    prompt: Prompt
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    finish: Finish
    version: int = 0
    entropies: tuple[float, ...] = ()
    forced: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        assert len(self.tokens) == len(self.logprobs), "a token without its log-prob"
        assert len(self.entropies) in (0, len(self.tokens)), "a token without its entropy"
        assert all(place < len(self.tokens) for place in self.forced), "a forced token that is none"

    def drawn(self, numbers: Sequence[float]) -> Sequence[float]:
        """Of numbers by token those of the tokens that were drawn."""
        if not self.forced:
            return numbers
        forced = set(self.forced)
        return [number for place, number in enumerate(numbers) if place not in forced]


@dataclass(frozen=True, slots=True)
class Graded:
    """A graded completion: the reward, its parts, and the reason in words.

    A task returns it without the completion, because it grades the text alone.
    """

    reward: float
    correct: bool
    reason: str
    parts: Mapping[str, float] = field(default_factory=dict)
    # None in what a task returns. Typed as set, because every reader gets it from `Graded.of`.
    completion: Completion = cast(Completion, None)

    def reward_parts(self) -> dict[str, float]:
        """The rewards of the functions that the reward is the sum of; empty where it is of one."""
        return {name: part for name, part in self.parts.items() if name.startswith(REWARD_PART)}

    @classmethod
    def of(cls, completion: Completion, task: Grader) -> "Graded":
        """The task's grade of the completion's text, tied to the completion."""
        prompt = completion.prompt
        graded = task.grade(prompt.problem, prompt.in_task_tags(completion.text))
        return replace(graded, completion=completion)


@dataclass(frozen=True, slots=True)
class StepReport:
    """The record of one RL step, for the watchers. The step itself logs and saves nothing.

    `groups` has the graded completions by prompt, `advantages` one number for each of them;
    `token_advantages` has one for each of their tokens where a critic gave them, else it is empty.
    `numbers` are scalars (loss, gradient norm, entropy ...), `seconds` the wall time by phase.
    """

    version: int
    groups: tuple[tuple[Graded, ...], ...]
    advantages: tuple[tuple[float, ...], ...]
    numbers: Mapping[str, float]
    seconds: Mapping[str, float]
    token_advantages: tuple[tuple[tuple[float, ...], ...], ...] = ()
