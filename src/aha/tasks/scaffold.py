"""`aha new-task NAME`: a small package with a task, its tests and its entry point, ready to change.

The example is Countdown with a margin: short enough to read at once, with all that a task needs,
and in words that aha-tiny knows, so that the first command after it shows a model that learns. The
package is one module, so that it also runs as a plain file.
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
aha train demo --task @module@.py
aha problems --task @module@.py --n 3
aha doctor demo --task @module@.py
```

After `pip install -e .`, in the environment that has Aha, its name is enough, from any folder:
`--task @name@`. Tests: `pip install pytest`, then `python -m pytest`.
"""

MODULE = '''\
"""The task @name@: come close to a target.

Its prompt is the line that aha-tiny has read about, so that this model finds right answers by
chance and learns from them: where every completion is wrong there is nothing to learn. Another
prompt needs a model that has read such text.
"""

from collections.abc import Iterator

from aha.core.records import Graded, Problem
from aha.tasks.countdown import Countdown, puzzle_line, puzzles
from aha.tasks.expression import Unreadable, read_expression
from aha.tasks.splits import check_split
from aha.tasks.tags import grade_answer, plain_frame


class @cls@:
    """A reward of 1 for an expression of all given numbers whose value is the target or at most
    `within` away from it, and 0 for anything else."""

    name = "@name@"

    def __init__(self, within: int = 2):
        self.within = within  # set by --task.options.within 5

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """Each once. The split is a function of the problem, so that no two splits share one:
        `puzzles` does it here, `aha.tasks.splits.split_by_hash` for problems of your own."""
        check_split(split)
        for numbers, target, _ in puzzles(split, seed, (3,)):
            key = f"{'-'.join(map(str, numbers))}={target}"
            yield Problem(f"{self.name}/{key}", self.name, {"numbers": numbers, "target": target})

    def ask(self, problem: Problem) -> str:
        """One line, and the tag after which the model goes on."""
        return plain_frame(puzzle_line(problem.given["numbers"], problem.given["target"]))

    def grade(self, problem: Problem, text: str) -> Graded:
        """By the last <answer> block alone."""
        numbers, target = problem.given["numbers"], problem.given["target"]

        def check(answer: str) -> tuple[bool, str]:
            try:
                expression = read_expression(answer)
            except Unreadable as reason:
                return False, f"not an expression: {reason}"
            if sorted(expression.numbers) != sorted(numbers):
                return False, "does not use every number once"
            close = abs(expression.value - target) <= self.within
            return close, f"makes {expression.value}, and the target is {target}"

        return grade_answer(text, check)

    def solve(self, problem: Problem) -> str | None:
        """A right completion: `aha doctor` looks whether `grade` pays for it."""
        return Countdown().solve(problem)
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
PROBLEM = Problem("@name@/1", "@name@", {"numbers": [3, 7, 25], "target": 82})


def drawn(split: str, seed: int = 0) -> list[str]:
    return [problem.id for problem in islice(TASK.problems(split, seed), 200)]


def test_no_two_splits_share_a_problem():
    train, validation, test = map(set, map(drawn, ("train", "validation", "test")))
    assert train.isdisjoint(validation | test) and validation.isdisjoint(test)


def test_a_problem_comes_up_once():
    assert len(set(drawn("train"))) == 200


def test_the_seed_alone_decides_the_order():
    assert drawn("train") == drawn("train") != drawn("train", seed=1)


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("3*25=75\\n75+7=82\\n</think>\\n<answer>3*25+7</answer>", 1.0),
        ("<answer> 25*3+7\\n</answer>", 1.0),
        ("<answer>(25+3)*7</answer>", 0.0),
        ("<answer>82</answer>", 0.0),
        ("<answer>3*25+7</answer> no, <answer>25+7-3</answer>", 0.0),
        ("3*25+7", 0.0),
        ("<answer>7/(25-25)</answer>", 0.0),
        ("", 0.0),
        ("\\0\\ud800" * 1000, 0.0),
    ],
)
def test_any_text_gets_a_verdict(text, reward):
    graded = TASK.grade(PROBLEM, text)
    assert graded.reward == reward and graded.correct is (reward == 1.0) and graded.reason


@pytest.mark.parametrize(("within", "reward"), [(0, 0.0), (2, 0.0), (3, 1.0)])
def test_close_is_close_enough(within, reward):
    problem = Problem("@name@/2", "@name@", {"numbers": [3, 7, 25], "target": 85})
    assert @cls@(within).grade(problem, "<answer>3*25+7</answer>").reward == reward


def test_it_works_isolated_as_in_a_run():
    task = make_task(str(Path(__file__).parent.parent / "@module@.py"))
    problem = next(task.problems("train", 0))
    assert task.ask(problem).startswith("numbers ")
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
