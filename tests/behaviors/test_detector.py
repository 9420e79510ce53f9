"""The detector on traces counted by hand: every rule of its definition, and what it must not do."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.behaviors.detector import COUNTS, MAX_CHARS, Behaviours, annotate, count_behaviours
from aha.tasks.countdown import grade_countdown

NUMBERS, TARGET = (3, 7, 25), 82


def lines(*text: str, numbers=NUMBERS, target=TARGET) -> Behaviours:
    """Read a trace of the lines given, three numbers 3 7 25 to 82 unless told."""
    return count_behaviours("\n".join(text) + "\n", numbers, target)


def adds_up(found: Behaviours) -> bool:
    """The equation in the definition of an attempt."""
    begun = found.backtracks + found.continuations
    return found.attempts == (1 + begun if found.lines else 0)


# Ours, over the numbers of the example that the judge of Gandhi et al. is shown. Their example
# has the same make-up: 10 attempts, of which 5 go back to the start, 2 to an intermediate result
# and 2 go on from the value before; two lines are wrong.
WORKED = """
(78 - 7) - (20 + 11) = 71 - 31 = 40, that is too high.
Take the 11 again: 40 - 11 = 29. Too high too.
(29 + 20) - 7 = 49 - 7 = 42, even more.
Back to 71: (71 - 20) - 11 = 51 - 11 = 40, as before.
71 + 20 = 91, 91 - 11 = 80.
(78 + 11) - (20 + 7) = 89 - 27 = 62.
(78 / 11) + (20 - 7) = 7 + 13 = 20, which is not 24.
20 * 7 = 140, 140 - 78 = 62, 62 - 11 = 51.
78 - 20 = 58, then 58 - 11 = 47, then 47 - 7 = 40.
(78 + 20) / (11 - 7) = 98 / 4 = 24, found it!
"""


def test_the_worked_example():
    found = count_behaviours(WORKED, (20, 7, 11, 78), 24)
    assert found.attempts == 10
    assert found.backtracks_root == 5
    assert found.backtracks_intermediate == 2
    assert found.continuations == 2
    assert found.line_errors == 2
    assert found.illegal == 2  # the 11 and the 20 that are used twice
    assert found.lines == 15
    # 98/4 is not 24, but the value claimed is 24: the verdict holds, and nothing is solved.
    assert (found.checks, found.true_checks, found.explicit_checks) == (4, 4, 1)
    assert not found.solution_seen


def test_the_example_of_the_writer():
    found = lines(
        *("25+7=32", "32*3=96 no", "32+3=35 no", "82-7=75 need", "25*3=75 yes", "</think>"),
        "<answer>(25*3)+7</answer>",
    )
    assert found == Behaviours(
        attempts=3,
        lines=5,
        checks=3,
        true_checks=3,
        backtracks_root=1,
        backtracks_intermediate=1,
        backward_chains=1,
        attempts_until_solved=3,
        answered=True,
    )


# -- attempts and going back ----------------------------------------------------------------


def test_two_pairs_are_one_attempt():
    """(a+b) and then (c+d) is a plan, not a change of mind."""
    found = lines("20+7=27", "78-11=67", "67+27=94", numbers=(20, 7, 11, 78))
    assert (found.attempts, found.backtracks) == (1, 0)


def test_a_silent_restart_shows_in_the_lines_after_it():
    found = lines("20+7=27", "78-11=67", "67+20=87", "87-7=80", numbers=(20, 7, 11, 78))
    assert (found.attempts, found.backtracks_root, found.illegal) == (2, 1, 0)


@pytest.mark.parametrize(
    ("last", "root", "intermediate"),
    [("67*27=1809 no", 0, 1), ("67+20=87", 1, 0)],
)
def test_where_it_goes_back_to_is_decided_by_the_next_line(last, root, intermediate):
    """78-11 can start from the numbers given, or from the table with 27 on it."""
    path = ("20+7=27", "78-11=67", "67+27=94 no", "78-11=67", last)
    found = lines(*path, numbers=(20, 7, 11, 78))
    # From the table {27, 67} nothing but 67 and 27 can follow.
    assert (found.backtracks_root, found.backtracks_intermediate) == (root, intermediate)


def test_an_intermediate_result_that_nobody_uses_is_no_return_to_it():
    found = lines("20+7=27", "27+11=38", "38+78=116 no", "78-11=67", numbers=(20, 7, 11, 78))
    assert (found.backtracks_root, found.backtracks_intermediate) == (1, 0)


def test_an_attempt_left_half_way_counts():
    found = lines("25+7=32", "25*3=75", "75+7=82")
    assert (found.attempts, found.backtracks_root) == (2, 1)
    assert found.attempts_until_solved == 2


def test_a_verdict_ends_an_attempt_and_its_value_can_be_gone_on_from():
    found = lines("25+7=32 (too low)", "32*3=96 (too high)")
    assert (found.attempts, found.continuations, found.backtracks) == (2, 1, 0)
    assert (found.checks, found.true_checks) == (2, 2)


def test_equal_numbers_are_counted_apart():
    found = lines("5+5=10", "10*5=50", "5*5=25", "25-5=20", numbers=(5, 5, 5), target=20)
    assert (found.attempts, found.backtracks_root, found.illegal) == (2, 1, 0)
    assert found.attempts_until_solved == 2


@pytest.mark.parametrize(
    ("last", "illegal", "root", "intermediate", "continuations"),
    [
        ("96-3=93", 1, 0, 0, 1),  # on from the last value, the 3 for the second time
        ("32-25=7", 1, 0, 1, 0),  # back to the 32, the 25 for the second time
        ("25+8=33", 1, 1, 0, 0),  # 8 was never there
        ("32-3=29", 0, 0, 1, 0),
        ("7-3=4", 0, 1, 0, 0),
    ],
)
def test_illegal_lines_start_where_their_numbers_come_from(
    last, illegal, root, intermediate, continuations
):
    found = lines("25+7=32", "32*3=96 no", last)
    assert found.illegal == illegal
    assert found.attempts == 2
    assert (found.backtracks_root, found.backtracks_intermediate) == (root, intermediate)
    assert found.continuations == continuations


def test_one_illegal_line_does_not_make_those_after_it_illegal():
    assert lines("25+8=33", "33*3=99 no").illegal == 1


@pytest.mark.parametrize("again", ["32*3=96 no", "3*32=96 no"])
def test_repeats(again):
    path = ("25+7=32", "32*3=96 no", "7+25=32")
    assert lines(*path, again).repeats == 1
    assert lines(*path, "32-3=29 no").repeats == 0


def test_a_repeat_under_another_goal_is_none():
    assert lines("25+7=32", "32*3=96 no", "82-7=75 need", "25*3=75 yes").repeats == 0
    assert lines("82-7=75 need", "25-3=22 no", "82-7=75 need", "25-3=22 no").repeats == 1


# -- lines ----------------------------------------------------------------------------------


def test_values_are_taken_as_claimed():
    """A slip is one fault: the lines that build on it are legal and their verdicts can be true."""
    found = lines("25+7=33", "33*3=99 no")
    assert (found.lines, found.line_errors, found.illegal) == (2, 1, 0)
    assert (found.checks, found.true_checks) == (1, 1)


def test_a_wrong_line_makes_no_solution():
    assert not lines("25*3=75", "75+7=83", target=83).solution_seen
    assert not lines("25*3=76", "76+7=83", target=83).solution_seen
    assert not lines("25*3=75", "75+7=82", numbers=(3, 7, 25, 1)).solution_seen  # the 1 is left
    assert not lines("25+8=33", "33*3=99", target=99).solution_seen  # 8 was never there
    assert lines("25*3=75", "75+7=82").solution_seen


# -- checks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "true"),
    [
        ("32*3=96 no", True),
        ("32*3=96 yes", False),
        ("32*3=96 (too high)", True),
        ("32*3=96 (too low)", False),
        ("32*3=96, which is not 82", True),
        ("32*3=96, which is the target", False),
        ("32+50=82 yes", True),
        ("32+50=82 no", False),
    ],
)
def test_verdicts_are_held_to_the_target(line, true):
    found = lines("25+7=32", line)
    assert (found.checks, found.true_checks) == (1, int(true))


def test_a_verdict_after_need_is_held_to_what_is_needed():
    assert lines("82-7=75 need", "25*3=75 yes").true_checks == 1
    assert lines("82-7=75 need", "25*3=75 no").true_checks == 0
    assert lines("82-7=75 need", "25*3=82 yes").true_checks == 0  # a slip that hits 82


def test_the_goal_is_the_target_again_after_going_back():
    found = lines("82-7=75 need", "25+3=28 no", "25+7=32", "32+43=75 yes")
    assert (found.checks, found.true_checks) == (2, 1)


def test_explicit_checks_name_the_target():
    found = lines("25+7=32, not 82", "32+3=35 (too low)", "25*3=75 no", "75+7=82 is the target")
    assert (found.checks, found.explicit_checks, found.implicit_checks) == (4, 2, 2)


def test_a_comparison_with_another_number_is_no_check():
    assert lines("25*3=75, which is not 80").checks == 0


# -- working backwards ----------------------------------------------------------------------


def test_backward_chaining_without_the_word():
    found = lines("24/2=12 so 12*2=24", "9+3=12, 12*2=24 works", numbers=(2, 3, 9), target=24)
    assert (found.backward_chains, found.attempts, found.illegal) == (1, 1, 0)
    assert (found.checks, found.true_checks) == (1, 1)
    assert found.solution_seen


def test_the_numbers_set_aside_come_back_at_the_end():
    found = lines("82-7=75 need", "25*3=75", "75+7=82 yes")
    assert (found.attempts, found.illegal, found.backtracks) == (1, 0, 0)
    assert (found.checks, found.true_checks, found.attempts_until_solved) == (1, 1, 1)


def test_two_steps_back():
    found = lines("82-7=75 need", "75/3=25 need", "20+5=25 yes", numbers=(3, 5, 7, 20))
    assert (found.backward_chains, found.attempts, found.true_checks) == (2, 1, 1)
    assert found.solution_seen


def test_a_target_that_is_also_given_needs_the_word():
    given = {"numbers": (3, 7, 82), "target": 82}
    assert lines("82-7=75", "75+3=78 no", **given).backward_chains == 0
    assert lines("82-7=75 need", **given).backward_chains == 1


def test_a_line_with_a_verdict_was_meant_forward():
    found = lines("82-7=75 no")
    assert (found.backward_chains, found.illegal) == (0, 1)


def test_going_back_to_a_needed_value():
    """The second attempt starts from the table that the step back left."""
    path = ("82-7=75 need", "25+3=28 no", "25*3=75 yes")
    found = lines(*path)
    assert (found.attempts, found.backtracks_intermediate, found.backward_chains) == (2, 1, 1)
    assert found.true_checks == 2


# -- subgoals -------------------------------------------------------------------------------


def test_subgoals():
    found = lines("aim 75", "25*3=75", "75+7=82 yes")
    assert (found.subgoals, found.subgoals_valid, found.subgoals_achieved) == (1, 1, 1)


@pytest.mark.parametrize("words", ["aim 82", "get close to 82"])
def test_the_target_is_no_subgoal(words):
    assert lines(words, "25*3=75").subgoals == 0


@pytest.mark.parametrize(
    ("aim", "valid"),
    [
        (75, True),  # 82 - 75 is given
        (107, True),  # 107 - 82 is given
        (246, True),  # 246 / 3
        (41, True),  # half of 82
        (164, True),  # twice
        (50, False),
    ],
)
def test_valid_subgoals_lie_one_step_away(aim, valid):
    assert lines(f"aim {aim}").subgoals_valid == int(valid)


def test_a_subgoal_lives_until_all_numbers_are_used():
    assert lines("aim 75", "25+3=28", "28+7=35 no", "25*3=75").subgoals_achieved == 0
    assert lines("aim 75", "25+3=28", "25*3=75").subgoals_achieved == 1
    assert lines("aim 75", "aim 100", "25*3=75").subgoals_achieved == 0


# -- the answer -----------------------------------------------------------------------------


def test_a_solution_that_is_not_answered():
    path = ("25*3=75", "75+7=82 yes", "</think>")
    assert not lines(*path, "<answer>(25*3)+7</answer>").solution_seen_not_answered
    assert lines(*path, "<answer>25+7+3</answer>").solution_seen_not_answered
    assert lines(*path).solution_seen_not_answered
    assert not lines("25+7=32 no").solution_seen_not_answered


@st.composite
def answers(draw) -> str:
    """Near misses of a right answer."""
    parts = ["25", "*", "3", "+", "7"]
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(parts) - 1))
        parts[place] += draw(
            st.sampled_from(["", " ", "(", ")", "0", "3", "*", "-", ".0", "×", "="])
        )
    return draw(st.sampled_from(["", "0", "-", "("])) + "".join(parts)


@given(answers())
def test_answered_agrees_with_the_strict_verifier(answer):
    text = f"<answer>{answer}</answer>"
    graded = grade_countdown(text, NUMBERS, TARGET)
    assert count_behaviours(text, NUMBERS, TARGET).answered == graded.correct


# -- any text -------------------------------------------------------------------------------

OUR_LINES = st.from_regex(r"[0-9]{1,2}[-+*/][0-9]{1,2}=[0-9]{1,3}( yes| no| need)?", fullmatch=True)
TRACES = st.lists(OUR_LINES | st.sampled_from(["aim 75", "25+7=32", "25*3=75", "82-7=75 need"]))


@given(TRACES.map("\n".join) | st.text(max_size=100))
def test_counts_hang_together_whatever_the_text(text):
    found = count_behaviours(text, NUMBERS, TARGET)
    assert all(getattr(found, name) >= 0 for name in COUNTS)
    assert adds_up(found)
    assert found.true_checks <= found.checks <= found.lines
    assert found.explicit_checks <= found.checks
    assert found.line_errors <= found.lines and found.illegal <= found.lines
    assert found.repeats <= found.attempts <= max(found.lines, 0)
    assert found.subgoals_achieved <= found.subgoals
    assert found.attempts_until_solved is None or found.attempts_until_solved <= found.attempts


@given(TRACES.map("\n".join))
def test_marks_say_what_the_counts_count(text):
    found = count_behaviours(text, NUMBERS, TARGET)
    marks = annotate(text, NUMBERS, TARGET)
    said = [mark.what for mark in marks]
    assert said.count("wrong arithmetic") == found.line_errors
    assert said.count("backward chaining") == found.backward_chains
    assert said.count("back to the start") == found.backtracks_root
    assert said.count("back to an intermediate result") == found.backtracks_intermediate
    assert said.count("true check") == found.true_checks
    assert said.count("false check") == found.checks - found.true_checks
    assert list(marks) == sorted(marks)
    assert all(0 <= mark.start < mark.end <= len(text) for mark in marks)


def test_marks_lie_on_their_words():
    text = "25+7=32\n32*3=97 no\n82-7=75 need"
    words = [(text[mark.start : mark.end], mark.what) for mark in annotate(text, NUMBERS, TARGET)]
    assert words == [
        ("32*3=97", "wrong arithmetic"),
        ("no", "true check"),
        ("82-7=75", "back to the start"),
        ("82-7=75", "backward chaining"),
    ]


@pytest.mark.parametrize(
    "text", ["", "hello", "<answer>", "\x00", "\ud800", "=" * 100, "no yes need"]
)
def test_text_without_work_counts_nothing(text):
    assert count_behaviours(text, NUMBERS, TARGET) == Behaviours()


@pytest.mark.parametrize("numbers", [(), (5,), (1, 2, 3, 4, 5, 6)])
def test_any_number_of_numbers(numbers):
    assert adds_up(lines("25+7=32", "32*3=96 no", "82-7=75 need", numbers=numbers))


def test_what_is_left_unread_is_said_and_the_answer_is_found():
    line = "25+7=32\n32*3=96 no\n"
    text = line * (2 * MAX_CHARS // len(line)) + "</think>\n<answer>(25*3)+7</answer>"
    found = count_behaviours(text, NUMBERS, TARGET)
    assert found.unread_chars == text.index("</think>") - MAX_CHARS
    assert found.answered
    assert found.lines == len(re.findall("=", text[:MAX_CHARS]))


def test_long_text_is_read_in_linear_time():
    """Every line goes back to a new table: the worst there is for the memory of tables."""
    text = "".join(f"{a}+{b}={a + b}\n" for a in range(1, 99) for b in range(1, 60))
    start = time.thread_time()
    count_behaviours(text[:MAX_CHARS], tuple(range(1, 7)), TARGET)
    assert time.thread_time() - start < 20.0


ATTEMPT = "25+7=32\n32*3=96 no\n25*3=75\n75-7=68 no\n82-7=75 need\n25+3=28 no\n"


def seconds_to_read(text: str) -> float:
    start = time.thread_time()
    count_behaviours(text, NUMBERS, TARGET)
    return time.thread_time() - start


def test_twenty_times_the_text_takes_about_twenty_times_as_long():
    # By turns, so that a busy moment meets both; what is quadratic takes four hundred times.
    pairs = [(seconds_to_read(ATTEMPT * 5), seconds_to_read(ATTEMPT * 100)) for _ in range(30)]
    short, long = (min(column) for column in zip(*pairs, strict=True))
    assert long < 80 * short


@pytest.mark.bench
def test_reading_is_quick():
    """About 0.2 ms for 300 tokens on an idle core, so to be run alone; benchmarks/detector.py
    measures it."""
    text = ATTEMPT * 5 + "25*3=75\n75+7=82 yes\n</think>\n<answer>(25*3)+7</answer>"
    assert 300 < len(text) < 400
    assert min(seconds_to_read(text) for _ in range(200)) < 0.0008
