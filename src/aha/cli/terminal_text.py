"""The one door to the terminal: whatever a command prints goes through here.

Completions, reasons, prompts, names of files and texts of errors come from models, data and other
people. None of their characters reaches the terminal as a command. Two ways lead out, and a test
holds that no command uses another: `console` for text with markup, `say` and `say_json` for lines.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.control import Control
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


class KeptConsole(VisibleConsole):
    """A console whose text can be kept in a file as well."""

    copy: Console | None = None

    def print(self, *objects: Any, **settings: Any) -> None:
        super().print(*objects, **settings)
        # A progress bar prints movements of the cursor alone.
        if self.copy is None or (objects and all(isinstance(each, Control) for each in objects)):
            return
        try:
            self.copy.print(*objects, **settings)
        except OSError as error:
            self.copy = None
            say_line(f"aha: the log is not kept any more: {error}", sys.stderr)

    @contextmanager
    def kept_in(self, path: Path) -> Iterator[None]:
        """Meanwhile everything printed is added to the file too, as plain text. Raises nothing: a
        file that cannot be written is said, and the text is only printed."""
        try:
            # A disk that fills up later costs the line, not the run: see `print`.
            file = path.open("a", encoding="utf-8", errors="backslashreplace", buffering=1)
        except OSError as error:
            say_line(f"aha: no log: {error}", sys.stderr)
            yield
            return
        with file:
            self.copy = VisibleConsole(
                file=file, width=LOG_WIDTH, highlight=False, color_system=None, force_terminal=False
            )
            try:
                yield
            finally:
                self.copy = None


LOG_WIDTH = 100
console = KeptConsole(highlight=False)


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
