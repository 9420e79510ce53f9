"""The decoder against `transformers`, both ways, and the properties that training rests on."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from aha.core.errors import ConfigError, ModelError
from aha.model.attention import causal_mask
from aha.model.transformer import ModelConfig
from aha.model.weights import load_model, save_model

from ..tiny import TOKENIZER, tiny_config, tiny_folder, tiny_transformer
from .gradients import assert_gradients_like

SHAPES = [
    pytest.param({}, id="two query heads a key"),
    pytest.param({"num_key_value_heads": 1}, id="one key for all heads"),
    pytest.param({"num_key_value_heads": 4}, id="a key for every head"),
    pytest.param({"num_attention_heads": 2, "num_key_value_heads": 1}, id="head size 16"),
    pytest.param({"tie_word_embeddings": False}, id="untied head"),
    pytest.param({"rope_theta": 1e6, "rms_norm_eps": 1e-5}, id="other constants"),
]


def some_tokens(B: int = 3, T: int = 40, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, TOKENIZER.vocab_size, (B, T), generator=generator)


def close(found, wanted) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("changes", SHAPES)
def test_transformers_loads_what_we_write(tmp_path, changes):
    policy = tiny_transformer(**changes)
    save_model(tmp_path, policy, TOKENIZER)
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(oracle, Qwen2ForCausalLM) and oracle.dtype == torch.float32
    tokens_BT = some_tokens()
    close(policy(tokens_BT), oracle(tokens_BT).logits)
    ids = (oracle.generation_config.eos_token_id, oracle.generation_config.pad_token_id)
    assert ids == (TOKENIZER.stop_ids[0], TOKENIZER.pad_id)


@torch.no_grad()
@pytest.mark.parametrize("changes", SHAPES)
def test_we_load_what_transformers_writes(tmp_path, changes):
    config = tiny_config(**changes).to_hf()
    theta = config.pop("rope_theta")
    rope = {"rope_type": "default", "rope_theta": theta}
    torch.manual_seed(3)
    oracle = Qwen2ForCausalLM(Qwen2Config(**config, rope_parameters=rope)).eval()
    for parameter in oracle.parameters():
        parameter.normal_(0.0 if parameter.ndim > 1 else 1.0, 0.3)
    oracle.save_pretrained(tmp_path)
    TOKENIZER.save(tmp_path)
    found = load_model(tmp_path)
    assert found.policy.config == tiny_config(**changes)
    tokens_BT = some_tokens()
    close(found.policy(tokens_BT), oracle(tokens_BT).logits)


@torch.no_grad()
def test_bf16_weights_of_another_writer_load_as_float32(tmp_path):
    torch.manual_seed(3)
    oracle = Qwen2ForCausalLM(Qwen2Config(**tiny_config().to_hf())).eval().to(torch.bfloat16)
    oracle.save_pretrained(tmp_path)
    TOKENIZER.save(tmp_path)
    found = load_model(tmp_path).policy
    assert {parameter.dtype for parameter in found.parameters()} == {torch.float32}
    close(found(some_tokens()), oracle.float()(some_tokens()).logits)


def test_a_folder_that_transformers_saved_again_is_the_same_model(tmp_path):
    """Ours -> transformers -> ours, tokenizer included, bit for bit."""
    first = tiny_folder(tmp_path / "ours")
    again = tmp_path / "theirs"
    AutoModelForCausalLM.from_pretrained(first).save_pretrained(again)
    AutoTokenizer.from_pretrained(first).save_pretrained(again)
    ours, theirs = load_model(first), load_model(again)
    assert theirs.policy.config == ours.policy.config
    for name, tensor in ours.policy.state_dict().items():
        assert torch.equal(tensor, theirs.policy.state_dict()[name]), name
    text = "numbers 3 7 25 target 82\n<think>\n25+7=32\n"
    assert theirs.tokenizer.encode(text) == ours.tokenizer.encode(text)
    assert theirs.tokenizer.stop_ids == ours.tokenizer.stop_ids
    assert theirs.tokenizer.pad_id == ours.tokenizer.pad_id


# -- what training rests on -----------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("start", [1, 7, 39])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_token_logprobs_from_a_start_is_a_slice_of_the_full_logits(start, temperature):
    policy, tokens_BT = tiny_transformer(), some_tokens()
    # Position t - 1 predicts token t.
    full = torch.log_softmax(policy(tokens_BT)[:, :-1] / temperature, -1)
    full = full.gather(-1, tokens_BT[:, 1:, None]).squeeze(-1)
    found = policy.token_logprobs(tokens_BT, start, temperature=temperature)
    assert found.shape == (3, 40 - start)
    torch.testing.assert_close(found, full[:, start - 1 :], rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_padding_on_the_right_does_not_change_a_row():
    policy, tokens_BT = tiny_transformer(), some_tokens(1, 20)
    padded = torch.cat([tokens_BT, torch.full((1, 30), TOKENIZER.pad_id)], 1)
    torch.testing.assert_close(policy(padded)[:, :20], policy(tokens_BT), rtol=1e-5, atol=1e-5)
    alone, beside = (policy.token_logprobs(rows)[:, :19] for rows in (tokens_BT, padded))
    torch.testing.assert_close(beside, alone, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_no_position_sees_what_comes_after_it():
    policy, tokens_BT = tiny_transformer(), some_tokens(1, 20)
    changed = tokens_BT.clone()
    changed[:, 12] = (changed[:, 12] + 1) % TOKENIZER.vocab_size
    before, after = policy(tokens_BT), policy(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(before[:, 12:], after[:, 12:], atol=1e-2)


def test_gradients_are_those_of_transformers(tmp_path):
    """The folded norms and the hand-written backward passes, together, against plain autograd."""
    policy, tokens_BT = tiny_transformer(), some_tokens(2, 24)
    save_model(tmp_path, policy, TOKENIZER)
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert_gradients_like(policy, oracle, tokens_BT, atol=1e-4)


def test_bf16_arithmetic_is_near_float32_and_leaves_float32_gradients():
    policy, tokens_BT = tiny_transformer(std=0.1), some_tokens()
    exact = policy.token_logprobs(tokens_BT)
    rough = policy.token_logprobs(tokens_BT, dtype=torch.bfloat16)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)
    rough.sum().backward()
    assert {parameter.grad.dtype for parameter in policy.parameters()} == {torch.float32}


def test_initialise_is_a_function_of_the_seed_and_starts_near_uniform():
    first, again, other = (
        tiny_transformer().initialise(torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    )
    assert torch.equal(first.model.embed_tokens.weight, again.model.embed_tokens.weight)
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)
    assert not first.model.layers[0].self_attn.q_proj.bias.any()
    with torch.no_grad():
        surprise = -first.token_logprobs(some_tokens()).mean().item()
    assert surprise == pytest.approx(torch.log(torch.tensor(112.0)).item(), abs=0.1)  # ln 112


def test_the_mask_lets_a_query_look_at_itself_and_before():
    mask = causal_mask(3, torch.zeros(1))
    assert (mask == 0).tolist() == [[True, False, False], [True, True, False], [True, True, True]]
    assert torch.isfinite(mask).all()


# -- config.json ----------------------------------------------------------------------------


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match="divide"):
        tiny_config(hidden_size=30)
    with pytest.raises(ConfigError, match="key-value heads"):
        tiny_config(num_key_value_heads=3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, "'gpt2'"),
        ({"model_type": None}, "None"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, "rope scaling"),
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "rope scaling"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}, "rope scaling"),
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"hidden_act": "gelu"}, "gelu"),
    ],
)
def test_what_this_decoder_would_compute_wrongly_is_refused(change, words):
    with pytest.raises(ModelError, match=words):
        ModelConfig.from_hf(tiny_config().to_hf() | change)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": ["qwen2"]},
        {"rope_scaling": "yes"},
        {"rope_theta": "1e6"},
        {"rope_theta": 0},
        {"rms_norm_eps": None, "num_key_value_heads": "2"},
        {"head_dim": True},
        {"max_position_embeddings": [160]},
        {"rope_scaling": {"rope_type": "llama3", "factor": "8", "low_freq_factor": 1.0}},
    ],
)
def test_a_value_of_another_kind_is_an_error_and_no_crash(change):
    with pytest.raises(ModelError):
        ModelConfig.from_hf(tiny_config().to_hf() | change)


def test_config_survives_the_way_through_json():
    config = tiny_config(tie_word_embeddings=False, rope_theta=5e5)
    assert ModelConfig.from_hf(json.loads(json.dumps(config.to_hf()))) == config


def test_a_key_left_out_means_what_transformers_takes_it_to_mean():
    """Not our own defaults: a folder written by others was never meant to follow those."""
    whole = tiny_config().to_hf()
    left_out = ("tie_word_embeddings", "rope_theta", "rms_norm_eps", "max_position_embeddings")
    theirs = Qwen2Config(**{key: value for key, value in whole.items() if key not in left_out})
    ours = ModelConfig.from_hf({key: value for key, value in whole.items() if key not in left_out})
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings
    assert ours.rms_norm_eps == theirs.rms_norm_eps
    assert ours.max_position_embeddings == theirs.max_position_embeddings
    assert ours.rope_theta == theirs.rope_parameters["rope_theta"]


@pytest.mark.parametrize(
    "key",
    ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"],
)
def test_a_size_left_out_is_an_error_that_names_it(key):
    raw = tiny_config().to_hf()
    del raw[key]
    with pytest.raises(ModelError, match=key):
        ModelConfig.from_hf(raw)
