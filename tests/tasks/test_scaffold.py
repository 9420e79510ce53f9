"""A new task's package: its own tests pass, and fail when its task is wrong; pip would find it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import aha
from aha.core.errors import ConfigError
from aha.eval.suite import evaluate, held_out
from aha.model.folders import resolve_model
from aha.model.weights import load_model
from aha.rollout.engine import Sampling
from aha.rollout.native import open_engine
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
    assert done.returncode == 0 and "16 passed" in done.stdout, done.stdout
    module = folder / "my_puzzle.py"
    text = module.read_text()
    for right, wrong in (
        ("<= self.within", ">= self.within"),
        ("puzzles(split,", 'puzzles("train",'),
    ):
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
    task = make_task("my-puzzle", {"within": 1000})
    problem = next(task.problems("train", 0))
    answer = "+".join(map(str, problem.given["numbers"]))
    assert task.grade(problem, f"<answer>{answer}</answer>").correct


@pytest.mark.parametrize(
    "name", ["", "My-Puzzle", "3d", "a b", "../up", "class", "countdown", "json", "aha", "-a", "é"]
)
def test_a_name_that_no_package_can_have_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="my-puzzle"):
        new_task(name, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_in_the_place_of_its_file_is_told_which_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new_task("my-puzzle")
    with pytest.raises(ConfigError, match="no task 'my-puzzle'") as error:
        make_task("my-puzzle")
    named = error.value.fix.removeprefix("--task ").partition(",")[0]
    assert make_task(named).name == named
    Path("my-puzzle").rename("my puzzle")
    Path("my puzzle/my_puzzle.py").rename("my puzzle/my puzzle.py")
    with pytest.raises(ConfigError) as error:
        make_task("my puzzle")
    assert error.value.fix.startswith("--task 'my puzzle/my puzzle.py', or `pip install -e 'my")
    with pytest.raises(ConfigError, match="no task 'aaa"):
        make_task("a" * 300)  # no file may be called so


def test_what_is_there_is_not_overwritten(tmp_path):
    before = new_task("mine", tmp_path) / "mine.py"
    before.write_text("# changed")
    with pytest.raises(ConfigError, match="exists already"):
        new_task("mine", tmp_path)
    assert before.read_text() == "# changed"


OLDER = """\
from random import Random

from aha.core.records import Graded, Problem
from aha.core.seeds import seed_for
from aha.tasks.splits import check_split, split_by_hash
from aha.tasks.tags import answer_ending, judge_answer


class MyPuzzleTask:
    name = "my-puzzle"

    def problems(self, split, seed):
        check_split(split)
        rng = Random(seed_for(self.name, split, seed))
        while True:
            numbers = [rng.randint(1, 99) for _ in range(3)]
            key = ",".join(map(str, sorted(numbers)))
            if split_by_hash(key, 5) == split:
                yield Problem(f"{self.name}/{key}", self.name, {"numbers": numbers})

    def ask(self, problem):
        return f"largest of {problem.given['numbers']}\\n<think>\\n"

    def grade(self, problem, text):
        largest = str(max(problem.given["numbers"]))
        return judge_answer(text, lambda answer: (answer == largest, f"it is {largest}"))

    def solve(self, problem):
        return answer_ending(str(max(problem.given["numbers"])))
"""


def test_a_task_of_an_older_version_still_works(tmp_path):
    """Its packages import the names that `new-task` wrote then."""
    module = tmp_path / "my_puzzle.py"
    module.write_text(OLDER)
    task = make_task(str(module), {})
    problem = next(task.problems("train", 0))
    assert task.grade(problem, task.solve(problem)).reward == 1.0


def test_the_packaged_model_has_something_to_learn_from(tmp_path):
    """Of 8 completions of a puzzle some are right and some wrong, for most puzzles: otherwise the
    first command that `aha new-task` prints would train on nothing."""
    task = make_task(str(new_task("my-puzzle", tmp_path) / "my_puzzle.py"), {})
    model = load_model(resolve_model("aha-tiny"))
    prompts = held_out(task, model.tokenizer, "validation", 12, 0)
    engine = open_engine(model.policy, model.tokenizer)
    report = evaluate(engine, task, prompts, Sampling(200, 8, 1.0, 0))
    solved = [sum(graded.correct for graded in group) for group in report.graded]
    assert sum(0 < count < 8 for count in solved) >= 6, solved
