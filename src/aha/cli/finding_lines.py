"""Findings as lines on the error stream, such as what a task has to say about its problems."""

import sys

from aha.cli.own_options import fix_here
from aha.cli.terminal_text import say_line
from aha.core.findings import Finding


def print_notes(notes: list[Finding]) -> None:
    """What a task has to say about its problems, one line each on the error stream."""
    for note in notes:
        print_finding(note)


def print_finding(finding: Finding) -> None:
    """On the error stream: the output may be JSON."""
    fix = f"; fix: {fix_here(finding.fix)}" if finding.fix else ""
    say_line(f"aha: {finding.level}: {finding.message}{fix}", sys.stderr)
