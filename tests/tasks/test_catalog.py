"""Tasks by name, and what is said when there is none."""

import sys
from importlib.metadata import EntryPoint

import pytest

from aha.core.config import RunConfig
from aha.core.errors import ConfigError, MissingExtra
from aha.tasks import catalog
from aha.tasks.catalog import make_task
from aha.tasks.countdown import Countdown
from aha.tasks.isolation import IsolatedTask
from aha.tasks.multiply import Multiply

CLASS = """
class Echo:
    name = "echo"
    def __init__(self, word: str = "hello"):
        self.word = word
    def problems(self, split, seed):
        yield from ()
    def ask(self, problem):
        return self.word
    def grade(self, problem, text):
        return float(text == self.word)
"""


def refused(match: str, *args) -> str:
    with pytest.raises(ConfigError, match=match) as caught:
        make_task(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_packaged_tasks_stand_without_a_fence():
    task = make_task("countdown", {"numbers": (3, 4), "verifier": "tinyzero"})
    assert type(task) is Countdown
    assert (task.numbers, task.verifier) == ((3, 4), "tinyzero")
    assert type(make_task("multiply", {"digits": [2, 3]})) is Multiply


def test_a_class_in_a_file_is_a_task_behind_the_fence(tmp_path):
    path = tmp_path / "echo.py"
    path.write_text(CLASS)
    task = make_task(str(path), {"word": "hi"})
    assert type(task) is IsolatedTask and task.ask(None) == "hi"
    assert task.grade(None, "hi").reward == 1.0, "the settings reach the worker too"


def test_an_installed_task_is_found_by_its_entry_point(tmp_path, monkeypatch):
    (tmp_path / "their_echo.py").write_text(CLASS)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "their_echo-1.dist-info").mkdir()
    entries = "[aha.tasks]\necho = their_echo:Echo\nechoes = their_echo\n"
    (tmp_path / "their_echo-1.dist-info" / "entry_points.txt").write_text(entries)
    (tmp_path / "their_echo-1.dist-info" / "METADATA").write_text("Name: their_echo\nVersion: 1\n")
    for name in ("echo", "echoes"):
        task = make_task(name)
        assert task.ask(None) == "hello" and task.grade(None, "hello").correct
    assert isinstance(catalog.installed()["echo"], EntryPoint)
    assert "did you mean 'echo'?" in refused("no task 'ecko'", "ecko")


def test_an_unknown_name_says_which_there_are():
    text = refused("no task 'mutliply'", "mutliply")
    assert "did you mean 'multiply'?" in text and "gym:NAME" in text
    assert "aha new-task" in refused("no task 'qqqq'", "qqqq")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (None, "no file"),
        ("x = 1", "0 tasks"),
        (CLASS + CLASS.replace("Echo", "Other"), "2 tasks"),
        ("import nowhere_at_all", "ModuleNotFoundError"),
        ("def problems(", "SyntaxError"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_file_that_is_no_task_is_one_line(tmp_path, source, words):
    path = tmp_path / "mine.py"
    if source is not None:
        path.write_text(source)
    assert "mine.py" in refused(words, str(path))


def test_a_setting_that_nothing_reads_is_refused(tmp_path):
    path = tmp_path / "echo.py"
    path.write_text(CLASS)
    assert "word" in refused("numbers", str(path), {"numbers": (4,)})
    assert "digits" in refused("verifier 'tinyzero'", "multiply", {"verifier": "tinyzero"})


def test_a_constructor_that_raises_is_one_line(tmp_path):
    path = tmp_path / "echo.py"
    path.write_text(CLASS.replace("self.word = word", "self.word = word.upper()"))
    refused("AttributeError", str(path), {"word": 5})


def test_a_recipe_hands_on_what_it_changed_and_the_options():
    assert RunConfig().task.settings() == {}
    raw = {"name": "multiply", "template": "r1", "options": {"digits": [2, 3]}}
    cfg = RunConfig.model_validate({"task": raw})
    assert cfg.task.settings() == {"template": "r1", "digits": [2, 3]}


def test_reasoning_gym_without_its_extra_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)  # as if it were not installed
    with pytest.raises(MissingExtra, match="aha\\[gym\\]"):
        make_task("gym:chain_sum")
