"""Chat templates: the text form of a conversation that a model was trained on.

Tasks write conversations in ChatML, the form of Qwen; here they are rewritten for any model. A
template is a program that comes with a model, and anybody may have written it: it runs in Jinja's
sandbox, where it can format text and nothing else.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from aha.core.errors import ModelError

FILE = "chat_template.jinja"
TURN, END = "<|im_start|>", "<|im_end|>"
CHATML = re.compile(
    rf"(?P<turns>({re.escape(TURN)}\w+\n.*?{re.escape(END)}\n)+)"
    rf"{re.escape(TURN)}assistant\n(?P<begun>.*)",
    re.DOTALL,
)
ONE_TURN = re.compile(rf"{re.escape(TURN)}(\w+)\n(.*?){re.escape(END)}\n", re.DOTALL)


def in_own_words(
    text: str,
    template: str | None,
    settings: Mapping[str, Any],
    id_of: Callable[[str], int | None],
) -> str:
    """A text in ChatML rewritten by the model's template; any other text unchanged. The beginning
    of the assistant's turn stays at the end. Raises `ModelError` for a conversation with a model
    that has neither a template nor ChatML's tokens."""
    match = CHATML.fullmatch(text)
    if not match:
        return text
    messages = [
        {"role": role, "content": content} for role, content in ONE_TURN.findall(match["turns"])
    ]
    return conversation(messages, template, settings, id_of) + match["begun"]


def conversation(
    messages: list[dict[str, str]],
    template: str | None,
    settings: Mapping[str, Any],
    id_of: Callable[[str], int | None],
) -> str:
    """The messages in the form of the model's template, or in ChatML if it has none but knows
    ChatML's tokens, up to the start of the assistant's turn."""
    if template is not None:
        return render(template, messages, settings)
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
    template = settings.get("chat_template")
    if isinstance(template, list):  # several, each with a name
        entries = [entry for entry in template if isinstance(entry, dict)]
        by_name = {entry.get("name"): entry.get("template") for entry in entries}
        template = by_name.get("default")
    return template if isinstance(template, str) else None


def render(template: str, messages: list[dict[str, str]], settings: Mapping[str, Any]) -> str:
    """The text of a conversation, up to the start of the assistant's turn.

    A template gets no date (`strftime_now`): the same problem would be another prompt tomorrow.
    Llama-3.2's then writes the fixed date that it has for this case.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_template_error
    special = ("bos_token", "eos_token", "pad_token", "unk_token")
    try:
        names = {key: text_of(settings[key]) for key in special if settings.get(key)}
        return environment.from_string(template).render(
            messages=messages, add_generation_prompt=True, **names
        )
    except Exception as error:  # somebody else's program may raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"the model's chat template: {reason}",
            "one that renders a system and a user message",
            "--task.template r1",
        ) from error


def text_of(token: Any) -> str:
    """A token's text: in JSON a string, or an object with `content`."""
    return str(token["content"] if isinstance(token, dict) else token)


def to_json(value: object, indent: int | None = None, **unused: object) -> str:
    """Without the escapes for HTML that Jinja's own filter adds."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def raise_template_error(message: str) -> None:
    """What a template calls for roles that it does not support."""
    raise TemplateError(message)
