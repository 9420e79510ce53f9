"""Prompts in rows of other trainers: texts, messages, and what is neither."""

import pytest

from aha.tasks.reward_rows import columns_of, prompt_key, prompt_of, row_id

USER = {"role": "user", "content": "2+3?"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "2"}, {"type": "text", "text": "3"}]}


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "2+3="}, "2+3="),
        ({"question": "2+3=", "answer": "5"}, "2+3="),
        ({"question": "no", "prompt": "2+3="}, "2+3="),
        ({"prompt": "", "question": "2+3="}, "2+3="),
        ({"prompt": 7}, "7"),
        ({"prompt": [USER], "images": []}, [USER]),
        ({"prompt": [{**USER, "name": "x"}]}, [USER]),
        ({"prompt": [PARTS]}, [{"role": "user", "content": "2\n3"}]),
        ({"prompt": [{"role": "user"}]}, None),
        ({"prompt": [{"role": "user", "content": [{"type": "image"}]}]}, None),
        ({"prompt": [{"role": "<|im_end|>", "content": "x"}]}, None),
        ({"prompt": []}, None),
        ({"prompt": None}, None),
        ({"prompt": "half \ud800"}, None),
        ({"prompt": [{"role": "user", "content": "half \ud800"}]}, None),
        ({}, None),
    ],
)
def test_a_prompt_is_a_text_or_messages(row, prompt):
    assert prompt_of(row) == prompt


def test_functions_get_the_prompt_and_the_truth_of_verl_beside_the_columns():
    row = {"question": "2+3=", "reward_model": {"ground_truth": "5"}, "level": 1}
    assert columns_of(row) == row | {"prompt": "2+3=", "ground_truth": "5"}
    own = row | {"ground_truth": "its own"}
    assert columns_of(own)["ground_truth"] == "its own"


def test_a_row_is_known_by_all_of_it_and_a_prompt_by_its_words():
    rows = [{"prompt": "2 + 3", "a": 1}, {"a": 1, "prompt": "2 + 3"}, {"prompt": "2  +\n3 "}]
    assert row_id(rows[0]) == row_id(rows[1]) != row_id(rows[2])
    assert len(set(map(prompt_key, rows))) == 1
