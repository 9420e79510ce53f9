"""Notes of people on a run: `notes.md` in its folder, which any editor can change too.

It is the one file of a run that a process without its lock may write: no program reads it back.
"""

import time
from pathlib import Path

from aha.core.errors import DataError
from aha.store.durable import disk_errors
from aha.store.guarded_files import GuardedFile

NOTES = "notes.md"
LONGEST = 2_000  # characters of one note


def add_note(run: Path, text: str) -> None:
    """Add a note with the date to those of the run. Raises DataError for one that is empty or too
    long, RunError where the file is a link or the disk does not take it."""
    words = " ".join(text.split())
    if not words or len(words) > LONGEST:
        got = f"a note of {len(words):,} characters"
        raise DataError(got, f"1 to {LONGEST:,}", f"write longer ones into {run / NOTES} yourself")
    GuardedFile(run, NOTES).check_writable()
    with disk_errors(f"write {run / NOTES}"), (run / NOTES).open("a", encoding="utf-8") as notes:
        notes.write(f"- {time.strftime('%Y-%m-%d %H:%M')}: {words}\n")
