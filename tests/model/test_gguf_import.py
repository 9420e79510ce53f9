"""A GGUF file as a model folder: what was written comes back, and what cannot be read is named."""

import warnings
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aha.core.errors import ModelError, RunError
from aha.model.gguf import CONTROL, NORMAL, save_gguf
from aha.model.gguf_header import read_header, refuse_large
from aha.model.gguf_import import import_gguf, scaling_of
from aha.model.model_warning import ModelWarning
from aha.model.rope_scaling import Llama3Scaling

from ..tiny import LEARNT, TURNS, foreign_tokenizer, tiny_transformer

gguf = pytest.importorskip("gguf")
HELLO = [{"role": "user", "content": "Hello"}]


def written(tmp_path, tokenizer, dtype=torch.float32, **shape):
    sizes = {"model_type": "llama", "vocab_size": 300, **shape}
    policy = tiny_transformer(**sizes)
    save_gguf(tmp_path / "model.gguf", policy, tokenizer, dtype)
    return policy


@pytest.mark.parametrize("begins", [False, True])
@torch.no_grad()
def test_what_was_exported_comes_back(tmp_path, begins):
    """Weights, tokens, template, and the token before every text; for transformers as well."""
    tokenizer = foreign_tokenizer(begins=begins)
    policy = written(tmp_path, tokenizer)
    model = import_gguf(tmp_path / "model.gguf", tmp_path / "out")
    tokens_BT = torch.randint(0, 296, (2, 40), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.policy(tokens_BT), policy(tokens_BT), rtol=1e-5, atol=1e-5)
    ids = tokenizer.encode(LEARNT)
    assert model.tokenizer.encode(LEARNT) == ids and (ids[0] == 1) is begins
    assert model.tokenizer.template == TURNS and model.tokenizer.stop_ids == (2, 0)
    net = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(net(tokens_BT).logits, policy(tokens_BT), rtol=1e-4, atol=1e-4)
    assert net.generation_config.eos_token_id == [2, 0]
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs(LEARNT, add_special_tokens=False).input_ids == ids[begins:]
    assert theirs.chat_template == TURNS and theirs.eos_token == "<|im_end|>"
    assert not list(tmp_path.glob(".out*"))


def test_every_token_that_ends_a_completion_comes_back(tmp_path):
    """The format names three, and llama.cpp knows some by their text (here 0 and 2); one more has
    no place in the file, and that is said."""
    tokenizer = foreign_tokenizer()
    tokenizer.stop_ids = (7, 0, 2, 9, 11)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ModelWarning)
        written(tmp_path, tokenizer)
    model = import_gguf(tmp_path / "model.gguf", tmp_path / "out")
    assert model.tokenizer.stop_ids == (7, 9, 11, 0, 2)
    tokenizer.stop_ids = (7, 0, 2, 9, 11, 13)
    assert tokenizer.fast.id_to_token(13) == "+"
    with pytest.warns(ModelWarning, match=r"three ends of a completion: '\+' will not end one"):
        written(tmp_path, tokenizer)


@pytest.mark.parametrize(
    ("named", "words", "ends"),
    [
        # As GGUF files of Llama 3.1, Qwen2.5 and Phi-3 name one; the hub's folders name them all.
        (3, "hello <|begin_of_text|> <|end_of_text|> <|eot_id|> <|eom_id|>", (3, 2, 4)),
        (2, "<|endoftext|> <|im_start|> <|im_end|>", (2, 0)),
        (1, "<|endoftext|> <|end|> <|assistant|>", (1, 0)),
        # Harmony ends a message with <|end|>, and the completion with the two others.
        (0, "<|return|> <|end|> <|call|>", (0, 2)),
        (None, "<|im_start|> <|im_end|>", (1,)),
    ],
)
def test_ends_that_a_file_does_not_name_are_known_by_their_text(tmp_path, named, words, ends):
    """As llama.cpp knows them."""
    tokens = words.split()
    file = file_with(
        tmp_path / "model.gguf", eos=named, tokens=tokens, kinds=[CONTROL] * len(tokens)
    )
    assert read_header(file).ends == ends
    plain = file_with(tmp_path / "words.gguf", eos=0, tokens=tokens, kinds=[NORMAL] * len(tokens))
    assert read_header(plain).ends == (0,)  # words, as `</s>` in HTML


def test_a_template_that_begins_a_text_itself_has_its_token(tmp_path):
    """Also where nothing else puts it before a text."""
    tokenizer = foreign_tokenizer("{{ bos_token }}" + TURNS)
    tokenizer.settings = {"bos_token": "<|endoftext|>"}
    written(tmp_path, tokenizer)
    found = import_gguf(tmp_path / "model.gguf", tmp_path / "out").tokenizer
    assert found.prefix == () and found.converse(HELLO) == tokenizer.converse(HELLO)
    assert found.converse(HELLO).startswith("<|endoftext|>")


@pytest.mark.parametrize(("pre", "begins"), [("smollm", False), ("llama-bpe", True)])
def test_a_file_that_does_not_say_whether_texts_begin_is_read_as_llama_cpp_does(
    tmp_path, pre, begins
):
    file = file_with(tmp_path / "model.gguf", pre=pre, bos=1)
    header = read_header(file)
    assert header.bos == 1 and header.before == (1 if begins else None)
    file = file_with(tmp_path / "said.gguf", pre=pre, bos=1, begins=not begins)
    assert read_header(file).begins is not begins


