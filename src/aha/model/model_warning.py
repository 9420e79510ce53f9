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
