"""`aha COMMAND`: one module for each command, imported when the command is called.

A command's module imports what it opens inside the function that runs, so that help is quick and
needs no torch.
"""

import sys
from collections.abc import Iterable

from cyclopts import App, CycloptsError
from rich.console import Console

import aha
from aha.core.errors import AhaError

# Named by module, and by function where that has another name.
COMMANDS = (
    *("ask", "baseline", "behaviors", "chat", "compare", "dash", "demo", "doctor", "export"),
    *("grade", "lab", "new-task", "plan", "pretrain", "problems", "report", "serve", "train"),
)


class CommandLine(App):
    """Reads the commands' docstrings before it lists them, and shows keys as a recipe sets them."""

    def help_print(
        self, tokens: str | Iterable[str] | None = None, *, console: Console | None = None
    ) -> None:
        words = sys.argv[1:] if tokens is None else list(tokens)
        chain, _, rest = self.parse_commands(words)
        if not chain:  # the list of commands shows the first lines of their docstrings
            for name in self:
                self[name]
        from aha.cli.recipe_keys import recipe_in_help
        from aha.cli.recipes import recipe_for_help

        before = recipe_in_help.set(recipe_for_help([*chain, *rest]))
        try:
            super().help_print(words, console=console)
        finally:
            recipe_in_help.reset(before)


app = CommandLine(
    name="aha",
    help="Train a language model to reason with reinforcement learning, and watch it happen.",
    version=aha.__version__,
)
for command in COMMANDS:
    module = command.replace("-", "_")
    app.command(f"aha.cli.{module}:{module}", name=command)
app.command("aha.cli.eval:evaluate", name="eval")
config_app = App(name="config", help="Recipes and their keys.")
config_app.command("aha.cli.show_config:show", name="show")
app.command(config_app)


def run() -> None:
    """Entry point: errors that a user can mend are one line and exit code 2."""
    try:
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        from aha.cli.usage_errors import usage_error

        fail(usage_error(error))
    except AhaError as error:
        fail(error)
    except (MemoryError, RuntimeError) as error:
        if "aha.machine.micro_batch" not in sys.modules:
            raise
        from aha.machine.micro_batch import is_out_of_memory

        if not is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "out of memory"
        wanted = "memory for more than the weights"
        fail(AhaError(reason, wanted, "half of --rollout.max_rows, and see `aha plan`"))
    except KeyboardInterrupt:
        print("aha: stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `aha problems | head` closes the pipe before we are done
        sys.stderr.close()
        sys.exit(0)


def fail(error: AhaError) -> None:
    print(f"aha: {error}", file=sys.stderr)
    sys.exit(2)
