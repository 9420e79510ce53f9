"""The exit codes of the program."""

import signal

from cyclopts import CycloptsError

from aha.cli.error_translation import as_user_error
from aha.core.errors import AhaError, RunStopped

BUDGET_SPENT = 3  # of a run that has stopped because its budget is spent


def code_of(error: BaseException) -> int:
    """2 for what a user can mend, 1 for a run that a fault has ended and for a fault of the
    program; after a signal 128 plus its number, as a shell has it."""
    if isinstance(error, KeyboardInterrupt):
        # A run's second signal has its number; Python's own Ctrl-C has none.
        numbers = [value for value in error.args if isinstance(value, int)]
        return 128 + (numbers or [signal.SIGINT])[0]
    if isinstance(error, CycloptsError):
        return 2
    known = as_user_error(error) if isinstance(error, Exception) else None
    return 2 if isinstance(known, AhaError) and not isinstance(known, RunStopped) else 1
