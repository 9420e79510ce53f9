"""Rows of a file that cannot be used: refused, or dropped and counted (`task.bad_rows`)."""

from pathlib import Path

from aha.core.errors import ConfigError, DataError
from aha.core.findings import Finding, ok, warn

RULES = ("refuse", "drop")
SHOWN = 3  # rows that a note names


def check_rule(rule: str) -> str:
    """The rule. Raises `ConfigError` for one that does not exist."""
    if rule not in RULES:
        raise ConfigError(f"bad_rows {rule!r}", f"one of {', '.join(RULES)}")
    return rule


class BadRows:
    """The bad rows of one file, in order, with the reason of each; and what else is to be said.

    `settle`, after the last row, raises or returns the notes.
    """

    def __init__(self, path: Path, rule: str):
        self.path, self.rule = path, check_rule(rule)
        self.reasons: dict[int, str] = {}
        self.repeats: list[int] = []

    def add(self, number: int, reason: str) -> None:
        """A row, from 1, that cannot be used. The first reason of a row stays."""
        self.reasons.setdefault(number, reason)

    def repeat(self, number: int) -> None:
        """A row that says once more what an earlier one says."""
        self.repeats.append(number)

    def settle(self, kept: int, expected: str) -> list[Finding]:
        """Notes on the rows that were left out, `kept` being those that were not.

        Raises `DataError` with the first bad row where they are refused, and where no row is left.
        """
        count = len(self.reasons)
        if not count and not kept:
            raise DataError(f"{self.path} is empty", expected, "add at least one row")
        if count and (self.rule == "refuse" or not kept):
            number, reason = min(self.reasons.items())
            rows = kept + count + len(self.repeats)
            others = f" (and {count - 1:,} more of {rows:,} rows)" if count > 1 else ""
            fix = f"mend or remove row {number}"
            fix += ", or --task.bad_rows drop leaves such rows out" if kept else ""
            raise DataError(f"{self.path}, row {number}: {reason}{others}", expected, fix)
        notes = []
        if count:
            first = [f"row {n}: {reason}" for n, reason in sorted(self.reasons.items())[:SHOWN]]
            message = f"{count:,} rows of {self.path.name} dropped, {kept:,} kept: "
            notes.append(warn(message + "; ".join(first), "mend the rows, or train without them"))
        if self.repeats:
            message = f"{len(self.repeats):,} rows of {self.path.name} repeat an earlier one"
            notes.append(ok(f"{message} (first: row {self.repeats[0]}) and count once"))
        return notes
