"""How a task's prompts are worded for a model: settings that every task takes.

    system         the text of the system's turn; "" for none
    lead_in        what the assistant has already said; "" for nothing
    template_args  variables of the model's chat template, as {enable_thinking = false}
    think_tags     the two tags that the model thinks in, where its template has none to find

They are options of the task (`task.options.system`), because a recipe has them for any task. A task
that has a setting of the same name keeps it for itself.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aha.core.errors import ConfigError, shown
from aha.core.records import Graded, Problem
from aha.tasks.protocol import Task
from aha.tasks.tags import ASSISTANT, LEAD_IN, THINK_CLOSE, THINK_OPEN, system_turn

KEYS = ("system", "lead_in", "template_args", "think_tags")
# What a frame of `aha.tasks.tags` has a place for; a conversation has one for everything.
PLACES = {"plain": ("think_tags",), "r1": ("lead_in", "think_tags")}
SYSTEM_BEGIN, TURN_END = "<|im_start|>system\n", "<|im_end|>\n"


@dataclass(frozen=True)
class Wording:
    """What a recipe sets of the prompts' words; None or empty: as the task has it."""

    system: str | None = None
    lead_in: str | None = None
    template_args: Mapping[str, Any] = field(default_factory=dict)
    think_tags: tuple[str, str] | None = None

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Wording":
        """The wording that settings ask for. Raises `ConfigError` for a value of another kind."""
        for key in ("system", "lead_in"):
            if not isinstance(settings.get(key, ""), str):
                raise wrong(key, settings[key], "a text", '"Think, then answer."')
        args, tags = settings.get("template_args", {}), settings.get("think_tags")
        if not isinstance(args, Mapping) or not all(isinstance(name, str) for name in args):
            raise wrong("template_args", args, "a table", "{enable_thinking = false}")
        if tags is not None and not (
            isinstance(tags, list | tuple)
            and len(tags) == 2
            and all(isinstance(tag, str) and tag for tag in tags)
        ):
            raise wrong("think_tags", tags, "two texts", '["<think>", "</think>"]')
        pair = None if tags is None else (tags[0], tags[1])
        return cls(settings.get("system"), settings.get("lead_in"), args, pair)

    def worded(self, text: str) -> str:
        """A task's prompt in these words. Raises `ConfigError` for a prompt without a place for
        them, which would be left out in silence."""
        turns, assistant, begun = text.rpartition(ASSISTANT)
        if assistant and turns.endswith(TURN_END):
            text = self.conversation(turns, begun)
        elif self.system is not None or self.template_args:
            name = "template_args" if self.system is None else "system"
            raise wrong(
                name,
                self.template_args or self.system,
                "a prompt that is a conversation",
                "--task.template instruct, or leave it out",
                "",
            )
        elif self.lead_in is not None:
            if not text.endswith(LEAD_IN):
                raise wrong(
                    "lead_in",
                    self.lead_in,
                    "a prompt that begins the answer",
                    "--task.template instruct or r1, or leave it out",
                    "",
                )
            text = text.removesuffix(LEAD_IN) + self.lead_in
        if self.think_tags:
            opened, closed = self.think_tags
            text = text.replace(THINK_OPEN, opened).replace(THINK_CLOSE, closed)
        return text

    def conversation(self, turns: str, begun: str) -> str:
        """A conversation in ChatML with this system's turn and beginning of the answer."""
        if self.system is not None:
            if turns.startswith(SYSTEM_BEGIN):
                turns = turns.partition(TURN_END)[2]
            turns = system_turn(self.system) + turns
        return turns + ASSISTANT + (begun if self.lead_in is None else self.lead_in)

    def in_task_tags(self, text: str) -> str:
        """A completion with the tags of a task in place of the model's, as the task grades it."""
        if not self.think_tags:
            return text
        opened, closed = self.think_tags
        return text.replace(opened, THINK_OPEN).replace(closed, THINK_CLOSE)


def wrong(
    key: str, value: object, expected: str, fix: str, option: str | None = None
) -> ConfigError:
    """The error for a value; `fix` is one that works, or with `option` the words of the fix."""
    got = f"task.options.{key} {shown(value)}"
    return ConfigError(got, expected, f"--task.options.{key} '{fix}'" if option is None else fix)


class WordedTask:
    """A task whose prompts are worded by a recipe; everything else is the task's own."""

    def __init__(self, inner: Task, wording: Wording):
        self.inner, self.wording, self.name = inner, wording, inner.name
        self.template_args = dict(wording.template_args)

    def __getattr__(self, name: str) -> Any:
        """What a task may have besides, such as `notes` or `num_problems`."""
        if name == "inner":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self.inner, name)

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        return self.inner.problems(split, seed)

    def ask(self, problem: Problem) -> str:
        return self.wording.worded(self.inner.ask(problem))

    def grade(self, problem: Problem, text: str) -> Graded:
        return self.inner.grade(problem, self.wording.in_task_tags(text))


def part_wording(
    settings: dict[str, Any], own: Callable[[], Collection[str]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(the task's settings, those of the wording); `own()` names what the task takes itself."""
    if not any(key in settings for key in KEYS):
        return settings, {}
    names = own()
    worded = {key: settings[key] for key in KEYS if key in settings and key not in names}
    return {key: value for key, value in settings.items() if key not in worded}, worded


def in_frame(
    settings: dict[str, Any], template: str, own: Callable[[], Collection[str]]
) -> dict[str, Any]:
    """The settings with another `template`, without the words that this frame has no place for;
    `own()` as in `part_wording`."""
    settings, words = part_wording(settings, own)
    kept = {key: words[key] for key in words if key in PLACES.get(template, KEYS)}
    return {**settings, **kept, "template": template}


def unworded(task: Task) -> Task:
    """The task itself, without its wording."""
    return task.inner if isinstance(task, WordedTask) else task
