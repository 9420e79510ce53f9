"""The prompts of a request, from its text or its messages, in the form that the model was trained
on.

A model with a chat template takes conversations. aha-tiny has no template and was trained on
puzzles alone, so a message to it must be a puzzle: `numbers 3 7 25 target 82` or another form that
`parse_puzzle` reads. A run on Countdown gets such a puzzle with the prompt options of its training,
whatever its model. The field `prompt` of /v1/completions is used unchanged for every model.
"""

import json
from typing import Any, NamedTuple, TypeGuard

from aha.core.records import Problem, Prompt
from aha.model.tokenizer import Tokenizer
from aha.serve.request_body import RequestError, short, with_request_error
from aha.serve.request_fields import asks_for_nothing, check_message
from aha.tasks.countdown import Countdown
from aha.tasks.problem_lines import parse_puzzle
from aha.tasks.protocol import Task


class TrainingTask(NamedTuple):
    """The task of a run: its name, and for Countdown the task with the run's prompt options.

    Both are None for a model that is no run.
    """

    task: str | None = None
    countdown: Task | None = None


ROLES = ("system", "developer", "user", "assistant")
PUZZLE = '[{"role": "user", "content": "numbers 3 7 25 target 82"}]'


def prompts_of_text(body: dict[str, Any], tokenizer: Tokenizer) -> list[Prompt]:
    """The prompts of /v1/completions: a text or a list of texts, unchanged. Raises RequestError."""
    given = body.get("prompt")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise RequestError(f"prompt {short(given)}", "a text, or a list of texts", param="prompt")
    return [encoded_prompt(text, tokenizer, "prompt") for text in texts]


def encoded_prompt(text: str, tokenizer: Tokenizer, param: str) -> Prompt:
    """A text as a prompt; `param` is the field that an error names. Raises RequestError."""
    tokens = with_request_error(param, lambda: tuple(tokenizer.encode(text)))
    if not tokens:
        raise RequestError("an empty prompt", "at least one token", param=param)
    return Prompt(Problem("text", "text", {}), text, tokens)


def prompt_of_messages(body: dict[str, Any], tokenizer: Tokenizer, trained: TrainingTask) -> Prompt:
    """The prompt of /v1/chat/completions. Raises RequestError."""
    messages = read_messages(body.get("messages"))
    has_template = tokenizer.converses()
    if has_template and not (trained.countdown and is_puzzle(messages)):
        text = with_request_error("messages", lambda: tokenizer.converse(messages))
        return encoded_prompt(text, tokenizer, "messages")
    if trained.task not in (None, "countdown"):
        raise RequestError(
            f"a conversation with a run on the task {trained.task!r}, without a chat template",
            "a prompt as the task asks it, at /v1/completions",
            f"`aha problems --task {trained.task}` prints problems",
            param="messages",
        )
    problem = puzzle_in(messages)
    task = trained.countdown or Countdown((len(problem.given["numbers"]),))
    return with_request_error("messages", lambda: Prompt.of(problem, task, tokenizer))


def puzzle_in(messages: list[dict[str, str]]) -> Problem:
    """The puzzle of a single message. Raises RequestError for several and for other text."""
    if len(messages) != 1:
        roles = ", ".join(message["role"] for message in messages[:4])
        roles += f" and {len(messages) - 4:,} more" if len(messages) > 4 else ""
        raise RequestError(
            f"messages of {roles} for a model without a chat template",
            "one message of the user, and in it a puzzle: the model has read nothing else",
            f"messages = {PUZZLE}",
            param="messages",
        )
    return with_request_error("messages", lambda: parse_puzzle(messages[0]["content"]))


def is_puzzle(messages: list[dict[str, str]]) -> bool:
    """Whether the messages are one puzzle."""
    try:
        puzzle_in(messages)
    except RequestError:
        return False
    return True


def read_messages(given: object) -> list[dict[str, str]]:
    """The messages as {role, content} with plain text. Raises RequestError.

    The last one must be the user's. "developer" is OpenAI's newer name of "system".
    """
    if not isinstance(given, list) or not given:
        raise RequestError(
            f"messages {short(given)}", f"messages such as {PUZZLE}", param="messages"
        )
    messages = []
    for place, message in enumerate(given):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ROLES:
            raise RequestError(
                f"messages[{place}] {short(message)}",
                f"a role of {', '.join(ROLES)}",
                param="messages",
            )
        check_message(message, place)
        content = message.get("content")
        # A turn of the assistant that called a tool, or was stopped at once, has no text.
        text = "" if content is None and role == "assistant" else text_of(content, place)
        messages.append({"role": "system" if role == "developer" else role, "content": text})
    if messages[-1]["role"] != "user":
        raise RequestError(
            f"a last message of the {messages[-1]['role']}", "one of the user", param="messages"
        )
    return messages


def text_of(content: object, place: int) -> str:
    """The text of a message's content, a string or a list of text parts. Raises RequestError."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    plain = [part["text"] for part in parts if is_text_part(part)]
    if not parts or len(plain) < len(parts):
        raise RequestError(
            f"messages[{place}].content {short(content)}",
            f"text, or parts such as {json.dumps({'type': 'text', 'text': '...'})}",
            param="messages",
        )
    return "\n".join(plain)


def is_text_part(part: object) -> TypeGuard[dict[str, Any]]:
    """Whether a part of a message's content is text, with nothing else that has a meaning."""
    return (
        isinstance(part, dict)
        and part.get("type") == "text"
        and isinstance(part.get("text"), str)
        # `cache_control` is how a server may work, not what the model reads.
        and all(
            key in ("type", "text", "cache_control") or asks_for_nothing(value)
            for key, value in part.items()
        )
    )
