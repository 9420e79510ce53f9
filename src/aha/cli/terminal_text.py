"""The one door to the terminal: whatever a command prints goes through here.

Completions, reasons, prompts, names of files and texts of errors come from models, data and other
people. None of their characters reaches the terminal as a command. Two ways lead out, and a test
holds that no command uses another: `console` for text with markup, `say` and `say_json` for lines.
"""

import sys
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from aha.core.control_characters import visible
from aha.store.durable import to_json


class OutputClosed(BrokenPipeError):
    """Nobody reads the output any more, as after `aha problems | head`."""


class VisibleConsole(Console):
    """A console that shows control characters in place of sending them.

    Rich's own colours and movements are no text of segments, and pass.
    """

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Before its width is measured: a control character has none, and its picture has."""
        return super().render_str(visible(text), **settings)

    def on_broken_pipe(self) -> None:
        """Rich's hook, which would end the program with exit code 1."""
        raise OutputClosed


console = VisibleConsole(highlight=False)


def say(text: object = "", end: str = "\n", file: TextIO | None = None) -> None:
    """Print a text, at once, to the output or to another stream."""
    write(visible(str(text)) + end, file or sys.stdout)


def say_line(text: object, file: TextIO | None = None) -> None:
    """Print one line, whatever the text holds."""
    say(visible(str(text)).replace("\n", "\u240a"), file=file)


def say_json(content: object, indent: int | None = None) -> None:
    """Print JSON, whose escapes keep every character. JSON leaves DEL as it is; it is escaped
    too. A number that is none is null."""
    write(to_json(content, indent).replace("\x7f", "\\u007f") + "\n", sys.stdout)


def write(text: str, file: TextIO) -> None:
    """Raises `OutputClosed` where nobody reads it."""
    try:
        print(text, end="", flush=True, file=file)
    except BrokenPipeError:
        raise OutputClosed from None
