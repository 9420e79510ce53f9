"""Every family against `transformers`, both ways: the real models' switches and proportions, small.

Sizes are divided, what decides about the maths is not: numbers of heads, head_dim apart from
hidden_size / heads, rotary constants and scaling, norms, biases, tied or untied heads.
"""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from aha.core.errors import ModelError
from aha.core.records import Problem, Prompt
from aha.model.architecture import ModelConfig
from aha.model.decode import InferenceWeights, decode_step, prefill
from aha.model.ops import rope_tables
from aha.model.rope_scaling import Llama3Scaling, YarnScaling
from aha.model.weights import load_model, save_model
from aha.rollout.engine import Sampling
from aha.rollout.native import NativeEngine

from ..tiny import TOKENIZER, needs_compiler, tiny_transformer
from .gradients import assert_gradients_like

LLAMA_32 = {"factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALING = Llama3Scaling(**LLAMA_32, original_max_position_embeddings=24)
FAMILIES = {
    "Qwen2.5-0.5B": {
        "model_type": "qwen2",
        "hidden_size": 112,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "rope_theta": 1e6,
    },
    "Qwen2.5 with YaRN": {
        "model_type": "qwen2",
        "hidden_size": 32,
        "num_attention_heads": 4,
        "rope_theta": 1e6,
        "rope_scaling": YarnScaling(4.0, 24, 1.2),
    },
    "Qwen3-0.6B": {
        "model_type": "qwen3",
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rope_theta": 1e6,
    },
    "Llama-3.2-1B": {
        "model_type": "llama",
        "hidden_size": 64,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "rope_theta": 5e5,
        "rms_norm_eps": 1e-5,
        "rope_scaling": SCALING,
    },
    "SmolLM2-135M": {
        "model_type": "llama",
        "hidden_size": 72,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "rope_theta": 1e5,
        "rms_norm_eps": 1e-5,
    },
    "Mistral-Nemo": {
        "model_type": "mistral",
        "hidden_size": 40,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "rope_theta": 1e6,
        "tie_word_embeddings": False,
    },
}
families = pytest.mark.parametrize("name", FAMILIES)


def decoder_of(name: str, **changes):
    return tiny_transformer(**FAMILIES[name] | changes)


def some_tokens(B: int = 2, T: int = 60) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, TOKENIZER.vocab_size, (B, T), generator=generator)


def close(found, wanted) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@families
@torch.no_grad()
def test_transformers_computes_the_same_logits_and_writes_what_we_read(tmp_path, name):
    policy, tokens_BT = decoder_of(name), some_tokens()
    save_model(tmp_path / "ours", policy, TOKENIZER)
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    assert oracle.config.model_type == FAMILIES[name]["model_type"]
    close(policy(tokens_BT), oracle(tokens_BT).logits)
    # The other way: other weights, written by them, in a narrow type and in shards.
    torch.manual_seed(7)  # some weights make logits in which float32 parts by more than is allowed
    for parameter in oracle.parameters():
        parameter.normal_(0.0 if parameter.ndim > 1 else 1.0, 0.2)
    oracle.to(torch.bfloat16).save_pretrained(tmp_path / "theirs", max_shard_size="20KB")
    assert (tmp_path / "theirs" / "model.safetensors.index.json").is_file()
    TOKENIZER.save(tmp_path / "theirs")
    found = load_model(tmp_path / "theirs").policy
    assert found.config == policy.config
    # Read again: `to` has rounded the rotary frequencies of the one at hand as well.
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs", dtype=torch.float32)
    close(found(tokens_BT), oracle(tokens_BT).logits)


@families
@torch.no_grad()
def test_greedy_generation_is_that_of_transformers(tmp_path, name):
    """Prefill and decode, token by token, against `generate`."""
    policy, prompts = decoder_of(name), some_tokens(2, 9)
    save_model(tmp_path, policy, TOKENIZER)
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path)
    wanted = oracle.generate(
        prompts, max_new_tokens=40, do_sample=False, eos_token_id=None, pad_token_id=1
    )
    weights = InferenceWeights.of(policy, torch.float32)
    logits, cache = prefill(weights, [tuple(row) for row in prompts.tolist()])
    drawn = [logits.argmax(-1)]
    for position in range(9, 48):
        cache.reserve(position + 1)
        drawn.append(decode_step(weights, cache, drawn[-1]).argmax(-1))
    assert torch.equal(torch.stack(drawn, 1), wanted[:, 9:])


