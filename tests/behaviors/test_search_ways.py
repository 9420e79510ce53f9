"""The way of a search: by hand, on searches whose way is known, and on damaged ones."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.behaviors.known_searches import damaged, known_search

from aha.behaviors.detector import count_behaviours
from aha.behaviors.search_ways import LABELS, NOT_WAYS, WAYS, Search, read_search
from aha.corpus.bases import TraceMix
from aha.corpus.shards import played_puzzle
from aha.corpus.traces import TraceWriter, completion_text

NUMBERS, TARGET = (24, 1, 3), 73


def read(text: str, numbers=NUMBERS, target=TARGET) -> Search:
    return read_search("\n".join(text.split("|")) + "\n</think>\n", numbers, target)


# -- by hand ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("way", "text"),
    [
        ("in_order", "24+1=25|25+3=28 no|25-3=22 no|25*3=75 no|24-1=23|23+3=26 no|23-3=20 no"),
        ("in_order", "24+1=25 3|25+3=28 no|25-3=22 no|25*3=75 no|25/3|24-1=23 3|23+3=26 no"),
        ("glance", "24+1=25|25*3=75 no|24-1=23|23*3=69 no|24+3=27|27+1=28 no|24-3=21"),
        ("look", "24+1=25|24-1=23|24+3=27|24-3=21|24*3=72|72+1=73 yes"),
        ("look", "24 + 1 = 25|24 − 1 = 23|24 + 3 = 27|24 − 3 = 21|24 × 3 = 72|72 + 1 = 73 yes"),
        ("backward", "73-24=49 need|73+24=97 need|73-1=72 need|24*3=72 yes"),
        ("backward", "73-1=72 need|24*3=72 no|73+1=74 need|24*3=72 no"),
        ("by_chance", "3-1=2|24*2=48 no|24+3=27|27-1=26 no|24*1=24|24*3=72 no"),
        ("by_chance", "3-1=2|24*2=48|24+3=27|27-1=26|24*1=24|24*3=72"),  # never a verdict
        ("unclear", "24*3=72|72+1=73 yes"),  # solved at once
        ("unclear", "24+1=25|25*3=75 no|25-3=22 no|25+3=28 no"),  # one opening, given up
        ("unclear", "24*3=72 no"),
        ("unclear", "24+1=25|25*3=75 no|24-1=23|23*3=69 no"),  # glanced at, or too near to pass by
        ("unclear", "73-1=72 need|24*3=72 yes"),
        ("none", ""),
        ("none", "24*3=72|72+1=73"),  # one attempt, not checked
        ("none", "I have no idea"),
    ],
)
def test_ways_by_hand(way, text):
    assert read(text).way == way


def test_every_way_has_a_label():
    assert set(LABELS) == {*WAYS, *NOT_WAYS}


def test_what_is_counted():
    found = read("24+1=25 3|25*3=75 no|24-1=23 3|24/1|24+3=27 1|27+1=28 no|27-1=26 no")
    assert (found.attempts, found.tries) == (4, 3)
    assert (found.moves, found.moves_in_order) == (4, 4)  # 24*1 has no use
    assert (found.openings, found.passed, found.once, found.more) == (3, 1, 1, 1)
    assert found.first_right is False


def test_the_last_opening_says_nothing_unless_it_is_tried_twice():
    assert read("24+1=25|25*3=75 no|24-1=23").passed == 0
    assert read("24+1=25|25*3=75 no|24-1=23|23*3=69 no").once == 1
    assert read("24+1=25|25*3=75 no|24-1=23|23*3=69 no|23+3=26 no").more == 1


@pytest.mark.parametrize(
    ("right", "text"),
    [
        (True, "24*3=72|72+1=73 yes"),
        (True, "24+1=25|24*3=72|72+1=73"),  # what is passed by does not use all numbers
        (True, "99-73=26 need|73-1=72 need|24*3=72 yes"),
        (False, "24*3=71|71+2=73 yes"),
        (False, "24*3=73|73*1=73 yes"),  # its first line is wrong
        (False, "24*3=72|72-1=71 no|72+1=73 yes"),
        (None, "24*3=72"),
        (None, ""),
    ],
)
def test_the_first_attempt(right, text):
    assert read(text).first_right is right


def test_lines_with_numbers_that_are_not_there():
    text = "24+1=25|25*3=75 no|24-1=23|25*3=75 no|7+8=15|24+3=27|27-1=26 no|24-3=21|21+1=22 no"
    assert read(text).way == "glance"  # the wrong operands of a try are a try; 7+8 is nothing
    assert read(text).moves == 4


def test_a_repeated_pass_is_in_order_all_the_same():
    once = "24+1=25|25*3=75 no|24-1=23|23*3=69 no|24+3=27|27-1=26 no"
    assert read(f"{once}|{once}|{once}").way == "glance"


def test_the_first_pass_decides():
    look, every = "24+1=25|24-1=23|24+3=27", "24+1=25|25+3=28 no|25-3=22 no|25*3=75 no"
    assert read(f"{look}|check|{every}|24-1=23|23+3=26 no|23-3=20 no").way == "look"
    # A first pass that is too short leaves it to all together.
    assert read(f"24*3=72 no|check|{every}|24-1=23|23+3=26 no|23-3=20 no").way == "in_order"


def test_equal_numbers_are_places_of_their_own():
    text = "7+7=14|14+2=16 no|7*7=49|49-2=47 no|7/7=1|2+1=3 no|7+2=9|9+7=16 no|7-2=5|7+5=12 no"
    found = read(text + "|7*2=14|14+7=21 no|7+2=9|9+7=16 no|7-2=5|7+5=12 no", (7, 7, 2), 50)
    # 7/2 between them is not whole. Times and minus of 7 and 7 (0) are left out.
    assert (found.way, found.moves, found.moves_in_order) == ("glance", 8, 8)


def test_numbers_behind_a_result_say_which_table_it_is_from():
    # 6 and 3 lie on the table of three and are the last two as well.
    move = read("12-6=6 3|6+3=9 12", (12, 6, 3), 50)
    assert (move.moves, move.tries) == (2, 0)
    for text in ("12-6=6 3|6+3=9 no", "12-6=6|6+3=9"):
        found = read(text, (12, 6, 3), 50)
        assert (found.moves, found.tries) == (1, 1)


def test_a_text_that_is_cut_off():
    assert read_search("24+1=25\n24-1=23\n24+3=27\n24-", NUMBERS, TARGET).moves == 3
    assert read_search("24+1=25\n24-1=2", NUMBERS, TARGET).moves == 1
    assert read_search("24+1=25\n24-1=23", NUMBERS, TARGET).moves == 1
    assert read_search("24+1=25", NUMBERS, TARGET).moves == 1


def test_what_follows_the_working_is_not_read():
    text = "24*3=72\n72+1=73 yes\n</think>\n24+1=25\n24-1=23\n24+3=27\n"
    assert read_search(text, NUMBERS, TARGET).moves == 1


# -- searches whose way is known -------------------------------------------------------------------


def ways_of(way: str, size: int, count: int, rate: float, least: int = 3) -> Counter[str]:
    """The ways that are read in searches with at least so many moves."""
    rng, found = Random(31), Counter()
    while found.total() < count:
        known = known_search(way, size, rng)
        if known.moves >= least:
            text = damaged(known.text, rng, rate) if rate else known.text
            found[read_search(text, known.numbers, known.target).way] += 1
    return found


@pytest.mark.parametrize("rate", [0.0, 0.05])
@pytest.mark.parametrize(("size", "count"), [(3, 400), (4, 60)])
@pytest.mark.parametrize("way", ["in_order", "glance", "look", "backward"])
def test_a_known_way_is_recognised(way, size, count, rate):
    found = ways_of(way, size, count, rate)
    assert found[way] >= (0.92 if rate else 0.97) * count, found
    assert found[way] + found["unclear"] >= 0.96 * count, found


@pytest.mark.parametrize("size", [3, 4])
def test_tries_by_chance_are_recognised(size):
    writer, found = TraceWriter(TraceMix(backward=0.0, patient=0.5), Random(32)), Counter()
    while found.total() < 500:
        trace = played_puzzle(writer, size, range(10, 101))
        writer.search(trace)
        search = read_search(completion_text(trace), trace.numbers, trace.target)
        if search.way == "none":  # one attempt, not checked
            assert not any(line.endswith((" yes", " no")) for line in trace.lines)
        elif search.moves >= 3:
            found[search.way] += 1
    assert found["by_chance"] >= 485, found


def test_five_and_six_numbers():
    rng = Random(33)
    for way in ("glance", "look", "in_order"):
        for size in (5, 6):
            known = known_search(way, size, rng, most=200)
            assert read_search(known.text, known.numbers, known.target).way == way


def test_short_searches_are_not_taken_for_a_way():
    rng, found = Random(34), Counter()
    for way in ("in_order", "glance", "look", "backward"):
        for _ in range(200):
            known = known_search(way, 3, rng)
            if known.moves == 1:
                found[read_search(known.text, known.numbers, known.target).way] += 1
    assert found.total() > 30 and set(found) <= {"unclear", "none"}


@pytest.mark.parametrize("size", [3, 4])
@pytest.mark.parametrize("way", ["in_order", "glance", "look", "backward"])
def test_attempts_are_the_detectors(way, size):
    rng, same = Random(35), 0
    for _ in range(60):
        known = known_search(way, size, rng, state=1)
        found = read_search(known.text, known.numbers, known.target)
        behaviours = count_behaviours(known.text, known.numbers, known.target)
        assert found.attempts == behaviours.attempts, known.lines
        if known.attempts >= 0:
            assert found.attempts == known.attempts
            same += 1
    assert same > 10


# -- any text --------------------------------------------------------------------------------------

PIECES = ("24", "1", "3", "73", "0", "+", "-", "*", "/", "=", " ", "\n", " yes", " no", " need")
MORE = ("check\n", "</think>", "<answer>", "</answer>", "aim ", "25 3 7\n", "x", "×", "(", ")", "é")


@given(
    st.lists(st.sampled_from((*PIECES, *MORE)), max_size=60).map("".join),
    st.lists(st.integers(0, 99), max_size=6),
    st.integers(-5, 100),
)
def test_any_text_has_a_way(text, numbers, target):
    found = read_search(text, numbers, target)
    assert found.way in (*WAYS, *NOT_WAYS)
    assert found.steps_back <= found.openings
    assert found.passed + found.once + found.more <= found.openings
    assert found.moves_in_order <= found.moves
    assert found.tries <= found.attempts + found.openings + found.moves


def test_time_is_linear_in_the_text():
    for part in ("1 ", "1" * 9, "24+1=25\n", "24+1=25 " + "3 " * 20, "1+" * 10, "     "):
        assert read_search(part * (60_000 // len(part)), NUMBERS, TARGET).way in LABELS
