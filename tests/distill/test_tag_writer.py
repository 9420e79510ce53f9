"""Completions of other programs in the student's tags, their words unchanged."""

import pytest

from aha.distill.tag_writer import in_tags
from aha.tasks.countdown import grade_countdown
from aha.tasks.tags import well_formed

RIGHT = "3*25=75\n75+7=82 yes\n</think>\n<answer>3*25+7</answer>"
FORMS = {
    "ours": RIGHT,
    "a thought that is opened again": f"<think>\n{RIGHT}",
    "Sky-T1": (
        "<|begin_of_thought|>\n3*25=75, 75+7=82\n<|end_of_thought|>\n<|begin_of_solution|>\n"
        "It is \\boxed{3*25+7}.\n<|end_of_solution|>"
    ),
    "a box": "First 3*25=75, then 75+7=82.\nSo it is \\boxed{3*25+7}.",
    "a last line": "3*25=75 and 7 more.\n\n**Final answer:** 3*25+7",
    "the answer is": "3*25=75 and 7 more.\nThe answer is 3*25+7.",
    "hashes": "3*25=75 and 7 more\n#### 3*25+7",
    "two answers": "<answer>3+7+25</answer> no, 3*25=75\n</think>\n<answer>3*25+7</answer>",
    "text after the answer": f"{RIGHT}\nI hope this helps!",
}


@pytest.mark.parametrize("text", FORMS.values(), ids=FORMS)
def test_the_answer_is_right_and_the_form_is_ours(text):
    written = in_tags(text)
    assert written is not None and well_formed(written), written
    assert grade_countdown(written, (3, 7, 25), 82).correct, written
    assert "75" in written.partition("</think>")[0]


def test_what_is_in_the_form_stays_as_it_is():
    assert in_tags(RIGHT) == RIGHT
    assert in_tags(in_tags(FORMS["a box"])) == in_tags(FORMS["a box"])


@pytest.mark.parametrize(
    "text",
    ["", " ", "I do not know", "3*25=75\n75+7=82", "<answer></answer>", "\\boxed{3}"]
    + ["3*25=75\nResults vary with the order", "3*25=75\nAnswering this takes time"],
)
def test_nothing_is_made_up(text):
    """No answer that can be told, or an answer without any thought before it."""
    written = in_tags(text)
    assert written is None or "boxed" in written
