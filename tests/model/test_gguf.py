"""A GGUF file, read back by `transformers`: the same logits, the same tokens."""

import json

import pytest
import torch
from tokenizers import AddedToken, Regex
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel, Digits, Metaspace, Sequence, Split
from tokenizers.trainers import BpeTrainer
from transformers import AutoModelForCausalLM, AutoTokenizer

from aha.core.errors import ModelError
from aha.model.gguf import (
    LLAMA3_PATTERN,
    NEMO_PATTERN,
    SPLITS,
    all_words_merge,
    name_of_split,
    save_gguf,
)
from aha.model.rope_scaling import Llama3Scaling
from aha.model.tokenizer import QWEN2_PATTERN, Tokenizer

from ..tiny import TOKENIZER, tiny_transformer

TEXT = "Reach 82 with 3, 7 and 25: 25*3+7 = 82, and don't forget it.\n<think>\nIt's 1234567!"
# As the real ones: Qwen2.5's has rows without a token, Qwen3's heads are 128 wide.
SHAPES = {
    "qwen2": {},
    "qwen3": {"head_dim": 128},
    "llama": {"tie_word_embeddings": False, "rope_theta": 5e5},
    "mistral": {"head_dim": 16, "tie_word_embeddings": False},
}


def real_tokenizer(split: str) -> Tokenizer:
    """Byte-level BPE with merges, trained here, and tokens that are added: special and plain."""
    fast = FastTokenizer(BPE())
    fast.pre_tokenizer = Sequence(
        [Split(Regex(split), "isolated"), ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    fast.decoder = ByteLevelDecoder()
    alphabet = ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=290, initial_alphabet=alphabet, show_progress=False)
    fast.train_from_iterator([TEXT] * 3, trainer)
    fast.add_special_tokens([AddedToken("<|endoftext|>", normalized=False)])
    fast.add_tokens([AddedToken("<think>", normalized=False)])
    return Tokenizer(fast, template="{{ messages[0].content }}")


def exported(tmp_path, kind: str, split: str, dtype=torch.float32):
    pytest.importorskip("gguf")
    tokenizer = real_tokenizer(split)
    policy = tiny_transformer(model_type=kind, vocab_size=300, **SHAPES[kind])
    save_gguf(tmp_path / "model.gguf", policy, tokenizer, dtype)
    return policy, tokenizer


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", SHAPES)
@torch.no_grad()
def test_transformers_reads_the_same_logits(tmp_path, kind, dtype):
    policy, _ = exported(tmp_path, kind, next(iter(SPLITS)), dtype)
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    )
    for parameter in policy.parameters():
        if parameter.ndim > 1:
            parameter.copy_(parameter.to(dtype))
    tokens_BT = torch.randint(0, 300, (2, 40), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(theirs(tokens_BT).logits, policy(tokens_BT), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("split", [QWEN2_PATTERN, LLAMA3_PATTERN])
def test_transformers_reads_the_same_tokens(tmp_path, split):
    _, tokenizer = exported(tmp_path, "qwen2", split)
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    ids = tokenizer.encode(TEXT)
    assert theirs(TEXT, add_special_tokens=False).input_ids == ids
    assert len(ids) < len(TEXT.encode()) and tokenizer.id_of("<think>") in ids
    assert theirs.eos_token == "<|endoftext|>" and theirs.eos_token_id == tokenizer.stop_ids[0]
    assert theirs.chat_template == tokenizer.template


def test_what_the_format_cannot_say_is_refused_before_a_file_exists(tmp_path):
    pytest.importorskip("gguf")
    path, tokenizer = tmp_path / "model.gguf", real_tokenizer(next(iter(SPLITS)))
    scaling = Llama3Scaling(32.0, 1.0, 4.0, 64)
    cases = [
        (tiny_transformer(), TOKENIZER, "tokenizer"),
        (tiny_transformer(vocab_size=300), real_tokenizer(r"\d|\D+"), "tokenizer"),
        (
            tiny_transformer(vocab_size=300, rope_scaling=scaling),
            tokenizer,
            "scaled rotary",
        ),
        (tiny_transformer(vocab_size=300, head_dim=16), tokenizer, "head_dim 16"),
    ]
    for policy, words, reason in cases:
        with pytest.raises(ModelError, match=f"{reason}.*--form hf"):
            save_gguf(path, policy, words, torch.float32)
    assert not path.exists()


# What llama.cpp splits with under each name: one rule after the other, each piece alone.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
IN_LLAMA_CPP = {"smollm": [r"\p{N}", GPT2], "gpt-2": [GPT2]}
PRE_TOKENIZERS = {
    "smollm": Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)]),
    "gpt-2": ByteLevel(add_prefix_space=False),
}


