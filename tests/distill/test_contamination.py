"""Examples that give tests away."""

from aha.distill.contamination import (
    EXACT,
    HELD_OUT,
    SPAN,
    SPANS,
    HeldOutQuestions,
    spans_of,
    words_of,
)
from aha.tasks.countdown import Countdown

QUESTIONS = [
    "Ann has 3 apples and buys 4 more at the market on Sunday. How many has she?",
    "A train leaves at noon and goes 80 km an hour for 3 hours. How far does it go?",
]
TESTS = HeldOutQuestions(QUESTIONS)


def reason(text: str, tests: HeldOutQuestions = TESTS) -> str | None:
    why = tests.reason(text, text)
    return None if why is None else why[0]


def test_words_are_without_case_and_punctuation():
    assert words_of("Ann's 3 Apples!") == ("ann", "s", "3", "apples")
    assert len(spans_of(tuple("abcdefghi"))) == 9 - SPAN + 1 and not spans_of(("a",) * (SPAN - 1))


def test_the_same_question_and_eight_words_of_it():
    assert reason(QUESTIONS[0].upper()) == EXACT
    assert reason("Bob buys 4 more at the market on Sunday, and more.") == SPANS
    assert reason("Bob buys 4 more at the market on Monday, and more.") is None


def test_a_frame_that_all_tests_share_is_none_of_their_content():
    frame = "Please solve the following problem step by step and tell me the answer:"
    tests = HeldOutQuestions([f"{frame} what is {n} plus {n + 1}" for n in range(10)])
    assert reason(f"{frame} what is 90 minus 7", tests) is None
    assert reason(f"{frame} what is 3 plus 4", tests) == EXACT
    # Of two tests nobody can say what is the frame.
    assert reason(f"{frame} 1", HeldOutQuestions([f"{frame} a", f"{frame} b"])) == SPANS


def test_puzzles_of_other_splits_are_known_by_their_numbers():
    task = Countdown()
    tests = HeldOutQuestions.of(task, 0, 5)
    assert tests.size == 5
    ask = {split: task.ask(next(task.problems(split, 1))) for split in ("train", "test")}
    assert reason(ask["test"], tests) == HELD_OUT and reason(ask["train"], tests) is None
