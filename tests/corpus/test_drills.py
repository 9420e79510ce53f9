"""Pages of arithmetic: true lines, true verdicts, and about as many "yes" as "no"."""

import re
from collections import Counter
from dataclasses import replace
from random import Random

from aha.corpus.bases import TraceMix
from aha.corpus.drills import calculation, calculation_of, page

LINE = re.compile(r"([1-9]\d*)([-+*/])([1-9]\d*)=(\d+)(?: (yes|no|need))?")
JUDGED = replace(TraceMix(), judged=1.0)
BARE = replace(TraceMix(), judged=0.0)


LEFT = re.compile(r"([1-9]\d*)([-/])([1-9]\d*)")


def read(text: str) -> tuple[int | None, str | None]:
    """The result and the word of a line, after checking the line itself; no result where it was
    left, and then there must be none."""
    if found := LEFT.fullmatch(text):
        a, op, b = int(found[1]), found[2], int(found[3])
        assert a < b if op == "-" else a % b, f"{text} has a result"
        return None, None
    found = LINE.fullmatch(text)
    assert found, text
    a, op, b, result = int(found[1]), found[2], int(found[3]), int(found[4])
    assert {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[op] == result, text
    return result, found[5]


def test_every_verdict_compares_with_the_goal_and_half_are_yes():
    rng, said = Random(4), Counter()
    for target in [*range(10, 101)] * 5:
        first, *lines = page(rng, JUDGED, target).splitlines()
        assert first == f" target {target}" and 6 <= len(lines) <= 15
        goal = target
        for text in lines:
            result, word = read(text)
            if result is None:
                said["left"] += 1
                continue
            if word == "need":
                assert text.startswith(f"{target}"), "a goal that does not come from the target"
                goal, said["need"] = result, said["need"] + 1
                continue
            assert word == ("yes" if result == goal else "no"), (text, goal)
            goal, said[word] = target, said[word] + 1
    assert 0.4 < said["yes"] / (said["yes"] + said["no"]) < 0.6
    assert said["need"] > 300 and said["left"] > 200


def test_no_new_goals_where_nothing_is_worked_backwards():
    rates = replace(JUDGED, backward=0.0)
    assert "need" not in "".join(page(Random(1), rates, 50) for _ in range(50))


def test_a_bare_page_holds_true_results_and_no_word():
    rng, operations = Random(2), Counter()
    for _ in range(400):
        lines = page(rng, BARE, 50).splitlines()
        assert 6 <= len(lines) <= 14
        for text in lines:
            result, word = read(text)
            assert word is None and (result is None or result <= 1_100)
            operations["left" if result is None else LINE.fullmatch(text)[2]] += 1
    assert operations["*"] + operations["/"] > 0.4 * operations.total()
    assert min(operations.values()) > 0.05 * operations.total()


def test_an_operation_reaches_every_goal_asked_for():
    rng = Random(3)
    for goal in [*range(1, 200), 7380]:
        for _ in range(20):
            assert read(calculation_of(rng, goal)) == (goal, None)


def test_results_stay_below_the_largest_one():
    rng = Random(5)
    assert all((read(calculation(rng, 300))[0] or 0) <= 1_100 for _ in range(500))
