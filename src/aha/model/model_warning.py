"""What is told about a model that loads all the same: a file left alone, a key that nobody reads.

A warning of Python: it reaches the terminal of every command, and a program can catch it.
"""

import warnings

from aha.core.findings import Finding


class ModelWarning(UserWarning):
    """Something about a model, its tokenizer or its template that the user did not ask for."""


def warn_of(finding: Finding) -> None:
    """Tell it once for each text."""
    fix = f"; fix: {finding.fix}" if finding.fix else ""
    warnings.warn(finding.message + fix, ModelWarning, stacklevel=3)


def show_as_notes() -> None:
    """One line for each of them, without a place in the code, for who reads a terminal."""
    plain = warnings.formatwarning
    shown: set[str] = set()  # Python forgets which it has shown when a library adds a filter

    def as_note(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if not issubclass(category, ModelWarning):
            return plain(message, category, filename, lineno, line)
        # Names come from files of others: what is no character of a line is spelled out.
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(message))
        if text in shown:
            return ""
        shown.add(text)
        return f"note: {text}\n"

    warnings.formatwarning = as_note
