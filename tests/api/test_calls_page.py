"""The examples of docs/python.md and the lesson run, with the smallest settings."""

import re

from ..pages import DOCS, read

# A page trains for a minute; its test, for a moment.
SMALL = ', "group_size": 2, "max_new_tokens": 16}, eval={"every": 0, "final": 2}'


def run_small(code: str, steps: str) -> tuple[dict, int]:
    """(names, calls of train) of a text whose steps and sizes are made small."""
    code, changed = re.subn(steps, lambda m: m[0].replace("12", "1"), code)
    assert changed == 1
    code, calls = re.subn(r'rollout=\{"prompts": 16\}', f'rollout={{"prompts": 2{SMALL}', code)
    names: dict = {}
    exec(compile(code, "page", "exec"), names)
    return names, calls


def test_the_ten_lines_of_the_page_train(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    example = re.search(r"```python\n(import random.*?)```", read(DOCS / "python.md"), re.DOTALL)[1]
    logic = [line for line in example.splitlines() if line.strip() and '"""' not in line]
    assert len(logic) <= 14
    names, calls = run_small(example, r"steps=12\b")
    assert calls == 1 and names["run"].finished and len(names["run"].rows) == 1
    assert "<run 'runs/right'" in capsys.readouterr().out


def test_the_lesson_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code = read(DOCS / "lessons" / "own_reward.py")
    assert code.count("# %%\n") == 7, "cells of code, as jupytext and marimo read them"
    names, calls = run_small(code, r"STEPS = 12\b")
    assert calls == 2 and names["both"].finished and names["run"].path != names["both"].path
    assert "reward_short" in capsys.readouterr().out


def test_every_call_and_attribute_of_the_page_exists():
    import aha
    from aha.api.run_result import RunResult

    page = read(DOCS / "python.md")
    for name in re.findall(r"`aha\.(\w+)\(", page):
        assert name in aha.__all__, name
    table = re.search(r"\| of a run \|.*?\n\n", page, re.DOTALL)[0]
    for name in re.findall(r"`(\w+)[`(]", table):
        assert hasattr(RunResult, name) or name in ("path", "DataFrame"), name