def written(pre_tokenizer) -> dict:
    """A pre-tokenizer as tokenizer.json has it."""
    fast = FastTokenizer(BPE())
    fast.pre_tokenizer = pre_tokenizer
    return json.loads(fast.to_str())["pre_tokenizer"]


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
def test_a_rule_of_steps_has_its_name_and_splits_as_llama_cpp_does(name):
    assert name_of_split(written(PRE_TOKENIZERS[name])) == name
    steps = [Split(Regex(rule), "isolated") for rule in IN_LLAMA_CPP[name]]
    theirs = Sequence([*steps, ByteLevel(add_prefix_space=False, use_regex=False)])
    for text in (TEXT, "  two\n\n 3  ", "x²=٣4", "it's 12%", "\t1.50 €"):
        pieces = [piece for piece, _ in PRE_TOKENIZERS[name].pre_tokenize_str(text)]
        assert pieces == [piece for piece, _ in theirs.pre_tokenize_str(text)]


@pytest.mark.parametrize(
    "pre_tokenizer",
    [
        ByteLevel(add_prefix_space=True),
        ByteLevel(add_prefix_space=False, use_regex=False),
        Sequence([Digits(individual_digits=False), ByteLevel(add_prefix_space=False)]),
        Sequence([Split(Regex(QWEN2_PATTERN), "removed"), ByteLevel(False, use_regex=False)]),
        Sequence([Split(Regex(QWEN2_PATTERN), "isolated"), ByteLevel(False)]),
        Metaspace(),
    ],
)
def test_a_rule_of_another_kind_has_no_name(pre_tokenizer):
    assert name_of_split(written(pre_tokenizer)) is None


def test_words_without_merges_are_told_from_words_that_merge():
    """llama.cpp takes a whole word of the vocabulary under the names of Llama 3 and Mistral-Nemo,
    and merges under the others: that is the same only where merges make every token."""
    model = {"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]]}
    assert all_words_merge(model, ())
    model["vocab"]["aab"] = 3
    assert not all_words_merge(model, ()) and all_words_merge(model, {"aab"})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"byte_fallback": True}, "sentencepiece"),
        ({"ignore_merges": True, "vocab": {"ab": 292}}, "ignore_merges True"),
        ({"normalizer": {"type": "Lowercase"}}, "normalizer Lowercase"),
        ({"pre_tokenizer": written(Metaspace())}, "no name for: Metaspace"),
    ],
)
def test_a_refused_tokenizer_is_refused_for_what_it_is(tmp_path, change, words):
    pytest.importorskip("gguf")
    content = json.loads(real_tokenizer(QWEN2_PATTERN).fast.to_str())
    change = dict(change)
    for key in ("normalizer", "pre_tokenizer"):
        content[key] = change.pop(key, content[key])
    content["model"]["vocab"] |= {
        f"{word}{word}{word}": i for word, i in change.pop("vocab", {}).items()
    }
    content["model"] |= change
    tokenizer = Tokenizer(FastTokenizer.from_str(json.dumps(content)))
    with pytest.raises(ModelError, match=words):
        save_gguf(tmp_path / "x", tiny_transformer(vocab_size=300), tokenizer, torch.float32)


def test_every_name_is_of_one_rule():
    assert len(set(SPLITS.values())) == len(SPLITS) and NEMO_PATTERN in SPLITS


@pytest.mark.parametrize("name", PRE_TOKENIZERS)
@torch.no_grad()
def test_a_model_with_such_a_rule_is_written_and_read(tmp_path, name):
    """SmolLM2's kind: the file has the name, the tokens and the logits."""
    gguf = pytest.importorskip("gguf")
    fast = real_tokenizer(QWEN2_PATTERN).fast
    fast.pre_tokenizer = PRE_TOKENIZERS[name]
    policy = tiny_transformer(model_type="llama", vocab_size=300)
    save_gguf(tmp_path / "model.gguf", policy, Tokenizer(fast), torch.float32)
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    assert fields["tokenizer.ggml.pre"].contents() == name
    assert fields["tokenizer.ggml.tokens"].contents()[: len(ByteLevel.alphabet())]
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="model.gguf", dtype=torch.float32
    )
    tokens_BT = torch.arange(40)[None]
    torch.testing.assert_close(theirs(tokens_BT).logits, policy(tokens_BT), rtol=1e-4, atol=1e-4)
