"""README's pair of completions: made by a script from the records of a run."""

import importlib.util
import re
import sys

import pytest

from aha.behaviors.turn import Turn
from aha.web.run_comparison import compare_before_after
from aha.web.runs import RunFolder
from aha.web.turn_view import telling_pair
from aha.web.ways_of_run import turn_of_run

from .pages import README, ROOT, read
from .web.turning import make_turning_run


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("before_after", ROOT / "scripts/before_after.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return RunFolder(make_turning_run(tmp_path_factory.mktemp("runs") / "turns"))


def call(script, monkeypatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["before_after.py", *map(str, words)])
    script.main()


def test_the_pair_of_readme_is_made_again_from_a_run(script, run, tmp_path, monkeypatch, capsys):
    page = tmp_path / "README.md"
    page.write_text(read(README), encoding="utf-8")
    call(script, monkeypatch, run.path, "--page", page)
    turn = turn_of_run(run)
    assert isinstance(turn, Turn)
    before, after = telling_pair(compare_before_after(run), turn).pair
    name = before["prompt"].splitlines()[0]
    assert capsys.readouterr().out == f"{name}: wrong before, right after\n"
    made = page.read_text(encoding="utf-8")
    assert f"before and after (`{name}`" in made
    texts = re.findall(r"<pre>\n(.*?)\n</pre>", made, re.DOTALL)
    assert texts[:2] == [
        row["completion"].strip().replace("<", "&lt;").replace(">", "&gt;")
        for row in (before, after)
    ]
    # Nothing else of the page has changed, and once more changes nothing.
    outside = re.compile(r"<pre>\n.*?\n</pre>|(?<=after \(`)[^`]+", re.DOTALL)
    assert outside.sub("", made) == outside.sub("", read(README))
    call(script, monkeypatch, run.path, "--page", page)
    assert page.read_text(encoding="utf-8") == made


def test_a_puzzle_by_name_and_one_that_is_not_there(script, run, monkeypatch, capsys):
    other = compare_before_after(run).pairs[7][0]["prompt"].splitlines()[0]
    call(script, monkeypatch, run.path, "--print", "--puzzle", other)
    shown = capsys.readouterr().out
    assert shown.startswith(f"{other}: ") and shown.count("<pre>") == 2
    with pytest.raises(SystemExit, match="has no 'numbers 1 2 3 target 4'"):
        call(script, monkeypatch, run.path, "--puzzle", "numbers 1 2 3 target 4")
