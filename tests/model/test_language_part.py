"""Models that wrap a language model: the language part is read, trained and written."""

import json
import warnings

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from aha.core.errors import ModelError
from aha.model.hf_policy import HfPolicy
from aha.model.language_part import language_name
from aha.model.model_warning import ModelWarning
from aha.model.transformer import Transformer
from aha.model.weights import load_model, load_policy, save_model

from ..strangers import SIZES, load_stranger
from ..tiny import TOKENIZER

SHAPE = SIZES | {"num_key_value_heads": 2, "intermediate_size": 48, "max_position_embeddings": 160}
EYES = {
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 28,
    "patch_size": 14,
}
TEXT = SHAPE | {"head_dim": 8, "vocab_size": TOKENIZER.vocab_size}


def wrapper(kind: str, text: str, eyes: str | None, **changes) -> dict:
    vision = EYES | ({"model_type": eyes} if eyes else {})
    return {"kind": kind, "text_config": {"model_type": text} | TEXT, "vision_config": vision} | (
        changes
    )


# By the model: whether our own decoder computes its language part.
WRAPPERS = {
    "Ministral-3": (
        wrapper("mistral3", "ministral3", "pixtral", image_token_index=5),
        False,
    ),
    "Gemma-3": (
        wrapper("gemma3", "gemma3_text", "siglip_vision_model", mm_tokens_per_image=4),
        False,
    ),
    "Mistral-Small-3": (wrapper("mistral3", "mistral", "pixtral", image_token_index=5), True),
    "LLaVA": (wrapper("llava", "llama", "clip_vision_model", image_token_index=5), True),
    "SmolVLM": (wrapper("smolvlm", "llama", None, image_token_id=5, scale_factor=2), True),
}
named = pytest.mark.parametrize("name", WRAPPERS)


@torch.no_grad()
def wrapped_folder(folder, name: str):
    """A folder as its makers would write it, and the whole model."""
    settings = dict(WRAPPERS[name][0])
    torch.manual_seed(0)
    config = AutoConfig.for_model(settings.pop("kind"), **settings)
    net = AutoModelForImageTextToText.from_config(config).eval()
    for parameter in net.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, 0.3)
    net.save_pretrained(folder)
    TOKENIZER.save(folder)
    return net


def some_tokens() -> torch.Tensor:
    return torch.randint(
        6, TOKENIZER.vocab_size, (2, 30), generator=torch.Generator().manual_seed(1)
    )


@named
@torch.no_grad()
def test_logits_are_those_of_the_whole_model_on_text(tmp_path, name):
    net = wrapped_folder(tmp_path, name)
    with pytest.warns(ModelWarning, match="language part is read and trained, .* are left out"):
        policy = load_model(tmp_path).policy
    assert isinstance(policy, Transformer if WRAPPERS[name][1] else HfPolicy)
    assert policy.num_parameters() < 0.6 * net.num_parameters()
    wanted = net(input_ids=some_tokens()).logits
    torch.testing.assert_close(policy(some_tokens()), wanted, rtol=1e-4, atol=1e-4)


@named
@torch.no_grad()
def test_what_is_saved_is_a_model_of_text(tmp_path, name):
    wrapped_folder(tmp_path / "theirs", name)
    loaded = load_model(tmp_path / "theirs")
    for parameter in loaded.policy.trainable():
        parameter += 0.01
    save_model(tmp_path / "ours", loaded.policy, loaded.tokenizer)
    wanted = loaded.policy(some_tokens())
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    torch.testing.assert_close(oracle(some_tokens()).logits, wanted, rtol=1e-4, atol=1e-4)
    # A run that is resumed opens the base again, and fills it from its checkpoint.
    again = load_model(tmp_path / "theirs").policy
    load_policy(again, tmp_path / "ours")
    assert torch.equal(again(some_tokens()), wanted)


def test_a_head_that_is_in_neither_file_nor_configuration_is_the_embedding(tmp_path):
    """Two configurations say whether it is tied, and old writers leave one of them out."""
    net = wrapped_folder(tmp_path, "Mistral-Small-3")
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text())
    assert raw.pop("tie_word_embeddings") is True
    assert raw["text_config"].pop("tie_word_embeddings") is False
    path.write_text(json.dumps(raw))
    policy = load_model(tmp_path).policy
    assert policy.num_parameters() < net.num_parameters()
    assert policy.config.tie_word_embeddings


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("language_model.model.norm.weight", "model.norm.weight"),
        ("model.language_model.norm.weight", "model.norm.weight"),
        ("model.text_model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("lm_head.weight", "lm_head.weight"),
        ("model.vision_tower.layers.0.norm.weight", None),
        ("multi_modal_projector.linear_1.weight", None),
    ],
)
def test_the_name_of_a_tensor_in_the_language_model_alone(name, inner):
    assert language_name(name) == inner


def test_quantised_weights_are_refused_though_the_wrapper_says_it(tmp_path):
    wrapped_folder(tmp_path, "Mistral-Small-3")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": {"bits": 8}}))
    with pytest.raises(ModelError, match="quantised"):
        load_model(tmp_path)


# -- families that transformers computes ------------------------------------------------------


@pytest.mark.parametrize("kind", ["smollm3", "gemma3_text", "olmo2", "ministral3"])
@torch.no_grad()
def test_who_computes_a_model_is_said_with_the_reason(tmp_path, kind):
    with pytest.warns(ModelWarning, match=f"of transformers computes this .*'{kind}'"):
        loaded = load_stranger(tmp_path, kind, **SHAPE)
    assert [finding.level for finding in loaded.findings] == ["ok"]
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens_BT = some_tokens()
    torch.testing.assert_close(loaded.policy(tokens_BT), oracle(tokens_BT).logits)


def test_nothing_is_said_of_a_model_that_is_ours(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ModelWarning)
        assert load_stranger(tmp_path, "llama", **SHAPE).findings == []
