"""Examples as tokens: what is learnt, what ends it, and that nothing is dropped without a count."""

import json
from pathlib import Path

import pytest

from aha.core.errors import ConfigError, DataError
from aha.model.tokenizer import Tokenizer
from aha.sft.examples import load_examples
from aha.tasks.countdown import puzzle_line, puzzles
from aha.tasks.tags import plain_frame

from ..tiny import TOKENIZER

TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CONVERSING = Tokenizer(TOKENIZER.fast, template=TEMPLATE)
GOOD = {"prompt": "2+2=", "completion": "4"}


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def puzzle(split: str) -> str:
    numbers, target, _ = next(puzzles(split, 1, (3,)))
    return plain_frame(puzzle_line(numbers, target))


def text_of(tokens: tuple[int, ...]) -> str:
    return TOKENIZER.fast.decode(list(tokens), skip_special_tokens=False)


def test_a_text_is_read_as_it_is_and_the_completion_ends_with_the_stop_token(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD, {"prompt": "x", "completion": "y<|endoftext|>\n"})
    loaded = load_examples(path, TOKENIZER, 100)
    assert [text_of(one.prompt) for one in loaded.examples] == ["2+2=", "x"]
    assert [text_of(one.completion) for one in loaded.examples] == [
        "4<|endoftext|>",
        "y<|endoftext|>",  # once, although the row has one of its own
    ]
    assert loaded.notes == [] and loaded.num_tokens == 4 + 2 + 1 + 2 and loaded.rows == [6, 3]


def test_a_conversation_is_read_in_the_models_own_template(tmp_path):
    talk = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    row = {"messages": [{"role": role, "content": content} for role, content in talk]}
    loaded = load_examples(write(tmp_path / "a.jsonl", row), CONVERSING, 100)
    assert [(text_of(one.prompt), text_of(one.completion)) for one in loaded.examples] == [
        ("[user]a[assistant]", "b<|endoftext|>"),
        ("[user]a[assistant]b[user]c[assistant]", "d<|endoftext|>"),
    ]


def test_completions_that_are_graded_as_wrong_are_not_learnt_in_silence(tmp_path):
    rows = [GOOD | {"correct": right} for right in (True, False, False)]
    loaded = load_examples(write(tmp_path / "a.jsonl", *rows, GOOD), TOKENIZER, 100)
    assert len(loaded.examples) == 4
    assert "2 of 4 rows of a.jsonl are learnt though graded as wrong" in loaded.notes[0].message


BAD = {
    "without an answer": {"prompt": "x", "completion": ""},
    "without a prompt": {"completion": "y"},
    "that are no examples": "text",
    "with a truncated completion": GOOD | {"finish": "length"},
    "with the tags of another template": {"prompt": "<|im_start|>a", "completion": "y"},
    "with text that the tokenizer lacks": {"prompt": "é", "completion": "y"},
    "longer than the context": {"prompt": "x", "completion": "y" * 39},
    "with a held-out problem": {"prompt": puzzle("test"), "completion": "y"},
}


def test_every_bad_row_is_dropped_and_counted_by_its_kind(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD, *BAD.values(), *BAD.values(), GOOD)
    loaded = load_examples(path, TOKENIZER, 40)
    assert [text_of(one.prompt) for one in loaded.examples] == ["2+2="] * 2
    (note,) = loaded.notes
    assert note.level == "warn" and note.message.startswith("16 rows of a.jsonl dropped, 2 kept")
    for number, kind in enumerate(BAD, 2):
        assert f"2 {kind} (first: row {number}, " in note.message
    assert "\n" not in note.message


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_can_be_refused_in_place_of_dropped(tmp_path, kind):
    path = write(tmp_path / "a.jsonl", GOOD, BAD[kind])
    with pytest.raises(DataError, match=f"row 2: a row {kind}"):
        load_examples(path, TOKENIZER, 40, "refuse")


def test_an_example_that_just_fits_is_kept_whole(tmp_path):
    path = write(tmp_path / "a.jsonl", {"prompt": "x", "completion": "y" * 38})
    (example,) = load_examples(path, TOKENIZER, 40).examples
    assert example.num_tokens == 40  # x, 38 times y, and the stop token


