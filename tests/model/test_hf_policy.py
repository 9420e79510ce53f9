"""Models that `transformers` runs: what they compute, what is refused, and the way back to disk."""

import copy
import json
import sys

import pytest
import torch
from transformers import AutoModelForCausalLM

from aha.core.errors import ModelError
from aha.model.gguf import save_gguf
from aha.model.hf_policy import HfPolicy
from aha.model.lora import add_lora, copy_sharing_frozen
from aha.model.tokenizer import Tokenizer
from aha.model.transformer import Transformer
from aha.model.weights import load_model, load_policy, save_model
from aha.training.critic import ValueModel

from ..strangers import load_stranger, stranger, stranger_folder
from ..tiny import TOKENIZER, tiny_folder, tiny_transformer

kinds = pytest.mark.parametrize("kind", ["gpt2", "gemma2"])


def some_tokens(B: int = 2, T: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, TOKENIZER.vocab_size, (B, T), generator=generator)


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# -- the maths ------------------------------------------------------------------------------


@kinds
@torch.no_grad()
def test_log_probs_and_entropies_are_those_of_transformers(tmp_path, kind):
    policy = load_stranger(tmp_path, kind).policy
    assert isinstance(policy, HfPolicy)
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    tokens_BT = some_tokens()
    tempered = torch.log_softmax(oracle(tokens_BT).logits / 0.7, -1)[:, 8:-1]
    logprobs_BT, entropies_BT = policy.logprobs_and_entropy(
        tokens_BT, 9, temperature=0.7, entropy=True
    )
    wanted = tempered.gather(-1, tokens_BT[:, 9:, None]).squeeze(-1)
    torch.testing.assert_close(logprobs_BT, wanted, rtol=1e-4, atol=1e-4)
    wanted = -(tempered.exp() * tempered).sum(-1)
    torch.testing.assert_close(entropies_BT, wanted, rtol=1e-4, atol=1e-4)
    # Padding on the right, as training packs rows, is seen by nothing before it.
    padded = torch.cat([tokens_BT, torch.ones(2, 7, dtype=torch.long)], 1)
    found = policy.token_logprobs(padded, 9, temperature=0.7)[:, : logprobs_BT.shape[1]]
    torch.testing.assert_close(found, logprobs_BT, rtol=1e-5, atol=1e-5)


def gradients_of(policy: HfPolicy, tokens_BT) -> list[torch.Tensor]:
    policy.zero_grad()
    policy.token_logprobs(tokens_BT, 5).mean().backward()
    return [parameter.grad.clone() for parameter in policy.trainable()]


