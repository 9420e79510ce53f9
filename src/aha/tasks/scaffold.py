"""`aha new-task NAME`: a small package with a task, its tests and its entry point, ready to change.

The example asks for the largest of some numbers: short enough to read at once, and with all that a
task needs. The package is one module, so that it also runs as a plain file.
"""

import keyword
import sys
from pathlib import Path

from aha.core.errors import ConfigError
from aha.tasks.catalog import PACKAGED

PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.26"]
build-backend = "hatchling.build"

[project]
name = "@name@"
version = "0.1.0"
description = "A task for Aha"
requires-python = ">=3.11"
dependencies = ["aha"]

# What makes `aha train RECIPE --task @name@` find it once it is installed.
[project.entry-points."aha.tasks"]
"@name@" = "@module@:@cls@"

[tool.hatch.build.targets.wheel]
only-include = ["@module@.py"]

[tool.pytest.ini_options]
pythonpath = ["."]
"""

README = """\
# @name@

A task for Aha. Change `@module@.py`, keep the tests true, and train on it:

```
aha problems --task @module@.py --n 3
aha train demo --task @module@.py
```

After `pip install -e .` its name is enough, from any folder: `--task @name@`. Tests: `pytest`.
"""

MODULE = '''\
"""The task @name@: find the largest of some numbers."""

from collections.abc import Iterator
from random import Random

from aha.core.records import Graded, Problem
from aha.core.seeds import seed_for
from aha.tasks.splits import check_split, split_by_hash
from aha.tasks.tags import answer_ending, grade_answer

HELD_OUT_PERCENT = 5  # of all problems, in test and in validation each


class @cls@:
    """A reward of 1 for the largest number and 0 for anything else."""

    name = "@name@"

    def __init__(self, count: int = 3):
        self.count = count  # set by --task.options.count 5

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """Each once. The split is a function of the problem, so that no two splits share one."""
        check_split(split)
        rng, seen = Random(seed_for(self.name, split, seed)), set()
        for _ in range(1_000_000):
            numbers = [rng.randint(1, 99) for _ in range(self.count)]
            key = ",".join(map(str, sorted(numbers)))
            if key not in seen and split_by_hash(key, HELD_OUT_PERCENT) == split:
                seen.add(key)
                yield Problem(f"{self.name}/{key}", self.name, {"numbers": numbers})

    def ask(self, problem: Problem) -> str:
        """One line, and the tag after which the model goes on."""
        return f"largest of {' '.join(map(str, problem.given['numbers']))}\\n<think>\\n"

    def grade(self, problem: Problem, text: str) -> Graded:
        """By the last <answer> block alone."""
        largest = max(problem.given["numbers"])

        def check(answer: str) -> tuple[bool, str]:
            right = answer.strip() == str(largest)
            return right, f"the largest is {largest}"

        return grade_answer(text, check)

    def solve(self, problem: Problem) -> str:
        """A right completion: `aha doctor` looks whether `grade` pays for it."""
        return f"I compare them.\\n{answer_ending(str(max(problem.given['numbers'])))}"
'''

TESTS = '''\
"""What every task must keep: separate splits, an order by the seed, a reward for any text."""

from itertools import islice
from pathlib import Path

import pytest
from aha.core.records import Problem
from aha.tasks.catalog import make_task
from @module@ import @cls@

TASK = @cls@()
PROBLEM = Problem("@name@/1", "@name@", {"numbers": [31, 7, 80, 9]})


def drawn(split: str, seed: int = 0) -> list[str]:
    return [problem.id for problem in islice(TASK.problems(split, seed), 2000)]


def test_no_two_splits_share_a_problem():
    train, validation, test = map(set, map(drawn, ("train", "validation", "test")))
    assert train.isdisjoint(validation | test) and validation.isdisjoint(test)


def test_a_problem_comes_up_once():
    assert len(set(drawn("train"))) == 2000


def test_the_seed_alone_decides_the_order():
    assert drawn("train") == drawn("train") != drawn("train", seed=1)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("7 < 9 < 31 < 80\\n</think>\\n<answer>80</answer>", 1.0),
        ("<answer> 80\\n</answer>", 1.0),
        ("<answer>31</answer>", 0.0),
        ("<answer>80</answer> no, <answer>31</answer>", 0.0),
        ("80", 0.0),
        ("", 0.0),
        ("\\0\\ud800" * 1000, 0.0),
    ],
)
def test_any_text_gets_a_verdict(text, reward):
    graded = TASK.grade(PROBLEM, text)
    assert graded.reward == reward and graded.correct is (reward == 1.0) and graded.reason


def test_it_works_isolated_as_in_a_run():
    task = make_task(str(Path(__file__).parent.parent / "@module@.py"))
    problem = next(task.problems("train", 0))
    assert task.ask(problem).startswith("largest of ")
    assert task.grade(problem, task.solve(problem)).correct
'''

FILES = {
    "pyproject.toml": PYPROJECT,
    "README.md": README,
    "@module@.py": MODULE,
    "tests/test_@module@.py": TESTS,
}


def new_task(name: str, parent: Path = Path(".")) -> Path:
    """Write the package of a task `name` into a new folder of that name; returns the folder.

    Raises `ConfigError` for a name that no package can have, and for a folder that exists.
    """
    module = name.replace("-", "_")
    fix = "aha new-task my-puzzle"
    fits = module.isascii() and module.isidentifier() and module == module.lower().strip("_")
    if not fits or keyword.iskeyword(module):
        raise ConfigError(f"the name {name!r}", "lower-case letters, digits and hyphens", fix)
    if name in PACKAGED or module == "aha" or module in sys.stdlib_module_names:
        raise ConfigError(f"the name {name!r}", "one that is not taken", fix)
    folder = parent / name
    if folder.exists():
        raise ConfigError(f"{folder} exists already", "a new folder", "choose another name")
    words = {"@name@": name, "@module@": module, "@cls@": class_name(module)}
    for path, text in FILES.items():
        target = folder / filled(path, words)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(filled(text, words), encoding="utf-8")
    return folder


def class_name(module: str) -> str:
    """`my_puzzle` -> `MyPuzzleTask`."""
    return "".join(part.capitalize() for part in module.split("_")) + "Task"


def filled(text: str, words: dict[str, str]) -> str:
    """The text with each mark replaced by its word."""
    for mark, word in words.items():
        text = text.replace(mark, word)
    return text
