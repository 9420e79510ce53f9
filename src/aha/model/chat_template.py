"""Chat templates: how a model's own conversations are written down.

Tasks write their conversations in ChatML, which is Qwen's way; here they become those of any model.
A template comes with a model that a stranger may have made, so it runs in Jinja's sandbox: it can
format text and reach nothing else.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path

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
    text: str, template: str | None, settings: dict, id_of: Callable[[str], int | None]
) -> str:
    """`text`, or the conversation that it is in ChatML as the model's template writes it; what the
    assistant has begun to say stays at the end. Raises `ModelError` for a conversation with a model
    that has neither a template nor ChatML's tokens."""
    found = CHATML.fullmatch(text)
    if not found:
        return text
    messages = [
        {"role": role, "content": content} for role, content in ONE_TURN.findall(found["turns"])
    ]
    return conversation(messages, template, settings, id_of) + found["begun"]


def conversation(
    messages: list[dict[str, str]],
    template: str | None,
    settings: dict,
    id_of: Callable[[str], int | None],
) -> str:
    """The messages as the model's template writes them, or in ChatML where it has none but knows
    ChatML's tokens; the assistant's turn is begun."""
    if template is not None:
        return render(template, messages, settings)
    if not knows_chatml(id_of):
        raise ModelError(
            "a conversation for a model without a chat template",
            "an instruct model",
            "--task.template r1, the form for base models",
        )
    turns = (f"{TURN}{said['role']}\n{said['content']}{END}\n" for said in messages)
    return "".join(turns) + f"{TURN}assistant\n"


def knows_chatml(id_of: Callable[[str], int | None]) -> bool:
    return id_of(TURN) is not None and id_of(END) is not None


def find_template(folder: Path, settings: dict) -> str | None:
    """The default template of a model folder: a file of its own, or in tokenizer_config.json."""
    path = folder / FILE
    if path.is_file():
        return path.read_text(encoding="utf-8")
    found = settings.get("chat_template")
    if isinstance(found, list):  # several by name
        pairs = [entry for entry in found if isinstance(entry, dict)]
        found = {entry.get("name"): entry.get("template") for entry in pairs}.get("default")
    return found if isinstance(found, str) else None


def render(template: str, messages: list[dict[str, str]], settings: dict) -> str:
    """The text of a conversation, the assistant's turn begun.

    A template may not ask for the date (`strftime_now`): the same problem would be another prompt
    tomorrow. Llama-3.2's then writes the fixed date that it has for this case.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = complain
    special = ("bos_token", "eos_token", "pad_token", "unk_token")
    try:
        names = {key: text_of(settings[key]) for key in special if settings.get(key)}
        return environment.from_string(template).render(
            messages=messages, add_generation_prompt=True, **names
        )
    except Exception as error:  # a stranger's program fails as it likes
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"the model's chat template: {reason}",
            "one that renders a system and a user message",
            "--task.template r1",
        ) from error


def text_of(token) -> str:
    """A token's text, written plainly or as an object."""
    return token["content"] if isinstance(token, dict) else str(token)


def to_json(value, indent: int | None = None, **unused) -> str:
    """Without the escapes for HTML that Jinja's own filter adds."""
    return json.dumps(value, ensure_ascii=False, indent=indent)


def complain(message: str) -> None:
    raise TemplateError(message)
