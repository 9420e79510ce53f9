"""A conversation with an instruct model in the terminal, in its own chat template."""

from dataclasses import replace
from typing import TYPE_CHECKING

from rich.text import Text

from aha.cli.own_options import message_here
from aha.cli.terminal_text import console, say
from aha.core.errors import AhaError, ConfigError
from aha.core.records import Problem, Prompt

if TYPE_CHECKING:
    from aha.rollout.engine import Sampling
    from aha.serve.open_models import OpenModel

HINT = "a message (an empty line ends)"


def talk(opened: "OpenModel", sampling: "Sampling") -> None:
    """Answer each typed message, with all earlier ones before it, until an empty line."""
    from aha.cli.chat import read_line

    messages: list[dict[str, str]] = []
    while line := read_line(console, HINT, "you> "):
        turns = [*messages, {"role": "user", "content": line}]
        try:
            answer = print_answer(opened, turns, sampling)
        except AhaError as error:
            console.print(Text(message_here(error), style="red"), soft_wrap=True)
            continue
        messages = [*turns, {"role": "assistant", "content": answer}]


def print_answer(opened: "OpenModel", messages: list[dict[str, str]], sampling: "Sampling") -> str:
    """Print the answer to a conversation while it is generated, and return it. Ctrl-C ends it.

    Raises `ModelError` for what the template refuses, `ConfigError` where the conversation has
    filled the model's positions.
    """
    text = opened.tokenizer.converse(messages)
    tokens = tuple(opened.tokenizer.encode(text))
    left = opened.positions - len(tokens)
    if left < 1:
        raise ConfigError(
            f"a conversation of {len(tokens):,} tokens",
            f"fewer than the model's {opened.positions:,} positions",
            "an empty line ends it; then begin a new one",
        )
    prompt = Prompt(Problem("conversation", "conversation", {}), text, tokens)
    sampling = replace(sampling, max_new_tokens=min(left, sampling.max_new_tokens))
    answer = ""
    try:
        for piece in opened.engine.stream(prompt, sampling):
            answer += piece
            say(piece, end="")
    except KeyboardInterrupt:
        pass  # what has come so far is the answer
    say()
    return answer
