"""`aha COMMAND`: gathers the commands and turns errors into one line and an exit code."""

import sys

from cyclopts import CycloptsError

from aha.cli import (
    doctor_commands,
    export_commands,
    lab_commands,
    look_commands,
    plan_commands,
    serve_commands,
    task_commands,
    train_commands,
    watch_commands,
)
from aha.cli.app import app
from aha.core.errors import AhaError

# Importing them hangs them on `app`.
COMMANDS = (
    train_commands,
    look_commands,
    plan_commands,
    task_commands,
    watch_commands,
    serve_commands,
    lab_commands,
    doctor_commands,
    export_commands,
)


def run() -> None:
    """Entry point: errors that a user can mend are one line and exit code 2."""
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        print(f"aha: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except AhaError as error:
        print(f"aha: {error}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if "aha.machine.micro_batch" not in sys.modules:
            raise
        from aha.machine.micro_batch import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "out of memory"
        print(
            f"aha: {reason}; wanted room beside the weights; fix: half of --rollout.max_rows, "
            "and see `aha plan`",
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        print("aha: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `aha problems | head` closes the pipe before we are done
        sys.stderr.close()
        sys.exit(0)
