"""Searches in order: every line true, nothing left out, and each eye writes what it should."""

import re
from collections import Counter
from dataclasses import replace
from itertools import islice
from random import Random

import pytest

from aha.corpus.bases import TraceMix
from aha.corpus.orderly import NEAR_GLANCE, Eyes, OrderlySearch
from aha.corpus.shards import documents, drawn_puzzle
from aha.corpus.traces import Trace, TraceWriter
from aha.tasks.countdown import grade_countdown
from aha.tasks.expression import read_expression
from aha.tasks.solver import apply

TARGETS = range(10, 101)
LINE = re.compile(r"(\d+)([-+*/])(\d+)(?:=(\d+)((?: \d+)*)( yes| no| need)?)?")
ALL, GLANCE, LOOK = Eyes(None), Eyes(NEAR_GLANCE), Eyes(0)
MIX = TraceMix(max_lines=10**6, skips=1.0, give_up_early=0.0)


def lines_of(numbers, target, eyes, backward=False, **mix) -> list[str]:
    trace = Trace(numbers, target)
    OrderlySearch(trace, replace(MIX, **mix), Random(0)).one_pass(eyes, backward)
    return trace.lines


def puzzles(size: int, count: int) -> list[Trace]:
    writer = TraceWriter(MIX, Random(size))
    return [drawn_puzzle(writer, size, TARGETS) for _ in range(count)]


def test_a_pass_with_all_operations():
    assert lines_of((24, 1, 3), 100, ALL)[:10] == [
        *("24+1=25", "25+3=28 no", "25-3=22 no", "25*3=75 no"),
        *("24-1=23", "23+3=26 no", "23-3=20 no", "23*3=69 no"),
        *("24+3=27", "27+1=28 no"),
    ]


def test_what_leads_nowhere_is_written_without_a_result_by_who_does_not_see_it():
    assert lines_of((24, 1, 3), 100, GLANCE, skips=0.0)[:8] == [
        *("24+1=25", "25*3=75 no", "24-1=23", "23*3=69 no", "24*1", "24/1"),
        *("24+3=27", "24-3=21"),  # 28 and 22 are too far from 100 for a glance
    ]


def test_a_look_writes_hits_alone_and_one_that_is_less_sharp_what_is_near():
    assert lines_of((24, 1, 3), 72, LOOK) == [
        *("24+1=25", "24-1=23", "24+3=27", "24-3=21"),
        *("24*3=72", "72*1=72 yes"),
    ]
    near = lines_of((24, 1, 3), 72, Eyes(3))
    assert near[:4] == ["24+1=25", "25*3=75 no", "24-1=23", "23*3=69 no"]


def test_back_from_the_target():
    assert lines_of((25, 7, 3), 82, LOOK, backward=True) == [
        *("82+25=107 need", "82-25=57 need"),
        *("82+7=89 need", "82-7=75 need", "25*3=75 yes"),
    ]
    assert lines_of((99, 2, 13), 73, GLANCE, backward=True) == [
        *("73+99=172 need", "99-73=26 need", "2*13=26 yes"),
    ]


def test_what_is_left_is_written_while_it_is_three_numbers_or_more():
    first, second, *_ = lines_of((24, 1, 3, 7), 73, LOOK)
    assert (first, second) == ("24+1=25 3 7", "25+3=28")


@pytest.mark.parametrize("skips", [0.0, 1.0])
def test_a_word_marks_the_lines_that_go_back_to_four_numbers(skips):
    for trace in puzzles(4, 4):
        lines = lines_of(trace.numbers, trace.target, LOOK, skips=skips)
        assert not lines[0].startswith("back ")
        for text in lines[1:]:
            # Of four numbers two are left behind a result; a line without one shows its numbers.
            values = re.findall(r"\d+", text.split("=")[0])
            left_behind = len(re.findall(r"\d+", text)) == 5
            assert text.startswith("back ") == left_behind or "=" not in text
            if text.startswith("back ") and "=" not in text:
                assert all(int(value) in trace.numbers for value in values)


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("eyes", [ALL, GLANCE, LOOK, Eyes(10)])
@pytest.mark.parametrize("size", [3, 4])
def test_every_line_is_true_and_the_answer_is_the_nearest_try(size, eyes, backward):
    for trace in puzzles(size, 40 if size == 3 else 4):
        search = OrderlySearch(trace, replace(MIX, skips=0.0), Random(1))
        solved = search.one_pass(eyes, backward)
        goal, distances = trace.target, []
        for text in trace.lines:
            a, op, b, result, _, word = LINE.fullmatch(text.removeprefix("back ")).groups()
            made = apply(op, int(a), int(b))
            if result is None:
                assert made is None or made == 0 or made > MIX.max_result or b == "1", text
                continue
            assert made == int(result), text
            if word == " need":
                goal = int(result)
            elif word:
                assert (word == " yes") == (int(result) == goal), (text, goal)
                distances.append(abs(int(result) - goal))
                goal = trace.target
        assert solved == trace.solved == (distances[-1:] == [0])
        assert solved == (" yes" in trace.lines[-1])
        if solved:
            assert grade_countdown(f"<answer>{trace.answer}</answer>", *puzzle(trace)).correct
        elif distances:
            found = read_expression(trace.answer)
            assert sorted(found.numbers) == sorted(trace.numbers)
            if not backward:
                assert abs(found.value - trace.target) == min(distances)


