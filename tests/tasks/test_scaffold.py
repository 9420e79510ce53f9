"""A new task's package: its own tests pass, and fail when its task is wrong; pip would find it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import aha
from aha.core.errors import ConfigError
from aha.tasks.catalog import make_task
from aha.tasks.scaffold import new_task

SOURCES = str(Path(aha.__file__).parent.parent)


def own_tests(folder: Path) -> subprocess.CompletedProcess:
    path = os.pathsep.join([SOURCES, os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    return subprocess.run(
        words, cwd=folder, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )


def test_its_own_tests_pass_and_notice_a_wrong_task(tmp_path):
    folder = new_task("my-puzzle", tmp_path)
    done = own_tests(folder)
    assert done.returncode == 0 and "11 passed" in done.stdout, done.stdout
    module = folder / "my_puzzle.py"
    text = module.read_text()
    for right, wrong in (("max(problem", "min(problem"), (") == split:", ") != '':")):
        assert right in text
        text = text.replace(right, wrong)
    module.write_text(text)
    done = own_tests(folder)
    assert done.returncode == 1, done.stdout
    for name in ("test_no_two_splits_share_a_problem", "test_any_text_gets_a_verdict"):
        assert f"::{name}" in done.stdout


def test_its_wheel_is_found_by_name(tmp_path, monkeypatch):
    """What pip unpacks: the module, and the entry point beside it."""
    folder = new_task("my-puzzle", tmp_path)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=folder, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("my_puzzle-*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    task = make_task("my-puzzle", {"count": 5})
    problem = next(task.problems("train", 0))
    numbers = problem.given["numbers"]
    assert len(numbers) == 5 and task.grade(problem, f"<answer>{max(numbers)}</answer>").correct


@pytest.mark.parametrize(
    "name", ["", "My-Puzzle", "3d", "a b", "../up", "class", "countdown", "json", "aha", "-a", "é"]
)
def test_a_name_that_no_package_can_have_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="my-puzzle"):
        new_task(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path):
    before = new_task("mine", tmp_path) / "mine.py"
    before.write_text("# changed")
    with pytest.raises(ConfigError, match="exists already"):
        new_task("mine", tmp_path)
    assert before.read_text() == "# changed"


def test_a_task_of_an_older_version_still_works(tmp_path):
    """Its packages import the names that `new-task` wrote then."""
    folder = new_task("my-puzzle", tmp_path)
    module = folder / "my_puzzle.py"
    text = module.read_text()
    lines = [line for line in text.splitlines() if not line.startswith("from aha.tasks")]
    lines.insert(
        lines.index("from aha.core.seeds import seed_for") + 1,
        "from aha.tasks.splits import check_split, split_by_hash\n"
        "from aha.tasks.tags import judge_answer",
    )
    assert "grade_answer(" in text
    module.write_text("\n".join(lines).replace("grade_answer(", "judge_answer("))
    task = make_task(str(module), {})
    problem = next(task.problems("train", 0))
    answer = max(problem.given["numbers"])
    assert task.grade(problem, f"<answer>{answer}</answer>").reward == 1.0