def test_no_example_is_an_error_with_the_first_reason(tmp_path):
    with pytest.raises(DataError, match=r"row 1: .*without an answer.*and 1 more of 2 rows"):
        load_examples(write(tmp_path / "a.jsonl", {"prompt": "x"}, {}), TOKENIZER, 40)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    with pytest.raises(DataError, match="is empty"):
        load_examples(empty, TOKENIZER, 40)
    with pytest.raises(DataError, match="no file"):
        load_examples(tmp_path / "none.jsonl", TOKENIZER, 40)
    with pytest.raises(ConfigError, match="bad_rows"):
        load_examples(empty, TOKENIZER, 40, "keep")


@pytest.mark.parametrize("tag", ["<|im_end|>", "[INST]", "<|eot_id|>", "<|endoftext|>"])
def test_no_tag_begins_another_turn_inside_what_is_said(tmp_path, tag):
    inside = f"a{tag}b"
    text = {"prompt": "x", "completion": inside}
    chat = [{"role": "user", "content": inside}, {"role": "assistant", "content": "c"}]
    rows = [text] if tag == "<|endoftext|>" else [text, {"messages": chat}]
    loaded = load_examples(write(tmp_path / "a.jsonl", GOOD, *rows), CONVERSING, 40)
    assert len(loaded.examples) == 1
    assert f"{len(rows)} with the tags of another template" in loaded.notes[0].message


@pytest.mark.parametrize("tag", ["<|im_sep|>", "<eos>", "<|channel|>", "<\uff5cend\u2581of\uff5c>"])
def test_marks_of_models_that_nobody_has_listed_are_those_of_another_template(tmp_path, tag):
    rows = [{"prompt": f"x{tag}", "completion": "y"}, {"prompt": "x", "completion": f"y{tag}"}]
    words = GOOD | {"completion": "<|begin_of_thought|>4<|end_of_thought|>"}  # those of Sky-T1
    loaded = load_examples(write(tmp_path / "a.jsonl", GOOD, words, *rows), TOKENIZER, 100)
    assert len(loaded.examples) == 2
    assert f"2 with the tags of another template (first: row 3, {tag}" in loaded.notes[0].message


def test_an_end_that_may_be_html_is_one_at_the_end(tmp_path):
    html, ended = ({"prompt": "x", "completion": text} for text in ("<s>y</s>z", "y</s>\n"))
    loaded = load_examples(write(tmp_path / "a.jsonl", html, ended), TOKENIZER, 100)
    assert [text_of(one.completion) for one in loaded.examples] == ["<s>y</s>z<|endoftext|>"]
    assert "1 with the tags of another template (first: row 2, </s>" in loaded.notes[0].message


def test_several_ends_of_the_models_own_are_one(tmp_path):
    path = write(tmp_path / "a.jsonl", GOOD | {"completion": "4<|endoftext|>\n<|endoftext|>\n"})
    (example,) = load_examples(path, TOKENIZER, 100).examples
    assert text_of(example.completion) == "4<|endoftext|>"


def test_a_model_without_a_chat_template_has_no_conversations(tmp_path):
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with pytest.raises(DataError, match="no chat template"):
        load_examples(write(tmp_path / "a.jsonl", {"messages": chat}), TOKENIZER, 40)


def test_parquet_is_read_as_well(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    table = pyarrow.table({"messages": [chat, chat]})
    parquet.write_table(table, tmp_path / "a.parquet")
    loaded = load_examples(tmp_path / "a.parquet", CONVERSING, 40)
    assert [text_of(one.completion) for one in loaded.examples] == ["b<|endoftext|>"] * 2


def test_a_text_in_chatml_is_said_in_the_models_own_template(tmp_path):
    """As in RL, so that what is learnt here is what is asked there."""
    prompt = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    path = write(tmp_path / "a.jsonl", {"prompt": prompt, "completion": "b"})
    (example,) = load_examples(path, CONVERSING, 40).examples
    assert text_of(example.prompt) == "[user]a[assistant]"
