"""`aha COMMAND`: finds and runs the command; an error becomes one line and an exit code.

A command's module imports torch, and rooms that need it, inside the function that runs. So help is
quick and needs no torch.
"""

import difflib
import io
import os
import sys
import traceback
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pydantic
from cyclopts import (
    App,
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnknownCommandError,
    UnknownOptionError,
    UnusedCliTokensError,
    ValidationError,
)
from cyclopts.argument import Argument, ArgumentCollection
from rich.console import Console

import aha
from aha.cli.error_translation import as_user_error
from aha.cli.exit_codes import code_of
from aha.cli.first_steps import print_first_steps
from aha.cli.own_options import message_here, own_spelling
from aha.cli.parameters import of_64_bits
from aha.cli.recipe_keys import recipe_for_help, recipe_in_help, toml_value
from aha.cli.terminal_text import OutputClosed, say, say_line
from aha.cli.terminal_text import console as terminal
from aha.core.config import known_keys
from aha.core.errors import AhaError, ConfigError, shown
from aha.core.unknown_keys import LONGEST, nearest_keys, reason_left_out, unknown_key
from aha.dist.rank_place import refuse_copies
from aha.model.model_warning import show_as_notes

FAULT = "aha: this is a fault of the program: please report it, with the lines above"

# Named by module, and by function where that has another name.
COMMANDS = (
    *("ask", "baseline", "behaviors", "chat", "compare", "completion", "dash", "demo", "distill"),
    *("doctor", "export", "fork", "grade", "lab", "new-task", "note", "plan", "prefer"),
    *("pretrain", "problems", "recipes", "report", "select", "serve", "sft", "tasks", "train"),
    "verify-resume",
)

# Of which torchrun may start several processes.
SHARE_THEIR_WORK = ("train", "demo")

# Names of TRL, veRL and transformers for what is an option of a command here, and no recipe key.
# Without dashes, and only suggested where the command has the option.
OPTIONS_BY_NAMES_OF_OTHERS = {
    "report_to": "log",
    "logger": "log",
    "output_dir": "name",
    "run_name": "name",
    "experiment_name": "name",
    "resume_from_checkpoint": "resume",
    "resume_mode": "resume",
}


class CommandLine(App):
    """An app whose help has the first line of each docstring and the values of a named recipe."""

    def help_print(
        self, tokens: str | Iterable[str] | None = None, *, console: Console | None = None
    ) -> None:
        words = sys.argv[1:] if tokens is None else list(tokens)
        chain, _, rest = self.parse_commands(words)
        listed: App = self
        for word in chain:
            listed = listed[word]
        for name in listed:  # a list of commands shows the first lines of their docstrings
            listed[name]
        before = recipe_in_help.set(recipe_for_help([*chain, *rest]))
        try:
            super().help_print(words, console=console)
        finally:
            recipe_in_help.reset(before)


app = CommandLine(
    name="aha",
    help="Train a language model to reason with reinforcement learning, and watch it happen.",
    version=aha.__version__,
    default_parameter=Parameter(validator=of_64_bits),
    console=terminal,
)
for command in COMMANDS:
    module = command.replace("-", "_")
    app.command(f"aha.cli.{module}:{module}", name=command)
app.command("aha.cli.eval:evaluate", name="eval")
app.command("aha.cli.import_model:import_model", name="import")
config_app = App(name="config", help="Recipes and their keys.")
config_app.command("aha.cli.show_config:show", name="show")
app.command(config_app)
study_app = App(name="study", help="Experiments over a grid of cells, with intervals and verdicts.")
study_app.command("aha.cli.study:thinking", name="thinking")
for study in ("priming", "corpus", "size", "search", "sharpen", "data", "task-mix"):
    study_app.command(f"aha.cli.training_studies:{study.replace('-', '_')}", name=study)
app.command(study_app)
COMMAND_NAMES = frozenset(name for name in app if not name.startswith("-"))
show_as_notes()


def run() -> None:
    """Entry point: an error that a user can mend is one line and exit code 2; a run that a fault
    ended is exit code 1, and so is a fault of the program, with its traceback."""
    never_fail_to_print()
    # Before torch is loaded. OpenMP's threads spin otherwise while they wait for each other, and
    # whatever else runs on these cores waits for them.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        if sys.argv[1:]:
            if sys.argv[1] not in SHARE_THEIR_WORK:
                refuse_copies(f"`aha {sys.argv[1]}`", os.environ)
            app(sys.argv[1:], exit_on_error=False, print_error=False)
        else:
            print_first_steps()
    except CycloptsError as error:
        fail(usage_error(error))
    except KeyboardInterrupt as error:
        say("aha: stopped", file=sys.stderr)
        sys.exit(code_of(error))
    except OutputClosed:
        sys.stderr.close()  # Python would write there that it cannot flush
        sys.exit(0)
    except Exception as error:
        known = as_user_error(error)
        if known is None:
            say(traceback.format_exc() + FAULT, file=sys.stderr)
            sys.exit(code_of(error))
        fail(known)


