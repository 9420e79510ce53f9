"""`aha note`: a note on a run, for the dashboard, the list of runs and the report."""

from pathlib import Path

from aha.cli.terminal_text import say_line


def note(run: Path, text: str) -> None:
    """Add a note to a run, with the date: why it was made, what came of it.

    Parameters
    ----------
    run
        Run folder.
    text
        The note, in quotation marks.
    """
    from aha.store.run_notes import NOTES, add_note
    from aha.web.runs import open_run

    path = open_run(run).path
    add_note(path, text)
    say_line(f"noted in {path / NOTES}")