@needs_compiler
@pytest.mark.parametrize("name", ["llama", "qwen3", "wide heads"])
def test_the_loop_in_c_holds_what_it_does_not_refuse(name):
    """No biases and scaled positions; norms on queries and keys; heads that are wider together than
    the model."""
    shapes = {
        "qwen3": {"model_type": "qwen3", "head_dim": 16},
        "llama": {"model_type": "llama", "rope_scaling": SCALING},
        "wide heads": {"model_type": "mistral", "head_dim": 32},
    }
    policy = tiny_transformer(hidden_size=64, **shapes[name])
    problem = Problem("one", "none", {})
    prompts = [Prompt(problem, "", tuple(some_tokens(1, 20)[0].tolist()))]
    written = [
        NativeEngine(policy, TOKENIZER, "float32", loop=loop).generate(prompts, Sampling(60, 9))[0]
        for loop in ("compiled", "torch")
    ]
    same = [one.tokens == other.tokens for one, other in zip(*written, strict=True)]
    # Their sums differ in the sixth digit: now and then a number drawn falls between two edges.
    assert sum(same) >= len(same) - 1


@families
def test_gradients_are_those_of_transformers(tmp_path, name):
    policy, tokens_BT = decoder_of(name), some_tokens(2, 30)
    save_model(tmp_path, policy, TOKENIZER)
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert_gradients_like(policy, oracle, tokens_BT, atol=2e-4)


# -- positions ------------------------------------------------------------------------------


def test_llama_32_frequencies_are_those_of_transformers():
    """With the real numbers, at the real head size, far out where the scaling shows."""
    scaling = Llama3Scaling(**LLAMA_32, original_max_position_embeddings=8192)
    config = ModelConfig(
        112, 2048, 64, 1, 32, 8, 131_072, 5e5, model_type="llama", rope_scaling=scaling
    )
    theirs = AutoConfig.for_model(**config.to_hf())
    wanted, factor = ROPE_INIT_FUNCTIONS["llama3"](theirs)
    cos, sin = rope_tables(config, torch.float32, "cpu")
    assert factor == 1.0 and cos.shape == (131_072, 32)
    angles = torch.outer(torch.arange(131_072.0), wanted)
    # A frequency's last bit is worth 0.01 at the last position.
    torch.testing.assert_close(cos[::999], angles[::999].cos(), rtol=0, atol=0.02)
    torch.testing.assert_close(sin[1], wanted.sin(), rtol=1e-5, atol=1e-9)
    plain, _ = rope_tables(ModelConfig(112, 2048, 64, 1, 32, 8, 9, 5e5), torch.float32, "cpu")
    assert not torch.allclose(cos[8], plain[8], rtol=0, atol=1e-9)


def test_a_window_bounds_the_context_and_within_it_changes_nothing(tmp_path):
    """Mistral 7B v0.1 looks back 4,096 tokens: that many positions we compute, and no more."""
    raw = tiny_transformer(model_type="mistral").config.to_hf()
    assert ModelConfig.from_hf(raw).max_position_embeddings == 160
    assert ModelConfig.from_hf(raw | {"sliding_window": 64}).max_position_embeddings == 64
    left_out = {key: value for key, value in raw.items() if key != "sliding_window"}
    long = ModelConfig.from_hf(left_out | {"max_position_embeddings": 32_768})
    assert long.max_position_embeddings == AutoConfig.for_model("mistral").sliding_window == 4096


# -- config.json ----------------------------------------------------------------------------


@families
def test_config_survives_the_way_through_json(name):
    config = decoder_of(name).config
    assert ModelConfig.from_hf(json.loads(json.dumps(config.to_hf()))) == config


@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama", "mistral"])
def test_a_key_left_out_means_what_transformers_takes_it_to_mean(kind):
    sizes = {
        "vocab_size": 112,
        "hidden_size": 256,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 32,
    }
    theirs = AutoConfig.for_model(kind, **sizes)
    ours = ModelConfig.from_hf({"model_type": kind, "num_key_value_heads": 8, **sizes})
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings
    assert ours.rms_norm_eps == theirs.rms_norm_eps
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]
    assert ours.head_dim == getattr(theirs, "head_dim", 256 // 32)
    window = theirs.sliding_window if kind == "mistral" else None
    assert ours.max_position_embeddings == (window or theirs.max_position_embeddings)


@pytest.mark.parametrize(
    ("kind", "change", "words"),
    [
        ("llama", {"attention_bias": True}, "attention_bias"),
        ("llama", {"mlp_bias": True}, "mlp_bias"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}, "rope scaling"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope scaling"),
        ("llama", {"quantization_config": {"bits": 4}}, "quantised"),
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window"),
        ("qwen2", {"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ("llama", {"model_type": "smollm3"}, "smollm3"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    ],
)
def test_what_this_decoder_would_compute_wrongly_is_refused(kind, change, words):
    raw = tiny_transformer(model_type=kind).config.to_hf()
    with pytest.raises(ModelError, match=words):
        ModelConfig.from_hf(raw | change)
