"""The three programs of `benchmarks/first_reward/`: how their lines are counted."""

import ast
import importlib.util

from ..pages import DOCS, ROOT, read

FOLDER = ROOT / "benchmarks" / "first_reward"


def script():
    path = ROOT / "benchmarks" / "first_reward_seconds.py"
    spec = importlib.util.spec_from_file_location("first_reward_seconds", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_lines_with_code_are_counted():
    lines = ['"""A module', 'with words."""', "", "import os  # why", "", "# a comment"]
    lines += ["x = [", "    1,", "]", "", "def f():", "    return x"]
    source = "\n".join(lines)
    assert script().count_lines(source) == 6
    assert script().count_lines("# nothing\n\n") == 0


def test_the_page_quotes_the_lines_that_are_counted():
    page = read(DOCS / "python.md")
    for name in script().PROGRAMS:
        source = (FOLDER / f"with_{name}.py").read_text(encoding="utf-8")
        ast.parse(source)
        count = script().count_lines(source)
        assert f"](../benchmarks/first_reward/with_{name}.py) | {count} |" in page, (name, count)
