"""The forms of a row, each written by hand, and every reason not to use one."""

import pytest

from aha.sft.example_rows import (
    NO_ANSWER,
    NO_PROMPT,
    NO_TOKENS,
    UNFINISHED,
    UNREADABLE,
    ExampleText,
    UnusableRow,
    example_texts,
)
from aha.tasks.files import UnreadableRow

USER = {"role": "user", "content": "2+2?"}
ANSWER = {"role": "assistant", "content": "4"}
CHAT = [ExampleText([USER], "4")]


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"prompt": "2+2=", "completion": "4"}, [ExampleText("2+2=", "4")]),
        ({"PROMPT": "2+2=", "Response": "4", "id": 7}, [ExampleText("2+2=", "4")]),
        ({"question": "2+2?", "answer": "4"}, [ExampleText("2+2?", "4")]),
        ({"prompt": "2+2=", "completion": "4", "messages": None}, [ExampleText("2+2=", "4")]),
        ({"instruction": "Add.", "input": "2 2", "output": "4"}, [ExampleText("Add.\n2 2", "4")]),
        ({"instruction": "Add.", "input": "", "output": "4"}, [ExampleText("Add.", "4")]),
        ({"messages": [USER, ANSWER]}, CHAT),
        ({"prompt": [USER], "completion": [ANSWER]}, CHAT),
        ({"prompt": [USER], "completion": "4"}, CHAT),
        ({"prompt": "2+2?", "completion": [ANSWER]}, CHAT),
        (
            {"conversations": [{"from": "human", "value": "2+2?"}, {"from": "gpt", "value": "4"}]},
            CHAT,
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "2+2?"}]}, ANSWER]},
            CHAT,
        ),
    ],
)
def test_a_row_in_every_form(row, turns):
    assert example_texts(row) == turns


def test_every_turn_of_the_assistant_is_learnt_after_those_before_it():
    more = [{"role": "user", "content": "3+3?"}, {"role": "assistant", "content": "6"}]
    system = {"role": "system", "content": "Be short."}
    messages = [system, USER, ANSWER, *more]
    expected = [ExampleText([system, USER], "4"), ExampleText([system, USER, ANSWER, more[0]], "6")]
    assert example_texts({"messages": messages}) == expected
    # In TRL's form the turns of the prompt are only read.
    split = {"prompt": messages[:4], "completion": messages[4:]}
    assert example_texts(split) == expected[1:]


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        (UnreadableRow("cut"), UNREADABLE),
        (["2+2"], UNREADABLE),
        ({"messages": []}, UNREADABLE),
        ({"messages": "hi"}, UNREADABLE),
        ({"messages": [{"role": "tool", "content": "x"}, ANSWER]}, UNREADABLE),
        ({"messages": [{"content": "x"}, ANSWER]}, UNREADABLE),
        ({"messages": ["x", ANSWER]}, UNREADABLE),
        ({}, NO_PROMPT),
        ({"completion": "4"}, NO_PROMPT),
        ({"prompt": " ", "completion": "4"}, NO_PROMPT),
        ({"prompt": 4, "completion": "4"}, NO_PROMPT),
        ({"messages": [ANSWER]}, NO_PROMPT),
        ({"messages": [{"role": "user", "content": None}, ANSWER]}, NO_PROMPT),
        ({"prompt": "2+2="}, NO_ANSWER),
        ({"prompt": "2+2=", "completion": None}, NO_ANSWER),
        ({"prompt": "2+2=", "completion": "\n"}, NO_ANSWER),
        ({"prompt": "2+2=", "completion": 4}, NO_ANSWER),
        ({"messages": [USER]}, NO_ANSWER),
        ({"messages": [USER, ANSWER, USER]}, NO_ANSWER),
        ({"messages": [USER, {"role": "assistant", "content": ""}]}, NO_ANSWER),
        ({"messages": [USER, {"role": "assistant", "tool_calls": []}]}, NO_ANSWER),
        ({"prompt": "x", "completion": "\ud800"}, NO_TOKENS),
        ({"prompt": "x", "completion": "4 is", "finish": "length"}, UNFINISHED),
    ],
)
def test_a_row_that_cannot_be_used_says_why(row, kind):
    with pytest.raises(UnusableRow) as reason:
        example_texts(row)
    assert reason.value.kind == kind and reason.value.details
