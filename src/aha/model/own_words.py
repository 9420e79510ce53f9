"""The prompt of a task in the words of a model: its chat template, its system turn, its thought.

Tasks write conversations in ChatML, the form of Qwen, with the beginning of the answer. Here they
are rewritten by the model's own template. What a template does itself is respected: it is rendered,
and the result says whether it opens a thought, closes one, or has no place for a system's turn.
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from aha.core.errors import ModelError
from aha.core.findings import warn
from aha.model.chat_template import END, TURN, RenderedText, conversation, held_now, render
from aha.model.model_warning import warn_of

CHATML = re.compile(
    rf"(?P<turns>({re.escape(TURN)}\w+\n.*?{re.escape(END)}\n)+)"
    rf"{re.escape(TURN)}assistant\n(?P<begun>.*)",
    re.DOTALL,
)
ONE_TURN = re.compile(rf"{re.escape(TURN)}(\w+)\n(.*?){re.escape(END)}\n", re.DOTALL)
THINKING = "enable_thinking"  # the variable of most templates that can be told to think
Messages = list[dict[str, str]]


class ThoughtTags(NamedTuple):
    """The tags between which a model thinks."""

    opened: str
    closed: str

    @property
    def empty(self) -> re.Pattern[str]:
        """An empty thought at the end of a prompt, which says that there is to be none. Some
        templates (DeepSeek-V4's, Laguna's) close it without having opened it."""
        return re.compile(rf"(?:{re.escape(self.opened)}\s*)?{re.escape(self.closed)}\s*\Z")


TASK_TAGS = ThoughtTags("<think>", "</think>")  # those that tasks write
# The first of these that a template has is what its model thinks in.
KNOWN_TAGS = (
    TASK_TAGS,
    ThoughtTags("[THINK]", "[/THINK]"),  # Magistral, Ministral
    ThoughtTags("<seed:think>", "</seed:think>"),  # Seed-OSS
    ThoughtTags("<thinking>", "</thinking>"),
    ThoughtTags("<thought>", "</thought>"),
    ThoughtTags("<reasoning>", "</reasoning>"),
    ThoughtTags("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A Reasoning
    ThoughtTags("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker, Sky-T1
    ThoughtTags("<|inner_prefix|>", "<|inner_suffix|>"),  # Apertus
    ThoughtTags("◁think▷", "◁/think▷"),  # Kimi
)


@lru_cache(maxsize=16)
def tags_of(template: str) -> ThoughtTags:
    """The tags that a template writes around thoughts; a task's own where it writes none."""
    return next((tags for tags in KNOWN_TAGS if tags.opened in template), TASK_TAGS)


def in_own_words(
    text: str,
    template: str | None,
    settings: Mapping[str, Any],
    id_of: Callable[[str], int | None],
    /,  # a template may have variables of any name
    **options: object,
) -> str:
    """A text in ChatML rewritten by the model's template; any other text unchanged.

    The beginning of the assistant's turn stays at the end, but a thought is opened once
    (`with_thought`), in the tags of the model. A system's turn without a place in the template goes
    before the user's text. `options` are variables of the template. Raises `ModelError` for a
    conversation with a model that has neither a template nor ChatML's tokens, and for options
    without a template that could read them.
    """
    match = CHATML.fullmatch(text)
    if options and (match is None or template is None):
        raise ModelError(
            f"template_args {', '.join(options)} with a prompt that no chat template writes",
            "a model with a chat template, and the template instruct",
            "leave task.options.template_args out",
        )
    if match is None:
        return text
    messages = [
        {"role": role, "content": content} for role, content in ONE_TURN.findall(match["turns"])
    ]
    begun = match["begun"]
    if template is None:
        return conversation(messages, None, settings, id_of, held_now) + begun
    tags = tags_of(template)
    if tags != TASK_TAGS:
        begun = in_tags(begun, tags)
        messages = [turn | {"content": in_tags(turn["content"], tags)} for turn in messages]
        say_of_thought(f"thinks in {tags.opened}, and so does the prompt", left_out=False)
    messages, rendered = with_system(template, messages, settings, options)
    if messages[-1]["content"].strip() not in rendered:
        warn_of(
            warn(
                "the model's chat template changes the words of a task: some take out what their "
                "models read as commands, such as /think",
                "read a prompt in the run's completions; --task.template r1 leaves the words alone",
            )
        )
    if begun.rstrip().endswith(tags.opened):
        thinks = Thought(template, messages, settings, tags, options)
        return RenderedText(with_thought(rendered, begun, thinks))
    return RenderedText(rendered + begun)


