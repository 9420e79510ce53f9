"""The examples of the study of priming: which behaviours each kind has, and which it has not."""

import re
from itertools import islice

import pytest

from aha.behaviors.detector import count_behaviours
from aha.core.errors import ConfigError
from aha.studies.example_kinds import KINDS, example_rows, write_examples
from aha.studies.hard_puzzles import SEARCHES, hard_puzzles, solved_by_writer
from aha.tasks.countdown import grade_countdown, split_of

# Checks, going back, backward chaining, subgoals: which of them a kind shows.
SHOWN = {
    "all": "cbws",
    "backtracking": "b",
    "backtracking-verification": "cb",
    "backtracking-backward": "bw",
    "backtracking-subgoal": "bs",
    "wrong-only": "cbws",
    "empty": "",
    "dots": "",
}


def drawn(name: str, count: int = 60) -> list[dict]:
    return list(islice(example_rows(KINDS[name], (3,), 0, len), count))


def puzzle(row: dict) -> tuple[tuple[int, ...], int]:
    numbers, target = re.match(r"numbers ([\d ]+) target (\d+)", row["prompt"]).groups()
    return tuple(map(int, numbers.split())), int(target)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_shows_its_behaviours_and_no_others(name):
    rows = drawn(name)
    many = [count_behaviours(row["completion"], *puzzle(row)) for row in rows]
    totals = {
        "c": sum(one.checks for one in many),
        "b": sum(one.backtracks for one in many),
        "w": sum(one.backward_chains for one in many),
        "s": sum(one.subgoals for one in many),
    }
    assert {key for key, total in totals.items() if total} == set(SHOWN[name])
    for row in rows:
        assert split_of(*puzzle(row)) == "train"
        assert grade_countdown(row["completion"], *puzzle(row)).correct == row["right"]
    right = sum(row["right"] for row in rows) / len(rows)
    assert right == 0 if name == "wrong-only" else 0.3 < right < 0.8


def test_dots_are_as_long_as_the_thoughts_that_they_replace():
    for thought, dots in zip(drawn("all", 20), drawn("dots", 20), strict=True):
        assert thought["prompt"] == dots["prompt"]
        assert len(thought["completion"]) == len(dots["completion"])
        assert set(dots["completion"].split("</think>")[0]) == {".", "\n"}


def test_a_file_of_examples_is_the_same_each_time(tmp_path):
    paths = [tmp_path / name for name in "ab"]
    shares = [write_examples(path, KINDS["all"], (3,), 5, 20, len) for path in paths]
    assert paths[0].read_bytes() == paths[1].read_bytes() and shares[0] == shares[1]


def test_hard_puzzles_are_those_that_the_writer_does_not_solve():
    for kind, (searches, orderly) in SEARCHES.items():
        for problem in hard_puzzles(kind, 3):
            numbers, target = problem.given["numbers"], problem.given["target"]
            assert split_of(numbers, target) == "test"
            solved = [solved_by_writer(numbers, target, n, orderly) for n in range(searches)]
            assert not any(solved)
    with pytest.raises(ConfigError, match="one of unsolved, difficult"):
        hard_puzzles("easy", 1)
