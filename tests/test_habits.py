"""docs/habits.md: the tests that it names exist, and the habits that need no room of their own."""

import ast
import json
import re
from pathlib import Path

import pytest

from .pages import DOCS, README, ROOT, read

PAGE = DOCS / "habits.md"
ROW = re.compile(r"^\| (\d+) \| (.+?) \| (.+?) \| (.*?) ?\|$", re.MULTILINE)
NAMED = re.compile(r"`(tests/[\w/.]+\.py)`(?: `(\w+)`)?")


def rows() -> list[tuple[int, str, str, str]]:
    return [(int(number), *rest) for number, *rest in ROW.findall(read(PAGE))]


def test_all_forty_are_there_in_order_and_what_works_is_shown():
    assert [number for number, *_ in rows()] == list(range(1, 41))
    for number, _, state, evidence in rows():
        assert re.match(r"works|partly: .|missing|\[argued\]\(", state), (number, state)
        assert evidence or not state.startswith("works"), f"{number} works, and nothing shows it"


@pytest.mark.parametrize(
    ("name", "function"), sorted({*NAMED.findall(read(PAGE))}), ids=lambda value: value
)
def test_a_test_that_the_page_names_exists(name, function):
    path = ROOT / name
    assert path.is_file()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert not function or (function in names and function.startswith("test_"))


def test_the_first_screen_of_readme_has_a_sentence_a_command_and_a_picture():
    screen = "\n".join(read(README).splitlines()[:36])
    assert re.search(r"^\*\*Aha trains a language model .+\*\*$", screen, re.MULTILINE)
    assert "make demo" in screen and "![" in screen


def test_the_constraints_name_no_cuda_package():
    names = [line.partition("==")[0] for line in read(ROOT / "constraints.txt").splitlines()]
    cuda = [name for name in names if re.match(r"nvidia|cuda|triton", name)]
    assert "torch" in names and cuda == []


def test_the_metrics_are_lines_of_plain_json(tmp_path):
    """Read by Python's own json, with values that a table can hold."""
    from aha.store.run_folder import Run, append

    run = Run.create(tmp_path / "run", {})
    append(run.metrics, [{"step": 1, "reward": 0.5}, {"step": 2, "reward": float("nan")}])
    lines = Path(run.metrics).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "reward": 0.5},
        {"step": 2, "reward": None},
    ]