def test_gradients_are_those_of_transformers(tmp_path):
    policy = load_stranger(tmp_path, "gpt2").policy
    tokens_BT = some_tokens()
    found = gradients_of(policy, tokens_BT)
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    labels = tokens_BT.masked_fill(torch.arange(tokens_BT.shape[1]) < 5, -100)
    (-oracle(tokens_BT, labels=labels).loss).backward()
    for mine, theirs in zip(found, oracle.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_recomputed_layers_drop_nothing_and_give_the_same_gradient(tmp_path, kind):
    """OPT drops in the layer itself, where it would believe that it trains."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48}
    sizes |= {"word_embed_proj_dim": 32, "dropout": 0.5}
    policy = load_stranger(tmp_path, kind, **(sizes if kind == "opt" else {})).policy
    plain, calls = copy_sharing_frozen(policy), []
    policy.recompute = True
    layers = [m for m in policy.net.modules() if getattr(m, "gradient_checkpointing", False)]
    inner = next(layer for layer in layers if type(layer).__name__.endswith(("Block", "Layer")))
    next(inner.children()).register_forward_hook(lambda *unused: calls.append(1))
    found = gradients_of(policy, some_tokens())
    assert len(calls) == 2, "the layer was not computed again"
    for mine, wanted in zip(found, gradients_of(plain, some_tokens()), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-6)


def test_bf16_is_the_type_of_the_arithmetic_and_not_of_the_weights(tmp_path):
    policy = load_stranger(tmp_path, "gpt2", std=0.1).policy
    exact = policy.token_logprobs(some_tokens())
    found = policy.token_logprobs(some_tokens(), dtype=torch.bfloat16)
    assert found.dtype == torch.float32
    assert 0 < float((found - exact).detach().abs().mean()) < 0.05
    assert all(parameter.dtype == torch.float32 for parameter in policy.trainable())


# -- out and in -----------------------------------------------------------------------------


@kinds
def test_what_is_saved_is_read_by_transformers_and_by_us(tmp_path, kind):
    policy = load_stranger(tmp_path / "theirs", kind).policy
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter += 0.01
    tokenizer = Tokenizer(TOKENIZER.fast, (0, 5))
    save_model(tmp_path / "ours", policy, tokenizer)
    found = load_model(tmp_path / "ours")
    assert same(found.policy.weights(), policy.weights())
    assert found.tokenizer.stop_ids == (0, 5)
    oracle = AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    with torch.no_grad():
        assert torch.equal(oracle(some_tokens()).logits, policy(some_tokens()))
    save_model(tmp_path / "half", policy, tokenizer, torch.bfloat16)
    half = AutoModelForCausalLM.from_pretrained(tmp_path / "half", dtype="auto")
    assert half.dtype == torch.bfloat16
    assert all(parameter.dtype == torch.float32 for parameter in policy.trainable())
    other = copy.deepcopy(found.policy)
    for parameter in other.parameters():
        parameter.data.zero_()
    load_policy(other, tmp_path / "ours")
    assert same(other.weights(), policy.weights())


def test_our_families_stay_ours_and_their_odd_relatives_go_to_transformers(tmp_path):
    """Qwen2.5 by our decoder; a Llama with biases, which ours would ignore, by theirs."""
    assert isinstance(load_model(tiny_folder(tmp_path / "ours")).policy, Transformer)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 48, "attention_bias": True}
    assert isinstance(load_stranger(tmp_path / "odd", "llama", **sizes).policy, HfPolicy)


# -- what is refused ------------------------------------------------------------------------


def refused(folder, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value) and "wanted" in str(caught.value)


def test_without_the_extra_the_line_that_installs_it_is_told(tmp_path, monkeypatch):
    stranger_folder(tmp_path, "gpt2")
    monkeypatch.setitem(sys.modules, "transformers", None)
    refused(tmp_path, r"model_type 'gpt2'; wanted .*qwen2.*; fix: pip install 'aha\[hf\]'")


def test_a_weight_that_is_not_there_is_not_drawn_at_random(tmp_path):
    stranger_folder(tmp_path, "gpt2")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"n_layer": 3}))
    refused(tmp_path, "missing or of another shape, such as transformer.h.2")


def test_a_model_that_sees_the_future_is_refused(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    stranger_folder(tmp_path, "bert", **sizes, intermediate_size=48)
    refused(tmp_path, "BertLMHeadModel changes its logits")


def test_pickles_and_quantised_weights_are_refused(tmp_path):
    stranger_folder(tmp_path, "gpt2")
    weights = tmp_path / "model.safetensors"
    kept = weights.read_bytes()
    weights.unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    refused(tmp_path, "pickle")
    weights.write_bytes(kept)
    config = json.loads((tmp_path / "config.json").read_text())
    raw = config | {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    refused(tmp_path, "quantised")


def test_code_of_strangers_is_not_run(tmp_path):
    stranger_folder(tmp_path, "gpt2")
    config = json.loads((tmp_path / "config.json").read_text())
    raw = config | {"model_type": "mine", "auto_map": {"AutoModelForCausalLM": "mine.Mine"}}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    (tmp_path / "mine.py").write_text("raise SystemExit('ran')")
    refused(tmp_path, "transformers cannot read")


def test_what_only_our_decoder_does_is_refused(tmp_path):
    policy = HfPolicy(stranger("gpt2"))
    for tried, words in (
        (lambda: add_lora(policy, 4, 8.0, 0), "adapters .* GPT2LMHeadModel.*lora_rank 0"),
        (lambda: ValueModel(policy), "'gae' with GPT2LMHeadModel"),
        (lambda: save_gguf(tmp_path / "x", policy, TOKENIZER, torch.float32), "GGUF with GPT2"),
    ):
        with pytest.raises(ModelError, match=words):
            tried()
    add_lora(tiny_transformer(), 4, 8.0, 0)
