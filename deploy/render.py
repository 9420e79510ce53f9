"""Fills a template of this folder in, and prints it.

    python deploy/render.py skypilot.yaml NAME=first RECIPE=demo RANKS=8 BUCKET=runs > task.yaml

A template has its values as @NAME@. Every one that it has must be given, and no other. A line that
ends in `@if GPUS@` or `@unless GPUS@` is there where GPUS is given, or where it is not; values that
such lines alone have are needed there alone. What they mean: docs/scale.md.
"""

import re
import sys
from collections.abc import Collection
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIELD = re.compile(r"@([A-Z]+)@")
ONLY = re.compile(r" *@(if|unless) ([A-Z]+)@$")
# What a shell and YAML read as it stands.
PLAIN = re.compile(r"[A-Za-z0-9._/:+-]+")


def templates() -> list[str]:
    """The names of all templates."""
    return sorted(path.name for path in HERE.iterdir() if path.suffix in (".sh", ".yaml"))


def options(name: str) -> list[str]:
    """The values on which lines of a template depend, so that they may be left out."""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return sorted({match[2] for line in lines if (match := ONLY.search(line))})


def text_for(name: str, given: Collection[str]) -> str:
    """The lines of a template that are there with these values."""
    lines = []
    for line in (HERE / name).read_text(encoding="utf-8").splitlines():
        only = ONLY.search(line)
        if only is None or (only[2] in given) == (only[1] == "if"):
            lines.append(line[: only.start()] if only else line)
    return "".join(f"{line}\n" for line in lines)


def fields(name: str, given: Collection[str] = ()) -> list[str]:
    """The values that a template needs, where `given` are those that it may have."""
    chosen = set(options(name)) & set(given)
    return sorted(set(FIELD.findall(text_for(name, given))) | chosen)


def render(name: str, values: dict[str, str]) -> str:
    """The template with its values. Raises ValueError for a value that is missing, that the
    template does not have, or that a shell would not read as it stands."""
    if name not in templates():
        raise ValueError(f"no template {name!r}; wanted one of {', '.join(templates())}")
    needed = fields(name, values)
    missing, more = set(needed) - set(values), set(values) - set(needed)
    if missing or more:
        words = [f"no {field}" for field in sorted(missing)]
        words += [f"{field}, which it does not have" for field in sorted(more)]
        may = "".join(f", and may have {field}" for field in options(name) if field not in values)
        raise ValueError(f"{name}: {', '.join(words)}; it needs {' '.join(needed)}{may}")
    for field, value in values.items():
        if not PLAIN.fullmatch(value):
            raise ValueError(f"{field}={value!r}; wanted letters, digits and . _ / : + -")
    return FIELD.sub(lambda match: values[match[1]], text_for(name, values))


def main(words: list[str]) -> int:
    """Print a template that has been filled in; exit code 2 and a line for wrong words."""
    try:
        if not words:
            raise ValueError(f"no template; wanted one of {', '.join(templates())}")
        pairs = [word.partition("=") for word in words[1:]]
        wrong = [field for field, equals, _ in pairs if not equals]
        if wrong:
            raise ValueError(f"{wrong[0]!r}; wanted FIELD=VALUE")
        print(render(words[0], {field: value for field, _, value in pairs}), end="")
    except ValueError as error:
        print(f"render.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
