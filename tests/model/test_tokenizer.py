"""The tokenizer: what each piece is, the way there and back, and the same ids in transformers."""

import json
from itertools import islice

import pytest
from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoTokenizer

from aha.core.errors import ModelError
from aha.corpus.bases import TraceMix
from aha.corpus.shards import documents
from aha.model.tokenizer import END, PAD, TAGS, WORDS, Tokenizer, build_tokenizer

from ..tiny import tiny_folder

TOKENIZER = build_tokenizer()

TRACE = "numbers 3 7 25 target 82\n<think>\n25*3=75 no\n82-7=75 need\n</think>\n<answer>3</answer>"


def traces(count: int) -> list[str]:
    """Prompts and completions of the corpus, with every style in it."""
    drawn = islice(documents(TraceMix(), 3, lambda numbers, target: True), count)
    return [document.prompt + document.completion for document in drawn]


def test_each_number_below_a_hundred_and_each_tag_is_one_token():
    for number in range(100):
        assert len(TOKENIZER.encode(str(number))) == 1
    pieces = [TOKENIZER.decode([token]) for token in TOKENIZER.encode("144+1000-7")]
    assert pieces == [*"144+1000-7"]
    assert len(TOKENIZER.encode("numbers 24 1 3 target 73\n99-25=74 7 10 no")) == 21
    for token in (*TAGS, *WORDS):
        assert len(TOKENIZER.encode(token)) == 1, token


def test_the_ids_never_change():
    """They are baked into every checkpoint: a new entry may only go to the end."""
    assert TOKENIZER.vocab_size == 202
    assert (TOKENIZER.id_of(END), TOKENIZER.id_of(PAD)) == (0, 1)
    assert TOKENIZER.encode("".join(TAGS) + "\n 0 9~") == [2, 3, 4, 5, 6, 7, 23, 7, 32, 101]
    assert TOKENIZER.encode("".join(WORDS)) == list(range(102, 112))
    assert TOKENIZER.encode("10 99") == [112, 7, 201]
    assert TOKENIZER.encode("00") == [23, 23]
    assert TOKENIZER.stop_ids == (0,) and TOKENIZER.pad_id == 1


def test_encode_then_decode_is_the_same_text():
    ascii_text = "".join(chr(code) for code in range(32, 127)) + "\n"
    for text in ["", ascii_text, " yesterday, a checkbook of numbers!", *traces(200)]:
        assert TOKENIZER.decode(TOKENIZER.encode(text)) == text


def test_decode_leaves_stop_and_pad_out_and_tags_in():
    ids = [*TOKENIZER.encode("<answer>1</answer>"), *TOKENIZER.stop_ids, TOKENIZER.pad_id]
    assert TOKENIZER.decode(ids) == "<answer>1</answer>"


@pytest.mark.parametrize("text", ["3 × 7", "naïve", "tab\there", "\N{PILE OF POO}", "nul\0"])
def test_text_that_the_vocabulary_cannot_hold_is_an_error(text):
    with pytest.raises(ModelError, match="cannot hold"):
        TOKENIZER.encode(text)


def test_half_of_a_character_is_an_error_with_its_place():
    with pytest.raises(ModelError, match="half of a character, at place 3"):
        TOKENIZER.encode("one\ud800")


def test_a_prompt_may_hold_stop_tokens_of_its_own():
    """As a chat prompt does: the end of the user's turn is the token that stops generation."""
    text = f"question{END}answer"
    ids = TOKENIZER.encode(text)
    assert TOKENIZER.stop_ids[0] in ids and len(ids) == len("questionanswer") + 1


def test_transformers_reads_the_same_ids(tmp_path):
    folder = tiny_folder(tmp_path, vocab_size=TOKENIZER.vocab_size)
    TOKENIZER.save(folder)
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in [TRACE, *traces(300)]:
        ids = TOKENIZER.encode(text)
        assert theirs.encode(text, add_special_tokens=False) == ids
        assert theirs.decode(ids) == text
    assert (theirs.eos_token, theirs.eos_token_id) == (END, TOKENIZER.stop_ids[0])
    assert (theirs.pad_token, theirs.pad_token_id) == (PAD, TOKENIZER.pad_id)


def test_save_and_load_give_the_same_tokenizer(tmp_path):
    TOKENIZER.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert (again.stop_ids, again.pad_id) == (TOKENIZER.stop_ids, TOKENIZER.pad_id)
    assert again.encode(TRACE) == build_tokenizer().encode(TRACE)


# -- other people's tokenizers --------------------------------------------------------------


def small_tokenizer(*special: str) -> FastTokenizer:
    fast = FastTokenizer(BPE(vocab={"a": 0, "b": 1}, merges=[]))
    fast.add_special_tokens([AddedToken(token) for token in special])
    return fast


def test_a_token_written_as_an_object_is_understood(tmp_path):
    small_tokenizer("<s>").save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": {"content": "<s>", "__type": "AddedToken"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert Tokenizer.load(tmp_path).stop_ids == (2,)


@pytest.mark.parametrize("token", [{"text": "<s>"}, ["<s>"], 2])
def test_a_token_written_in_no_known_way_is_an_error(tmp_path, token):
    small_tokenizer("<s>").save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": token}))
    with pytest.raises(ModelError, match="tokenizer_config.json: eos_token"):
        Tokenizer.load(tmp_path)


def test_without_a_pad_token_the_stop_token_pads(tmp_path):
    small_tokenizer("<s>").save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<s>", "pad_token": null}')
    found = Tokenizer.load(tmp_path)
    assert found.pad_id == found.stop_ids[0] == 2


def test_a_tokenizer_without_a_stop_token_is_an_error(tmp_path):
    small_tokenizer("<s>").save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ModelError, match=r"no token '<\|endoftext\|>'"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "</s>"}')
    with pytest.raises(ModelError, match="eos_token '</s>', which tokenizer.json does not have"):
        Tokenizer.load(tmp_path)


def test_a_missing_or_broken_file_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ModelError, match="tokenizer.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(ModelError, match="tokenizer.json"):
        Tokenizer.load(tmp_path)
    TOKENIZER.save(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelError, match="tokenizer_config.json"):
        Tokenizer.load(tmp_path)


def test_pieces_are_what_each_token_adds():
    tokenizer = build_tokenizer()
    text = "82-7=75 need\n</think>"
    ids = [*tokenizer.encode(text), *tokenizer.stop_ids]
    assert tokenizer.pieces(ids) == ["82", *"-7=", "75", " need", "\n", "</think>", "<|endoftext|>"]


def test_pieces_of_a_character_of_several_tokens():
    """Byte-level BPE without merges spells é as two tokens and the sign of a thumb as four."""
    alphabet = {char: i for i, char in enumerate(sorted(ByteLevel.alphabet()))}
    fast = FastTokenizer(BPE(vocab=alphabet, merges=[]))
    fast.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = ByteLevelDecoder()
    tokenizer = Tokenizer(fast, stop=(0,), pad="!")
    pieces = tokenizer.pieces(fast.encode("né 👍!").ids)
    assert pieces == ["n", "", "é", " ", "", "", "", "👍", "!"]