def in_tags(text: str, tags: ThoughtTags) -> str:
    """A task's text with the tags of the model in place of its own."""
    return text.replace(TASK_TAGS.opened, tags.opened).replace(TASK_TAGS.closed, tags.closed)


def with_system(
    template: str, messages: Messages, settings: Mapping[str, Any], options: Mapping[str, object]
) -> tuple[Messages, str]:
    """The messages with the system's turn where the template has a place for it, and their text.

    Some templates raise where there is such a turn, some drop it without a word. In both cases its
    text goes before the user's, which is what their makers advise; it is told once.
    """
    system = messages[0]["content"].strip() if messages[0]["role"] == "system" else ""
    reason, rendered = "", ""
    try:
        rendered = render(template, messages, settings, held_now, **options)
    except ModelError as error:
        if not system:
            raise
        reason = error.got
    if not system or system in rendered or len(messages) < 2:
        if reason:
            return messages, render(template, messages, settings, held_now, **options)
        return messages, rendered
    user = messages[1]
    merged = [user | {"content": f"{system}\n\n{user['content']}"}, *messages[2:]]
    text = render(template, merged, settings, held_now, **options)
    what = reason.removeprefix("the model's chat template: ") or "it drops one without a word"
    message = f"the model's chat template has no place for a system's turn ({what:.120})"
    warn_of(warn(f"{message}: the task's stands before the user's text", ""))
    return merged, text


class Thought(NamedTuple):
    """What it takes to render a conversation again."""

    template: str
    messages: Messages
    settings: Mapping[str, Any]
    tags: ThoughtTags
    options: Mapping[str, object]


def with_thought(rendered: str, begun: str, thought: Thought) -> str:
    """A rendered conversation, followed by a task's `begun` turn that opens a thought: one thought,
    and it is open.

    A template may open the thought itself (DeepSeek's distillates): then `begun` is left out. Or it
    may end with an empty thought, which says that there is to be none (Qwen3 without thinking):
    then it is asked to think, and if it cannot be asked, its empty thought is opened again. Raises
    `ModelError` where the recipe itself has asked for no thought.
    """
    template, messages, settings, (opened, closed), options = thought
    empty, change = thought.tags.empty, ""
    if empty.search(rendered):
        if THINKING in options:
            raise ModelError(
                f"template_args with {THINKING} {options[THINKING]}, and a beginning of the answer "
                f"that opens {opened}",
                "one of the two",
                "--task.options.lead_in '\"\"'",
            )
        thinking = render(template, messages, settings, held_now, **options, enable_thinking=True)
        if empty.search(thinking):
            rendered = empty.sub(lambda match: f"{opened}\n", rendered)
            say_of_thought("ends with an empty thought, which is opened again")
            return rendered
        rendered, change = thinking, f"ends with an empty thought, is rendered with {THINKING}"
    tail = text_behind(messages[-1]["content"].strip(), rendered)
    if tail.rfind(opened) <= tail.rfind(closed):
        if change:
            say_of_thought(change, left_out=False)
        return rendered + begun
    say_of_thought(f"{change} and then opens it" if change else "opens the thought itself")
    return rendered


def text_behind(last: str, rendered: str) -> str:
    """What a template wrote behind the last message; found by the message's end, where the template
    has changed something before it."""
    for size in (len(last), 40, 20, 10):
        end = last[-size:]
        if end and end in rendered:
            return rendered[rendered.rfind(end) + len(end) :]
    return rendered[-200:]


def say_of_thought(what: str, left_out: bool = True) -> None:
    """Tell how template and task were brought together."""
    message = f"the model's chat template {what}"
    message += ": a task's own beginning of the answer is left out" if left_out else ""
    warn_of(warn(f"{message}; each prompt ends with one open thought", ""))
