"""Which answer counts, and how many there were."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aha.tasks.tags import read_answer


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