@torch.no_grad()
def test_stretched_positions_of_llama_3_come_back(tmp_path):
    scaling = Llama3Scaling(32.0, 1.0, 4.0, 8192)
    sizes = {"rope_scaling": scaling, "rope_theta": 5e5, "max_position_embeddings": 256}
    policy = written(tmp_path, foreign_tokenizer(), head_dim=64, **sizes)
    model = import_gguf(tmp_path / "model.gguf", tmp_path / "out")
    assert model.policy.config.rope_scaling == scaling
    tokens_BT = torch.arange(200)[None]
    torch.testing.assert_close(model.policy(tokens_BT), policy(tokens_BT), rtol=1e-5, atol=1e-5)


def test_factors_of_another_rule_are_no_scaling(tmp_path):
    written(tmp_path, foreign_tokenizer())
    header = read_header(tmp_path / "model.gguf")
    assert header.factors == () and str(header) == "architecture llama, F32"
    assert scaling_of(replace(header, factors=(1.0, 2.0, 9.0, 4.0))) is None


def test_quantised_weights_keep_their_values(tmp_path):
    policy = written(tmp_path, foreign_tokenizer(), torch.bfloat16)
    model = import_gguf(tmp_path / "model.gguf", tmp_path / "out")
    for name, tensor in policy.weights().items():
        rounded = tensor.bfloat16().float() if tensor.ndim > 1 else tensor
        assert torch.equal(model.policy.weights()[name], rounded), name


def test_what_is_no_gguf_file_is_named(tmp_path):
    path = tmp_path / "model.gguf"
    with pytest.raises(ModelError, match=r"No such file.*check the path"):
        import_gguf(path, tmp_path / "out")
    path.write_bytes(b"PK\x03\x04 and more of it")
    with pytest.raises(ModelError, match=r"begins with b'PK.*llama.cpp loads"):
        import_gguf(path, tmp_path / "out")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ModelError, match="a pointer of Git LFS.*git lfs pull"):
        import_gguf(path, tmp_path / "out")
    path.write_bytes(b"GGUF\x03\0\0\0 and then nothing")
    with pytest.raises(ModelError, match="cannot be read.*copy it anew"):
        import_gguf(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def file_with(path, **keys):
    """A file with one tensor and a vocabulary, and these keys in place of the usual ones."""
    writer = gguf.GGUFWriter(path, keys.pop("architecture", "llama"))
    usual = {"type": "model", "pre": "smollm", "words": "gpt2", "eos": 1}
    usual["tokens"] = ["a", "b", "ab"]
    given = usual | {"merge": "a b"} | keys
    writer.add_type(given["type"])
    if given["tokens"]:
        writer.add_tokenizer_model(given["words"])
        writer.add_tokenizer_pre(given["pre"])
        writer.add_token_list(given["tokens"])
        writer.add_token_merges([given["merge"]])
        writer.add_token_types(given.get("kinds", [NORMAL] * len(given["tokens"])))
    if given["eos"] is not None:
        writer.add_eos_token_id(given["eos"])
    if "bos" in given:
        writer.add_bos_token_id(given["bos"])
    if "begins" in given:
        writer.add_add_bos_token(given["begins"])
    if "theta" in given:
        writer.add_string("llama.rope.freq_base", given["theta"])
    if "parts" in given:
        writer.add_uint16("split.count", given["parts"])
    if "rope" in given:
        writer.add_rope_scaling_type(gguf.RopeScalingType(given["rope"]))
    writer.add_tensor("token_embd.weight", torch.zeros(2, 8).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"type": "mmproj"}, "a file of the type 'mmproj'"),
        ({"parts": 3}, "one of 3 parts.*llama-gguf-split"),
        ({"tokens": None}, "no vocabulary"),
        ({"eos": None}, "no token that ends a text"),
        ({"rope": "yarn"}, "stretched by the rule 'yarn'"),
        ({"architecture": "nosuch"}, "transformers cannot read .*architecture nosuch, F32"),
        ({"merge": "b b"}, "the merge 'b b', one of which is no token"),
        ({"merge": "ab"}, "the merge 'ab ', one of which is no token"),
        ({"bos": 77, "begins": True}, "the token 77 before every text"),
        ({"kinds": [NORMAL] * 2}, "damaged .*3 tokens and the kinds of 2"),
        ({"theta": "much"}, "damaged .*could not convert string to float"),
        ({}, "architecture llama, F32"),
        ({"words": "rwkv"}, "transformers cannot read .*architecture llama, F32"),
    ],
)
def test_a_file_that_is_no_model_is_refused_by_name(tmp_path, keys, words):
    path = file_with(tmp_path / "model.gguf", **keys)
    with pytest.raises(ModelError, match=words):
        import_gguf(path, tmp_path / "out")
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.gguf"]


def test_a_rule_of_splitting_without_a_name_is_refused(tmp_path):
    """`transformers` would split by GPT-2's rule, and the model would read other tokens."""
    written(tmp_path, foreign_tokenizer())
    path = tmp_path / "model.gguf"
    # The same number of bytes, so that no place in the file moves.
    path.write_bytes(path.read_bytes().replace(b"smollm", b"zmollm"))
    with pytest.raises(ModelError, match="splits text by the rule 'zmollm'.*smollm"):
        import_gguf(path, tmp_path / "out")


def test_a_taken_folder_and_a_model_that_is_too_large_are_refused_before_it_is_read(tmp_path):
    written(tmp_path, foreign_tokenizer())
    path = tmp_path / "model.gguf"
    with pytest.raises(RunError, match="exists already.*another --out"):
        import_gguf(path, tmp_path)
    header = replace(read_header(path), numbers=10**15)
    with pytest.raises(ModelError, match="1,000,000,000 million weights, .* GB.*a smaller model"):
        refuse_large(path, header)
