"""Chat templates: the text form of a conversation that a model was trained on.

A template is a program that comes with a model, and anybody may have written it: it runs in Jinja's
sandbox, where it can format text and nothing else. `own_words` brings tasks and templates together.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from aha.core.errors import ModelError
from aha.core.findings import warn
from aha.model.model_warning import warn_of

FILE = "chat_template.jinja"
TURN, END = "<|im_start|>", "<|im_end|>"
SPECIAL = tuple(f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"))


class RenderedText(str):
    """A prompt as a chat template wrote it. It begins as the template says: `Tokenizer.encode` puts
    no begin-of-text token before it, as `apply_chat_template` of `transformers` puts none."""

    __slots__ = ()


def conversation(
    messages: list[dict[str, str]],
    template: str | None,
    settings: Mapping[str, Any],
    id_of: Callable[[str], int | None],
    now: Callable[[], datetime] = datetime.now,
) -> str:
    """The messages in the form of the model's template, or in ChatML if it has none but knows
    ChatML's tokens, up to the start of the assistant's turn. `now` is what a template may ask."""
    if template is not None:
        return RenderedText(render(template, messages, settings, now))
    named = sorted(named_templates(settings))
    if named:
        raise ModelError(
            f"chat templates called {', '.join(named)}",
            "one that is called default",
            f"write the one to use into {FILE}, beside tokenizer.json",
        )
    if not knows_chatml(id_of):
        raise ModelError(
            "a conversation for a model without a chat template",
            "an instruct model",
            "--task.template r1, the form for base models",
        )
    turns = (f"{TURN}{message['role']}\n{message['content']}{END}\n" for message in messages)
    return "".join(turns) + f"{TURN}assistant\n"


def knows_chatml(id_of: Callable[[str], int | None]) -> bool:
    """Whether the vocabulary has ChatML's tokens."""
    return id_of(TURN) is not None and id_of(END) is not None


def find_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The default template of a model folder: a file of its own, or in tokenizer_config.json."""
    path = folder / FILE
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = named_templates(settings).get("default", settings.get("chat_template"))
    return template if isinstance(template, str) else None


def named_templates(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The templates of a tokenizer_config.json that has several, by their names."""
    template = settings.get("chat_template")
    if isinstance(template, list):
        entries = [entry for entry in template if isinstance(entry, dict)]
        template = {str(entry.get("name")): entry.get("template") for entry in entries}
    return template if isinstance(template, dict) else {}


def render(
    template: str,
    messages: list[dict[str, str]],
    settings: Mapping[str, Any],
    now: Callable[[], datetime] = datetime.now,
    /,  # a template may have variables of any name
    **options: object,
) -> str:
    """The text of a conversation, up to the start of the assistant's turn, as `transformers`
    renders it. `options` are variables of the template, such as enable_thinking."""
    given: dict[str, object] = {
        "messages": messages,
        "tools": None,
        "documents": None,
        "add_generation_prompt": True,
        "strftime_now": lambda form: now().strftime(form),
        **special_tokens(settings),
    }
    if taken := sorted(given.keys() & options.keys()):
        raise ModelError(
            f"template_args {', '.join(taken)}, which every chat template is given already",
            "variables of this template alone, such as enable_thinking",
            f"leave {', '.join(taken)} out of task.options.template_args",
        )
    try:
        return compiled(template).render(given | options)
    except Exception as error:  # somebody else's program may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"the model's chat template: {reason}",
            "one that renders a system and a user message",
            "--task.template r1",
        ) from error


@lru_cache(maxsize=16)
def compiled(template: str) -> Template:
    """The template, with the functions and the tags that `transformers` gives it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_template_error
    return environment.from_string(template)


class GenerationTag(Extension):
    """`{% generation %}`, which marks the tokens of the assistant: its text is what is inside."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        """The block as a call of `inside`."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("inside"), [], [], body).set_lineno(line)

    def inside(self, caller: Callable[[], str]) -> str:
        return caller()


def special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the special tokens that tokenizer_config.json names."""
    extra = settings.get("extra_special_tokens")
    named = {**(extra if isinstance(extra, dict) else {})}
    named |= {key: settings[key] for key in SPECIAL if settings.get(key)}
    return {key: text_of(token) for key, token in named.items()}


@cache
def held_now() -> datetime:
    """The time in all prompts of a task: that of SOURCE_DATE_EPOCH, which other programs for
    repeatable results read too, else that of the first prompt of this process. A problem that is
    asked again after midnight is asked in the same words."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given is None:
        warn_of(
            warn(
                "the model's chat template writes today's date into each prompt: a run that is "
                "resumed on another day asks other prompts",
                f"export SOURCE_DATE_EPOCH={int(time.time())} before the run and before each "
                "resume keeps the date",
            )
        )
        return datetime.now()  # noqa: DTZ005
    try:
        return datetime.fromtimestamp(int(given), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise ModelError(
            f"SOURCE_DATE_EPOCH {given!r:.60}", "whole seconds since 1970", "unset it"
        ) from error


def text_of(token: Any) -> str:
    """A token's text: in JSON a string, or an object with `content`."""
    return str(token["content"] if isinstance(token, dict) else token)


def to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Without the escapes for HTML that Jinja's own filter adds."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def raise_template_error(message: str) -> None:
    """What a template calls for roles that it does not support."""
    raise TemplateError(message)