def puzzle(trace: Trace):
    return trace.numbers, trace.target


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("eyes", [ALL, GLANCE, LOOK])
def test_three_numbers_are_nearly_always_solved_by_one_pass(eyes, backward):
    """What is missed goes through a result above `max_result`."""
    found = [
        OrderlySearch(trace, MIX, Random(1)).one_pass(eyes, backward) for trace in puzzles(3, 400)
    ]
    assert sum(found) > 0.975 * len(found)
    every = replace(MIX, max_result=10_000)
    assert all(OrderlySearch(t, every, Random(1)).one_pass(eyes, backward) for t in puzzles(3, 150))


def test_sharper_eyes_need_fewer_lines():
    lines = {
        eyes: sum(len(lines_of(trace.numbers, trace.target, eyes)) for trace in puzzles(3, 150))
        for eyes in (ALL, GLANCE, Eyes(10), LOOK)
    }
    assert list(lines.values()) == sorted(lines.values(), reverse=True)
    assert lines[ALL] > 1.5 * lines[GLANCE] > 1.5 * 1.2 * lines[LOOK]


def test_blind_eyes_pass_hits_by_and_a_second_pass_finds_them():
    blind = Counter()
    for trace in puzzles(3, 300):
        search = OrderlySearch(trace, MIX, Random(len(blind)))
        blind[search.one_pass(Eyes(NEAR_GLANCE, blind=0.5))] += 1
    assert 40 < blind[False] < 260

    def solved(again: float) -> float:
        mix = replace(MIX, again=again, sloppy=1.0, glance=1.0)
        rng, marks, count = Random(5), 0, 0
        for trace in puzzles(3, 400):
            OrderlySearch(trace, mix, rng).write()
            count += trace.solved
            marks += "check" in trace.lines
        assert bool(marks) == bool(again)
        return count

    assert solved(1.0) > solved(0.0)


@pytest.mark.parametrize(
    ("dial", "word"),
    [("again", r"check"), ("work_back", r".* need"), ("orderly", r"\d+[+*]\d+"), ("skips", "")],
)
def test_a_dial_at_zero_removes_its_lines(dial, word):
    other = {"search": 1.0, "drill": 0.0, "numbers": (3,), "backward": 1e-9, "sloppy": 1.0}

    def lines(**mix) -> list[str]:
        drawn = islice(documents(TraceMix(**other, **mix), 0, lambda *_: True), 300)
        return [line for document in drawn for line in document.completion.splitlines()]

    def count(found: list[str]) -> int:
        return sum(bool(re.fullmatch(word, line)) for line in found)

    if dial == "skips":  # then everything is written, so there are more lines
        assert len(lines(skips=0.0)) > 1.1 * len(lines(skips=1.0))
        return
    assert count(lines()) > 10
    assert count(lines(**{dial: 0.0})) == 0


def test_the_way_is_drawn_before_the_puzzle_is_looked_at():
    """The same random numbers draw the same way for every puzzle of a size."""
    ways = set()
    for trace in puzzles(3, 30):
        search = OrderlySearch(trace, TraceMix(), Random(11))
        ways.add((search.skips, search.rng.random() < search.mix.work_back, search.draw_eyes()))
    assert len(ways) == 1


def test_the_first_lines_are_free_and_the_others_follow():
    mix = TraceMix(search=1.0, orderly=1.0, numbers=(3,), drill=0.0)
    for document in islice(documents(mix, 0, lambda *_: True), 100):
        free, follows = document.follows.start, document.follows.stop
        assert len(document.completion[:free].splitlines()) <= 2
        solved = " yes\n</think>" in document.completion
        end = len(document.completion) if solved else document.completion.index("</think>")
        assert follows == end
    mix = replace(mix, orderly=0.0, verify=1.0)
    for document in islice(documents(mix, 0, lambda *_: True), 100):
        answer = document.completion[document.follows.start : document.follows.stop]
        assert answer in ("", document.completion[document.completion.index("</think>") :])
        assert bool(answer) == (" yes\n</think>" in document.completion)


def test_a_search_gives_up_as_a_whole():
    mix = replace(MIX, max_lines=40, skips=0.0)
    drawn = puzzles(4, 60)

    def lengths(mix: TraceMix) -> list[int]:
        rng, found = Random(3), []
        for trace in drawn:
            OrderlySearch(trace := Trace(trace.numbers, trace.target), mix, rng).one_pass(ALL)
            found.append(len(trace.lines))
        return found

    whole, early = lengths(mix), lengths(replace(mix, give_up_early=1.0))
    assert 40 < max(whole) <= 40 + 5  # the last two numbers are tried to their end
    assert sum(early) < 0.75 * sum(whole)


@pytest.mark.parametrize("largest", [30, 60, 90])
def test_where_nothing_is_small_enough_nothing_is_written(largest):
    """99 and 2 make nothing up to 90: a glance has nothing to write."""
    mix = TraceMix(numbers=(3,), search=1.0, orderly=1.0, sloppy=0.0, max_result=largest)
    for document in islice(documents(mix, 0, lambda *_: True), 150):
        for result in re.findall(r"=(\d+)", document.completion if document.follows else ""):
            assert int(result) <= largest
    assert lines_of((99, 2, 100), 50, GLANCE, max_result=largest)[:1] == ["100-99=1"]
