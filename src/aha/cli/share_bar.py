"""A bar over work whose share is known, on a terminal; elsewhere there is none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from aha.cli.terminal_text import console


@contextmanager
def share_bar() -> Iterator[Callable[[float], None]]:
    """The function takes the share that is done, 0 to 1. Lines that are printed meanwhile stand
    above the bar, which goes away at the end."""
    if not console.is_terminal:
        yield lambda share: None
        return
    columns = (TextColumn("      "), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda share: bar.update(task, completed=share)
