"""What a request's text means to the model that is served.

A model with a chat template reads conversations. aha-tiny has none and has read only puzzles: a
message to it is a puzzle, `numbers 3 7 25 target 82` or as one types it (tasks/typed.py). A run
on Countdown reads such a message as it was asked in training, whatever its model. `prompt` of
/v1/completions is the text itself for every model.
"""

import json
from collections.abc import Callable
from typing import NamedTuple

from aha.core.errors import AhaError
from aha.core.records import Problem, Prompt
from aha.model.tokenizer import Tokenizer
from aha.serve.request_fields import Refused, short
from aha.tasks.countdown import Countdown
from aha.tasks.puzzle_input import parse_puzzle


class TrainedOn(NamedTuple):
    """What a run was trained on: the task's name, and Countdown as the run asked it. Of a model
    that is no run, nothing is known."""

    task: str | None = None
    countdown: Countdown | None = None


ROLES = ("system", "developer", "user", "assistant")
PUZZLE = '[{"role": "user", "content": "numbers 3 7 25 target 82"}]'


def prompts_of_text(body: dict, tokenizer: Tokenizer) -> list[Prompt]:
    """`prompt` of /v1/completions: a text or a list of texts, each as it stands."""
    given = body.get("prompt")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
        raise Refused(f"prompt {short(given)}", "a text, or a list of texts", param="prompt")
    return [encoded(text, tokenizer, "prompt") for text in texts]


def encoded(text: str, tokenizer: Tokenizer, param: str) -> Prompt:
    tokens = refusing(param, lambda: tuple(tokenizer.encode(text)))
    if not tokens:
        raise Refused("an empty prompt", "at least one token", param=param)
    return Prompt(Problem("text", "text", {}), text, tokens)


def prompt_of_messages(body: dict, tokenizer: Tokenizer, trained: TrainedOn) -> Prompt:
    """`messages` of /v1/chat/completions."""
    messages = read_messages(body.get("messages"))
    converses = tokenizer.converses()
    if converses and not (trained.countdown and holds_puzzle(messages)):
        text = refusing("messages", lambda: tokenizer.converse(messages))
        return encoded(text, tokenizer, "messages")
    if trained.task not in (None, "countdown"):
        raise Refused(
            f"a conversation with a run on the task {trained.task!r}, without a chat template",
            "a prompt as the task asks it, at /v1/completions",
            f"`aha problems --task {trained.task}` prints problems",
            param="messages",
        )
    problem = puzzle_in(messages)
    task = trained.countdown or Countdown((len(problem.given["numbers"]),))
    return refusing("messages", lambda: Prompt.of(problem, task, tokenizer))


def puzzle_in(messages: list[dict[str, str]]) -> Problem:
    """The puzzle that is the only message."""
    if len(messages) != 1:
        roles = ", ".join(message["role"] for message in messages)
        raise Refused(
            f"messages of {roles} for a model without a chat template",
            "one message of the user, and in it a puzzle: the model has read nothing else",
            f"messages = {PUZZLE}",
            param="messages",
        )
    return refusing("messages", lambda: parse_puzzle(messages[0]["content"]))


def holds_puzzle(messages: list[dict[str, str]]) -> bool:
    try:
        puzzle_in(messages)
    except Refused:
        return False
    return True


def refusing(param: str, make: Callable):
    """`make()`, whose errors are the request's."""
    try:
        return make()
    except AhaError as error:
        raise Refused(error.got, error.wanted, error.fix, param=param) from error


def read_messages(given: object) -> list[dict[str, str]]:
    """{role, content} with plain text, the user's last."""
    if not isinstance(given, list) or not given:
        raise Refused(f"messages {short(given)}", f"messages such as {PUZZLE}", param="messages")
    messages = []
    for place, message in enumerate(given):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ROLES:
            raise Refused(
                f"messages[{place}] {short(message)}",
                f"a role of {', '.join(ROLES)}",
                param="messages",
            )
        text = text_of(message.get("content"), place)
        messages.append({"role": "system" if role == "developer" else role, "content": text})
    if messages[-1]["role"] != "user":
        raise Refused(
            f"a last message of the {messages[-1]['role']}", "one of the user", param="messages"
        )
    return messages


def text_of(content: object, place: int) -> str:
    """Plain text, or parts that are all text."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
    kinds = [part.get("type") if isinstance(part, dict) else None for part in parts]
    if not texts or set(kinds) != {"text"} or not all(isinstance(text, str) for text in texts):
        raise Refused(
            f"messages[{place}].content {short(content)}",
            f"text, or parts such as {json.dumps({'type': 'text', 'text': '...'})}",
            param="messages",
        )
    return "\n".join(texts)
