"""Write docs/commands.md and docs/config.md from the code itself.

    python scripts/reference_pages.py            # writes them
    python scripts/reference_pages.py --check    # names those that differ; exit status 1

The commands' docstrings, their parameters' types and defaults, and the descriptions of the recipe's
keys in src/aha/core/config.py are the only source: change them there.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cyclopts import App
from cyclopts.argument import Argument

from aha.cli.main import app
from aha.cli.recipe_keys import GROUP, SHORT_OPTIONS, RecipeKey, as_toml, recipe_keys

DOCS = Path(__file__).resolve().parent.parent / "docs"

COMMANDS = """\
# Commands

<!-- Written by scripts/reference_pages.py; change the docstrings in src/aha/cli instead. -->

{summary}

Every command ends with exit code 0 when it is done, 2 for wrong input (one line on the error
stream: what it got, what it wanted, the fix), 130 after Ctrl-C and 143 after SIGTERM. A run ends
with 1 where a fault has ended it and with 3 where its budget is spent. These end with 1 too: `aha
doctor` where a check failed, `aha eval` where too many grades failed, `aha lab` and `aha study`
where a run or a cell failed, `aha verify-resume` where two runs differ. So does every command that
meets a fault of the program; it prints the traceback. `aha COMMAND --help` prints what follows.

{commands}"""

CONFIG = """\
# Keys of a recipe

<!-- Written by scripts/reference_pages.py; change src/aha/core/config.py instead. -->

A recipe is a TOML file with the keys below. Defaults are overridden by the recipe, and the recipe
by options on the command line: `--optim.lr 3e-4` sets `lr` under `[optim]`. A value is read as
TOML, so that a list is `--task.numbers "[3, 4]"`. Short forms:
{short}.

```toml
# mine.toml; `aha train mine.toml`
steps = 200

[optim]
lr = 4e-4
```

An unknown key is an error that names the nearest one. A key that the chosen algorithms do not read
is an error too. `aha config show RECIPE` prints all keys of a recipe with their values, and
`aha train RECIPE --help` with their meaning. Installed packages may add names of algorithms.

{sections}"""


def commands_page() -> str:
    commands = dict(leaf_commands(app, ("aha",)))
    lines = ["| command | what it does |", "|---|---|"]
    for name, command in commands.items():
        short = description_of(command).partition("\n")[0]
        anchor = name.replace(" ", "-")
        lines.append(f"| [`{name}`](#{anchor}) | {cell(short)} |")
    details = "\n".join(command_section(name, command) for name, command in commands.items())
    return COMMANDS.format(summary="\n".join(lines), commands=details)


def leaf_commands(parent: App, chain: tuple[str, ...]) -> Iterator[tuple[str, App]]:
    """("aha config show", its app) for each command that runs something, by name."""
    for name in sorted(name for name in parent if not name.startswith("-")):
        command, words = parent[name], (*chain, name)
        if command.default_command:
            yield " ".join(words), command
        else:
            yield from leaf_commands(command, words)


def description_of(command: App) -> str:
    """The command's docstring up to its parameters."""
    text = inspect.getdoc(command.default_command) or ""
    return re.split(r"\n\s*Parameters\n-+\n", text)[0].strip()


def command_section(name: str, command: App) -> str:
    arguments = [
        one for one in command.assemble_argument_collection(parse_docstring=True) if one.show
    ]
    keys = [argument.names[0] for argument in arguments if is_key(argument)]
    own = [argument for argument in arguments if not is_key(argument)]
    usage = [name]
    for argument in own:
        if argument.index is not None:
            label = label_of(argument)
            usage.append(label if argument.required else f"[{label}]")
    usage += [f"{one.names[0]} VALUE" for one in own if one.required and one.index is None]
    if keys or [one for one in own if one.index is None and not one.required]:
        usage.append("[OPTIONS]")
    parts = [f"## {name}", description_of(command), f"Usage: `{' '.join(usage)}`"]
    if own:
        rows = ["| parameter | meaning | default |", "|---|---|---|"]
        parts.append("\n".join(rows + [argument_row(argument) for argument in own]))
    if keys:
        left_out = [key.name for key in recipe_keys() if f"--{key.name}" not in keys]
        but = f", except {', '.join(f'`{key}`' for key in left_out)}" if left_out else ""
        parts.append(f"Also every [key of a recipe](config.md) as an option{but}.")
    return "\n\n".join(parts) + "\n"


def is_key(argument: Argument) -> bool:
    """Whether the argument sets a key of a recipe, and not something of the command's own."""
    groups = argument.parameter.group or ()
    return any(group.name.startswith(GROUP) for group in groups if not isinstance(group, str))


def label_of(argument: Argument) -> str:
    repeated = "..." if argument.field_info.kind is argument.field_info.VAR_POSITIONAL else ""
    long_name = next((name for name in argument.names if name.startswith("--")), argument.name)
    return long_name.lstrip("-").upper().replace("-", "_") + repeated


def argument_row(argument: Argument) -> str:
    names = [name for name in argument.names if name.startswith("-")]
    label = label_of(argument) if argument.index is not None else ", ".join(names)
    meaning = argument.parameter.help or ""
    if choices := argument.get_choices():
        meaning += f" One of {', '.join(choices)}."
    return f"| `{label}` | {cell(meaning.strip())} | {cell(default_of(argument))} |"


def default_of(argument: Argument) -> str:
    default: Any = argument.field_info.default
    if argument.required:
        return "required"
    if default in (None, "", argument.field_info.empty):
        return ""
    return f"`{as_toml(default)}`"


def config_page() -> str:
    listed = ", ".join(f"`{option}` for `--{name}`" for name, option in SHORT_OPTIONS.items())
    sections: dict[str, list[RecipeKey]] = {}
    for key in recipe_keys():
        sections.setdefault(key.section, []).append(key)
    tables = [section_table(section, keys) for section, keys in sections.items()]
    return CONFIG.format(short=listed, sections="\n".join(tables))


def section_table(section: str, keys: list[RecipeKey]) -> str:
    title = f"## `[{section}]`" if section else "## The run itself"
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for key in keys:
        values = ", ".join(f"`{choice}`" for choice in key.choices) or key.kind.lower()
        values += f" {key.bounds}" if key.bounds else ""
        readers = ", ".join(f"`{reader}`" for reader in key.readers)
        meaning = f"{key.meaning} Read by {readers}." if readers else key.meaning
        default = as_toml(key.default)
        rows.append(f"| `{key.name}` | {cell(values)} | `{default}` | {cell(meaning)} |")
    return "\n\n".join(filter(None, [title, keys[0].section_meaning, "\n".join(rows)])) + "\n"


def cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PAGES = {"commands.md": commands_page, "config.md": config_page}


def stale() -> list[str]:
    """Names of the pages that differ from what the code says."""
    return [
        name
        for name, page in PAGES.items()
        if not (DOCS / name).is_file() or (DOCS / name).read_text(encoding="utf-8") != page()
    ]


if __name__ == "__main__":
    different = stale()
    if sys.argv[1:] == ["--check"]:
        print(*different, sep="\n")
        sys.exit(bool(different))
    for name in different:
        (DOCS / name).write_text(PAGES[name](), encoding="utf-8")
        print(f"wrote docs/{name}")
