"""The rows of a file of examples: their forms, and what makes one unusable.

{"prompt": "...", "completion": "..."}                               text, as the model reads it
{"prompt": [{"role": "user", ...}], "completion": [{"role": "assistant", ...}]}              TRL
{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]} ShareGPT
{"instruction": "...", "input": "...", "output": "..."}                                  Alpaca
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aha.tasks.files import UnreadableRow, is_utf8

CHATS = ("messages", "conversations", "conversation")
PROMPTS = ("prompt", "instruction", "question", "problem")
COMPLETIONS = ("completion", "response", "output", "solution", "answer")
EXPECTED = (
    "JSON lines or Parquet with 'prompt' and 'completion', 'messages' of user and assistant, or "
    "ShareGPT's 'conversations'"
)
ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant"}
ROLES |= {"gpt": "assistant", "chatgpt": "assistant", "model": "assistant"}

# What a row cannot be used for. The words are those of the note that counts them.
NO_ANSWER = "without an answer"
NO_PROMPT = "without a prompt"
UNREADABLE = "that are no examples"
UNFINISHED = "with a truncated completion"
FOREIGN = "with the tags of another template"
NO_TOKENS = "with text that the tokenizer lacks"
TOO_LONG = "longer than the context"
HELD_OUT = "with a held-out problem"

Message = dict[str, str]


@dataclass(frozen=True, slots=True)
class ExampleText:
    """What is to be learnt, after what it follows: a text, or the messages before it."""

    prompt: str | list[Message]
    completion: str


class UnusableRow(Exception):
    """A row that cannot be used: one of the kinds above, and the details."""

    def __init__(self, kind: str, details: str):
        self.kind, self.details = kind, " ".join(details.split())
        super().__init__(f"{kind}: {self.details}")


def example_texts(row: object) -> list[ExampleText]:
    """All that a row teaches: one completion, or every turn of the assistant in a conversation.

    Raises `UnusableRow`.
    """
    if isinstance(row, UnreadableRow):
        raise UnusableRow(UNREADABLE, row.reason)
    if not isinstance(row, dict):
        raise UnusableRow(UNREADABLE, f"{str(row)[:60]!r} is no object with columns")
    cells = {str(name).lower(): cell for name, cell in row.items() if cell is not None}
    if cells.get("finish") == "length":  # a completion of ours, as eval writes it
        raise UnusableRow(UNFINISHED, "the token limit ended it, so its end is not to be learnt")
    for name in CHATS:
        if name in cells:
            return texts_of_chat(messages_of(cells[name], name))
    prompt, completion = first_of(cells, PROMPTS), first_of(cells, COMPLETIONS)
    columns = f"it has {', '.join(map(str, row))[:80] or 'no columns'}"
    if prompt is None:
        raise UnusableRow(NO_PROMPT, columns)
    if completion is None:
        raise UnusableRow(NO_ANSWER, columns)
    if isinstance(prompt, list) or isinstance(completion, list):
        return texts_of_pair(prompt, completion)
    request = text_of_cell(prompt, NO_PROMPT, "the prompt")
    more = cells.get("input") if "instruction" in cells else None
    if isinstance(more, str) and more.strip():
        request += f"\n{more}"
    return [ExampleText(request, text_of_cell(completion, NO_ANSWER, "the completion"))]


def texts_of_pair(prompt: object, completion: object) -> list[ExampleText]:
    """A prompt and a completion of which one or both are messages. The turns of the prompt are only
    read."""
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    if isinstance(completion, str):
        completion = [{"role": "assistant", "content": completion}]
    before = messages_of(prompt, "prompt")
    texts = texts_of_chat(before + messages_of(completion, "completion"))
    return [text for text in texts if len(text.prompt) >= len(before)]


def first_of(cells: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    """The first of these columns that the row has."""
    return next((cells[name] for name in names if name in cells), None)


def text_of_cell(cell: object, kind: str, what: str) -> str:
    """A text that is not empty."""
    if not isinstance(cell, str):
        raise UnusableRow(kind, f"{what} is {str(cell)[:40]!r}, no text")
    if not cell.strip():
        raise UnusableRow(kind, f"{what} is empty")
    if not is_utf8(cell):
        raise UnusableRow(NO_TOKENS, f"{what} has half of a character")
    return cell


def messages_of(cell: object, column: str) -> list[Message]:
    """The messages of a cell as {role, content}, whoever's names it uses."""
    if not isinstance(cell, list) or not cell:
        raise UnusableRow(UNREADABLE, f"{column} is {str(cell)[:40]!r}, no list of messages")
    messages = []
    for number, message in enumerate(cell, 1):
        if not isinstance(message, dict):
            raise UnusableRow(UNREADABLE, f"message {number} is {str(message)[:40]!r}")
        name = message.get("role", message.get("from"))
        role = ROLES.get(name.lower()) if isinstance(name, str) else None
        if role is None:
            raise UnusableRow(UNREADABLE, f"message {number} is from {str(name)[:40]!r}")
        kind = NO_ANSWER if role == "assistant" else NO_PROMPT
        content = text_parts(message.get("content", message.get("value")))
        messages.append({"role": role, "content": text_of_cell(content, kind, f"message {number}")})
    return messages


def text_parts(content: object) -> object:
    """The text of a message in parts; anything else as it is."""
    if not isinstance(content, list):
        return content
    texts = [part.get("text") if isinstance(part, dict) else part for part in content]
    words = [text for text in texts if isinstance(text, str)]
    return "\n".join(words) if len(words) == len(texts) else content


def texts_of_chat(messages: list[Message]) -> list[ExampleText]:
    """Every turn of the assistant, after the messages before it."""
    if messages[-1]["role"] != "assistant":
        raise UnusableRow(NO_ANSWER, f"the last message is from the {messages[-1]['role']}")
    places = [n for n, message in enumerate(messages) if message["role"] == "assistant"]
    if all(message["role"] != "user" for message in messages[: places[0]]):
        raise UnusableRow(NO_PROMPT, "the assistant speaks before the user does")
    return [ExampleText(messages[:place], messages[place]["content"]) for place in places]


def lengths_of(rows: Sequence[Mapping[str, Any]]) -> tuple[str, list[int]]:
    """("tokens" or "characters", the lengths of the rows' completions). Characters where one of the
    rows has no count of tokens: the two cannot be compared."""
    counts = [row.get("tokens") for row in rows]
    if all(type(count) is int and count >= 0 for count in counts):
        return "tokens", [int(count or 0) for count in counts]
    return "characters", [characters_of(row) for row in rows]


def characters_of(row: Mapping[str, Any]) -> int:
    """Of a row's completion, or of all turns of the assistant."""
    completion = row.get("completion")
    if isinstance(completion, str):
        return len(completion)
    return sum(len(text.completion) for text in example_texts(row))
