"""100,000 made-up recipes and 100,000 made-up command lines: never a traceback, never a hang.

Opt-in: `pytest -m fuzz tests/cli/test_main_fuzz.py`. A few hundred of each are tried always.
"""

import time
from pathlib import Path
from typing import Any

import pytest
from cyclopts import CycloptsError
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aha.algo.recipe import load_recipe
from aha.api.recipe_names import find_recipe, packaged_recipes
from aha.cli.error_translation import as_user_error
from aha.cli.main import COMMANDS, app, usage_error
from aha.cli.recipe_keys import overrides_of
from aha.core.config import known_keys
from aha.core.errors import AhaError

from ..fuzz import tries

SECONDS = 5.0  # of one input, on a busy machine
MANY = tries(100_000)
FEW = 100

# -- recipes --------------------------------------------------------------------------------------

KEYS = known_keys()
NAMES = sorted({part for key in KEYS for part in key.split(".")})
RECIPES = [find_recipe(name).read_bytes() for name in packaged_recipes()]
PIECES = (
    *(
        "[",
        "]",
        "{",
        "}",
        "=",
        ".",
        ",",
        "'",
        '"',
        '"""',
        "'''",
        "#",
        "\n",
        "\r",
        "\0",
        "\\",
        "\\u",
    ),
    *(
        "nan",
        "inf",
        "-inf",
        "1e400",
        "9" * 400,
        "9" * 5_000,
        "0x",
        "2026-01-01",
        "true",
        "[[",
        "]]",
    ),
    *(
        "[" * 2_000,
        "{a=" * 2_000,
        "a." * 2_000,
        "\ufeff",
        "\ud7ff",
        "\U0001f4a9",
        "-",
        "_",
        "+",
        "e",
    ),
)

words = st.one_of(st.sampled_from(NAMES), st.sampled_from(KEYS), st.text(max_size=8))
numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -1, 0, 2**63, 10**9]))
values: Any = st.recursive(
    st.one_of(numbers, st.booleans(), st.none(), words, st.dates(), st.binary(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(words, inner, max_size=3), st.tuples(inner)
    ),
    max_leaves=4,
)


@st.composite
def mutated_recipe(draw: Any) -> bytes:
    """A packaged recipe after a few cuts, repetitions and insertions."""
    text = draw(st.sampled_from(RECIPES))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        piece = st.one_of(st.sampled_from(PIECES).map(str.encode), st.binary(max_size=6))
        text = text[:start] + draw(st.one_of(piece, st.just(text[start:end] * 2))) + text[end:]
    return text


lines = st.tuples(words, st.sampled_from(["=", " = ", "", ".x = "]), st.sampled_from(PIECES))
made_up = st.lists(lines, max_size=5).map(lambda rows: "\n".join(map("".join, rows)).encode())
recipes = st.one_of(mutated_recipe(), made_up, st.binary(max_size=60))


def short_line(error: AhaError) -> None:
    assert "\n" not in str(error) and len(str(error)) < 3_000, str(error)[:200]


def recipe_is_read_or_refused(path: Path, content: bytes, overrides: dict[str, Any]) -> None:
    path.write_bytes(content)
    began = time.monotonic()
    for recipe in (path, None):
        try:
            load_recipe(recipe, overrides)
        except AhaError as error:
            short_line(error)
    assert time.monotonic() - began < SECONDS


def fuzzed(examples: int) -> Any:
    """No shrinking by time, and other inputs at every call of the long one."""
    phases = (Phase.explicit, Phase.generate, Phase.shrink)
    checks = list(HealthCheck)
    return settings(
        max_examples=examples,
        deadline=None,
        phases=phases,
        suppress_health_check=checks,
        derandomize=examples == FEW,
        database=None,
    )


dotted = st.one_of(st.sampled_from(KEYS), st.lists(words, min_size=1, max_size=4).map(".".join))
changes = st.dictionaries(dotted, values, max_size=2)


@fuzzed(FEW)
@given(recipes, changes)
def test_a_recipe_is_read_or_refused(tmp_path_factory, content, overrides):
    path = tmp_path_factory.getbasetemp() / "few.toml"
    recipe_is_read_or_refused(path, content, overrides)


@pytest.mark.fuzz
@pytest.mark.timeout(7_200)
@fuzzed(MANY)
@given(recipes, changes)
def test_many_recipes_are_read_or_refused(tmp_path_factory, content, overrides):
    path = tmp_path_factory.getbasetemp() / "many.toml"
    recipe_is_read_or_refused(path, content, overrides)


# -- command lines --------------------------------------------------------------------------------

OPTIONS = sorted(
    {
        name
        for command in (*COMMANDS, "eval")
        for argument in app[command].assemble_argument_collection()
        for name in argument.names
    }
)
typed = st.one_of(
    st.sampled_from(
        [*packaged_recipes(), "-", "--", "-1", "nan", "inf", "1e400", "", "\0", "true"]
    ),
    st.sampled_from(PIECES),
    st.text(max_size=12),
    st.integers().map(str),
)
option = st.one_of(
    st.sampled_from(OPTIONS),
    st.tuples(st.sampled_from(OPTIONS), typed).map("=".join),
    dotted.map(lambda key: f"--{key}"),
)
command_lines = st.tuples(
    st.one_of(st.sampled_from([*COMMANDS, "eval", "config"]), typed),
    st.lists(st.one_of(option, typed), max_size=6),
)


def command_line_is_parsed_or_refused(line: tuple[str, list[str]]) -> None:
    """Everything before the command itself runs: its options, its recipe and the changes of it."""
    began = time.monotonic()
    try:
        command, bound, *_ = app.parse_args(
            [line[0], *line[1]], exit_on_error=False, print_error=False
        )
        if "overrides" in bound.arguments:
            recipe = bound.arguments.get("recipe")
            path = find_recipe(recipe) if isinstance(recipe, str) else None
            load_recipe(path, overrides_of(bound.arguments["overrides"]))
    except CycloptsError as error:
        short_line(usage_error(error))
    except Exception as error:  # as `run` does
        known = as_user_error(error)
        if known is None:
            raise
        short_line(known)
    assert time.monotonic() - began < SECONDS


@fuzzed(FEW)
@given(command_lines)
def test_a_command_line_is_parsed_or_refused(line):
    command_line_is_parsed_or_refused(line)


@pytest.mark.fuzz
@pytest.mark.timeout(7_200)
@fuzzed(MANY)
@given(command_lines)
def test_many_command_lines_are_parsed_or_refused(line):
    command_line_is_parsed_or_refused(line)