def never_fail_to_print() -> None:
    """What a stream's encoding lacks is written as an escape, and read as U+FFFD."""
    for stream, errors in (
        (sys.stdin, "replace"),
        (sys.stdout, "backslashreplace"),
        (sys.stderr, "backslashreplace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)


def fail(error: AhaError) -> None:
    with suppress(OSError):  # a full disk takes no message either, and the code says it too
        say_line(f"aha: {message_here(error)}", sys.stderr)
    sys.exit(code_of(error))


# -- errors of usage: what cyclopts found wrong, in our form ----------------------------------


def usage_error(error: CycloptsError) -> AhaError:
    """The error to print in place of one from cyclopts."""
    match error:
        case UnknownOptionError():
            return unknown_option(error)
        case UnknownCommandError():
            return unknown_command(error)
        case UnusedCliTokensError():
            word = (error.unused_tokens or [""])[0]
            expected = "--section.key value" if takes_keys(error) else "an option before it"
            return ConfigError(f"{word!r} without an option", expected, see_help(error))
        case MissingArgumentError() if error.argument is not None:
            return missing_value(error, error.argument)
        case CoercionError() | ValidationError() if error.argument is not None:
            return wrong_value(error, error.argument)
    return ConfigError(" ".join(str(error).split()), fix=see_help(error))


def unknown_command(error: UnknownCommandError) -> AhaError:
    word = (error.unused_tokens or [""])[0]
    names = [name for name in error.app or () if not name.startswith("-")]
    near = difflib.get_close_matches(word, names, 1)
    hint = f"did you mean {near[0]!r}?" if near else see_help(error)
    return ConfigError(f"unknown command {word!r}", f"one of {', '.join(names)}", hint)


def unknown_option(error: UnknownOptionError) -> AhaError:
    option, value = typed_option(error)
    options = [name for argument in error.argument_collection for name in argument.names]
    # cyclopts takes both --dry-run and --dry_run.
    near = difflib.get_close_matches(option.replace("_", "-"), options, 1, 0.7)
    own = [name for name in near if name.lstrip("-") not in known_keys()]
    key = option.lstrip("-").replace("-", "_")
    own_name = OPTIONS_BY_NAMES_OF_OTHERS.get(key)
    if own_name:
        near = [name for name in options if name == f"--{own_name}"]
    elif takes_keys(error) and not own:
        if reason_left_out(key):
            return unknown_key(key, value, known_keys())
        near = [f"--{name}" for name in nearest_keys(key[:LONGEST], known_keys())]
    elif is_key(key):  # a name that only looks alike may mean another thing
        near = [typed] if (typed := own_spelling(key, value, options)) else []
    hint = f"did you mean {' or '.join(near)}?" if near else see_help(error)
    return ConfigError(f"unknown option {option}", "an option of this command", hint)


def is_key(key: str) -> bool:
    """Whether it is a key of a recipe's section; of a task's own settings each name is one."""
    return ("." in key and key in known_keys()) or key.startswith("task.options.")


def typed_option(error: UnknownOptionError) -> tuple[str, Any]:
    """The option that is unknown, and what was typed after it as TOML; None after the last word."""
    option, equals, text = (error.token.keyword or error.token.value).partition("=")
    words = error.root_input_tokens or []
    for word, following in zip(words, [*words[1:], None], strict=True):
        if equals:
            break
        if word == option and following is not None:
            equals, text = "=", following
        elif word.startswith(f"{option}="):
            _, equals, text = word.partition("=")
    return option, toml_value(text) if equals else None


def missing_value(error: MissingArgumentError, argument: Argument) -> AhaError:
    name = error.keyword or argument.name
    if name.startswith("--") and (error.keyword or argument.index is None):
        typed = name in (error.root_input_tokens or ())
        got = f"{name} has no value" if typed else f"no {name}"
        expected = "--section.key value" if name.lstrip("-") in known_keys() else f"{name} VALUE"
        return ConfigError(got, expected, see_help(error))
    return ConfigError(f"no {name.lstrip('-').upper()}", "one after the command", see_help(error))


def wrong_value(error: CoercionError | ValidationError, argument: Argument) -> AhaError:
    token = argument.tokens[0] if argument.tokens else None
    token = getattr(error, "token", None) or token
    name = (token and token.keyword) or argument.name.lstrip("-").upper()
    value = token.value if token else ""
    choices = argument.get_choices() or ()
    if isinstance(error, ValidationError):
        cause = error.__cause__
        reason = error.exception_message
        if isinstance(cause, pydantic.ValidationError):
            first = cause.errors()[0]
            if first["type"] == "dict_type":
                fix = f"{name}.largest 20 for a setting named largest; {see_help(error)}"
                return ConfigError(f"{name} {shown(value)}", "a table, as in {largest = 20}", fix)
            reason = first["msg"]
        return ConfigError(f"{name} {value[:80]}: {reason}", fix=see_help(error))
    near = difflib.get_close_matches(value, choices, 1)
    expected = f"one of {', '.join(choices)}" if choices else type_words(argument)
    hint = f"did you mean {name} {near[0]}?" if near else see_help(error)
    return ConfigError(f"{name} {shown(value)}", expected, hint)


def type_words(argument: Argument) -> str:
    words = {int: "a whole number", float: "a number", bool: "true or false"}
    hints = (argument.resolved_hint, *getattr(argument.resolved_hint, "__args__", ()))
    return next((words[hint] for hint in hints if hint in words), "another value")


def takes_keys(error: CycloptsError) -> bool:
    """Whether the command has a recipe's keys as options."""
    collection: ArgumentCollection | None = getattr(error, "argument_collection", None)
    if collection is None and error.app is not None:
        collection = error.app.assemble_argument_collection()
    return any("--rollout.prompts" in argument.names for argument in collection or ())


def see_help(error: CycloptsError) -> str:
    return f"see `aha {' '.join([*(error.command_chain or ()), '--help'])}`"
