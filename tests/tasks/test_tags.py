"""Which answer counts, and how many there were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.tasks.countdown import Countdown, as_problem
from aha.tasks.tags import read_answer, well_formed


@pytest.mark.parametrize(
    ("completion", "text", "blocks"),
    [
        ("<answer>1</answer>", "1", 1),
        ("a <answer>1</answer> b\n", "1", 1),
        ("<answer>\n1\n</answer>\n", "\n1\n", 1),
        ("<answer>1</answer><answer>2</answer>", "2", 2),
        ("<answer>1</answer> wait <answer>2</answer> hm <answer>3</answer>!", "3", 3),
        ("<answer></answer>", "", 1),
        # What follows the last complete block does not matter, a tag no more than a word.
        ("<answer>1</answer></answer>", "1", 1),
        ("<answer>1</answer> <answer>2", "1", 1),
        ("<answer>1</answer> <answer>", "1", 1),
        ("</answer><answer>1</answer>", "1", 1),
        ("<answer>1<answer>2</answer>", "2", 1),
        ("<answer>1<answer>2</answer></answer>", "2", 1),
        ("", None, 0),
        ("1", None, 0),
        ("<answer>1", None, 0),
        ("1</answer>", None, 0),
        ("</answer>1<answer>", None, 0),
        ("<ANSWER>1</ANSWER>", None, 0),
        ("<answer >1</answer>", None, 0),
        ("<answer>1</answer", None, 0),
    ],
)
def test_the_last_complete_block(completion, text, blocks):
    answer = read_answer(completion)
    assert (answer.text, answer.blocks) == (text, blocks)


PIECES = st.lists(
    st.sampled_from(["<answer>", "</answer>", "x", "\n", "<", "answer>"]), max_size=12
)


@given(PIECES.map("".join))
def test_blocks_are_pairs_without_a_tag_between(completion):
    """A second way to find them: walk through the tags and remember what is open."""
    blocks, opened, place = [], None, 0
    while place < len(completion):
        if completion.startswith("<answer>", place):
            opened = place + len("<answer>")
        elif completion.startswith("</answer>", place) and opened is not None:
            blocks.append(completion[opened:place])
            opened = None
        place += 1
    answer = read_answer(completion)
    assert answer.blocks == len(blocks)
    assert answer.text == (blocks[-1] if blocks else None)


RIGHT_FORM = "3*25=75\n75+7=82 yes\n</think>\n<answer>3*25+7</answer>"


def test_the_form_that_was_asked_for():
    assert well_formed(RIGHT_FORM)
    assert well_formed(f" {RIGHT_FORM}\n\n") and well_formed("a</think><answer>b</answer>")


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "<answer>3*25+7</answer>",  # no thought
        "</think><answer>3*25+7</answer>",  # an empty one
        "\n </think><answer>3*25+7</answer>",
        "x<answer>3*25+7</answer></think>",  # the wrong way round
        "x</think><answer></answer>",
        "x</think><answer> \n</answer>",
        "x</think><answer>1",
        "x</think>1</answer>",
        "x</think>so <answer>1</answer>",  # words outside both
        RIGHT_FORM + " done",
        RIGHT_FORM + "<answer>1</answer>",
        RIGHT_FORM + RIGHT_FORM,
        "<think>" + RIGHT_FORM,  # the prompt has opened it
        "x <answer>1</answer> y" + RIGHT_FORM,
        "x</think></think><answer>1</answer>",
        "x</think><answer><answer>1</answer>",
        "x</THINK><ANSWER>1</ANSWER>",
    ],
)
def test_any_other_form_is_not_it(completion):
    assert not well_formed(completion)


def test_the_form_alone_is_not_a_right_answer():
    """The form is paid whether or not the answer is right, and never counts as right."""
    problem, task = as_problem((3, 7, 25), 82), Countdown(format_reward=0.5)
    bare = Countdown().grade(problem, RIGHT_FORM)
    both, form, answer, none = (
        task.grade(problem, text)
        for text in (RIGHT_FORM, "x</think><answer>7</answer>", "<answer>3*25+7</answer>", "x")
    )
    assert [one.reward for one in (both, form, answer, none)] == [1.5, 0.5, 1.0, 0.0]
    assert [one.correct for one in (both, form, answer, none)] == [True, False, True, False]
    assert [one.parts["format"] for one in (both, form, answer, none)] == [1.0, 1.0, 0.0, 0.0]
    assert "not in the asked form" in answer.reason and both.reason == bare.reason
    assert bare.reward == 1.0 and "format" not in bare.parts
