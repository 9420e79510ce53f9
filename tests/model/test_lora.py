"""LoRA: what trains, what it amounts to, and PEFT's file layout both ways."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from aha.core.errors import ModelError
from aha.model.decode import InferenceWeights, decode_step, prefill
from aha.model.folders import PlannedModel
from aha.model.lora import (
    add_lora,
    frozen_copy,
    load_adapter,
    merge_lora,
    peft_names,
    save_adapter,
)
from aha.model.weights import load_model, load_policy, save_model, save_policy

from ..tiny import TOKENIZER, tiny_transformer

RANK, ALPHA = 3, 12.0
FAMILIES = {"qwen2": {}, "qwen3": {"model_type": "qwen3", "head_dim": 16}}
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
TOKENS_BT = torch.randint(0, 112, (2, 25), generator=torch.Generator().manual_seed(3))


def adapted(trained: bool = True, **changes):
    """A decoder whose adapters have moved from where they began, or have not."""
    policy = tiny_transformer(**changes)
    add_lora(policy, RANK, ALPHA, seed=1)
    if trained:
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for layer in policy.model.layers:
                for B in layer.lora.B.values():
                    B.normal_(0.0, 0.2, generator=generator)
    return policy


@torch.no_grad()
def test_adapters_begin_without_effect_and_end_with_one():
    plain = tiny_transformer()(TOKENS_BT)
    torch.testing.assert_close(adapted(trained=False)(TOKENS_BT), plain, rtol=0, atol=0)
    assert (adapted()(TOKENS_BT) - plain).abs().max() > 1.0


def test_all_linear_maps_and_nothing_else_trains():
    policy = adapted()
    before = {name: tensor.clone() for name, tensor in policy.weights().items()}
    optimizer = torch.optim.AdamW(policy.trainable(), lr=0.1)
    policy.token_logprobs(TOKENS_BT).sum().backward()
    assert len(policy.trainable()) == 2 * 7 * len(policy.model.layers)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in policy.trainable())
    optimizer.step()
    assert all(torch.equal(tensor, before[n]) for n, tensor in policy.weights().items())


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_merging_changes_no_logit(family):
    """The low-rank sums beside the maps, the maps with them inside, and what the engine holds."""
    policy = adapted(**FAMILIES[family])
    beside = policy(TOKENS_BT)
    weights = InferenceWeights.of(policy, torch.float32)
    last, _ = prefill(weights, [tuple(row) for row in TOKENS_BT.tolist()])
    torch.testing.assert_close(last, beside[:, -1], rtol=1e-4, atol=1e-4)
    merge_lora(policy)
    assert policy.adapter is None and all(p.requires_grad for p in policy.parameters())
    torch.testing.assert_close(policy(TOKENS_BT), beside, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_an_engine_may_share_what_is_frozen(family):
    """Prompt and next tokens as from merged weights, without a copy of any but the adapters'."""
    policy = adapted(**FAMILIES[family])
    rows = [tuple(row) for row in TOKENS_BT.tolist()]
    found = []
    for share in (False, True):
        weights = InferenceWeights.of(policy, torch.float32, share)
        logits, cache = prefill(weights, rows)
        cache.reserve(len(rows[0]) + 8)
        found.append([logits, *(decode_step(weights, cache, TOKENS_BT[:, t]) for t in range(8))])
    for merged, shared in zip(*found, strict=True):
        torch.testing.assert_close(shared, merged, rtol=1e-4, atol=1e-4)
    assert weights.embedding.data_ptr() == policy.model.embed_tokens.weight.data_ptr()
    assert weights.lm_head.data_ptr() == policy.lm_head_weight.data_ptr()
    # The adapters are of this version, whatever becomes of the policy's.
    for parameter in policy.trainable():
        parameter.add_(1.0)
    assert torch.equal(prefill(weights, rows)[0], found[1][0])
    # What is not of the wanted type, or trains, cannot be shared.
    assert InferenceWeights.of(policy, torch.bfloat16, True).embedding.dtype == torch.bfloat16
    plain = tiny_transformer()
    own = InferenceWeights.of(plain, torch.float32, True).embedding
    assert own.data_ptr() != plain.model.embed_tokens.weight.data_ptr()


class Products(TorchDispatchMode):
    """Counts products number by number."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ == "mul"
        return func(*args, **(kwargs or {}))


def test_an_engine_folds_the_adapters_once_a_version():
    """In a step there are no more than the norms before the shared maps and q's scale; and the last
    norm. A norm in A and a scale in B for each token would be nine more a layer."""
    policy, counts = adapted(), []
    for share in (False, True):
        weights = InferenceWeights.of(policy, torch.float32, share)
        _, cache = prefill(weights, [tuple(row) for row in TOKENS_BT.tolist()])
        cache.reserve(TOKENS_BT.shape[1] + 1)
        with Products() as products:
            decode_step(weights, cache, TOKENS_BT[:, 0])
        counts.append(products.count)
    assert counts[1] - counts[0] == 3 * len(policy.model.layers) + 1


def test_the_gradient_is_that_of_the_merged_weight():
    """dA = scale * Bᵀ dW, dB = scale * dW Aᵀ with dW of the merged model's plain backward pass."""
    policy, merged = adapted(), adapted()
    merge_lora(merged)
    for model in (policy, merged):
        model.token_logprobs(TOKENS_BT).sum().backward()
    for layer, whole in zip(policy.model.layers, merged.model.layers, strict=True):
        for name, linear in whole.linears().items():
            A, B, dW = layer.lora.A[name], layer.lora.B[name], linear.weight.grad
            for found, wanted in ((A.grad, B.T @ dW), (B.grad, dW @ A.T)):
                wanted = wanted.detach() * ALPHA / RANK
                size = float(wanted.abs().max())
                torch.testing.assert_close(found, wanted, rtol=1e-3, atol=2e-4 * size)


def test_recomputing_gives_adapters_the_same_gradient():
    found = []
    for recompute in (False, True):
        policy = adapted()
        policy.recompute = recompute
        policy.token_logprobs(TOKENS_BT).sum().backward()
        found.append([p.grad for p in policy.trainable()])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_reference_shares_what_is_frozen_and_copies_what_moves():
    policy = adapted()
    reference = frozen_copy(policy)
    assert reference.lm_head_weight.data_ptr() == policy.lm_head_weight.data_ptr()
    before = reference(TOKENS_BT)
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(1.0)
    assert torch.equal(reference(TOKENS_BT), before)
    assert not reference.trainable() and len(policy.trainable()) == 28
    whole = tiny_transformer()
    assert frozen_copy(whole).lm_head_weight.data_ptr() != whole.lm_head_weight.data_ptr()


# -- files ----------------------------------------------------------------------------------


@torch.no_grad()
def test_an_adapter_comes_back(tmp_path):
    policy, other = adapted(), adapted(trained=False)
    save_adapter(tmp_path, policy, "owner/base")
    load_adapter(other, tmp_path)
    assert torch.equal(other(TOKENS_BT), policy(TOKENS_BT))
    fresh = adapted(trained=False)
    load_policy(fresh, tmp_path)
    assert torch.equal(fresh(TOKENS_BT), policy(TOKENS_BT))


def test_the_files_are_laid_out_as_peft_documents(tmp_path):
    """adapter_config.json with these keys, and A [r, in], B [out, r] under these names."""
    save_adapter(tmp_path, adapted(), "owner/base")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and config["task_type"] == "CAUSAL_LM"
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (RANK, ALPHA, 0.0)
    assert config["base_model_name_or_path"] == "owner/base"
    assert sorted(config["target_modules"]) == sorted(LINEARS)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wanted = {}
    widths = {"q_proj": 32, "k_proj": 16, "v_proj": 16, "o_proj": 32}
    for layer in range(2):
        for name in LINEARS:
            room = "self_attn" if name in widths else "mlp"
            place = f"base_model.model.model.layers.{layer}.{room}.{name}"
            outputs = widths.get(name, 32 if name == "down_proj" else 48)
            wanted[f"{place}.lora_A.weight"] = (RANK, 48 if name == "down_proj" else 32)
            wanted[f"{place}.lora_B.weight"] = (outputs, RANK)
    assert shapes == wanted


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_peft_reads_what_we_write_and_we_read_what_peft_writes(tmp_path, family):
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    base, ours, theirs = (tmp_path / name for name in ("base", "ours", "theirs"))
    policy = adapted(**FAMILIES[family])
    save_model(base, policy, TOKENIZER)
    save_adapter(ours, policy, str(base))
    found = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), ours)
    torch.testing.assert_close(found(TOKENS_BT).logits, policy(TOKENS_BT), rtol=1e-4, atol=1e-4)
    for name, parameter in found.named_parameters():
        if "lora_" in name:
            parameter.mul_(-0.5)
    found.save_pretrained(theirs)
    back = load_model(theirs).policy
    wanted = found(TOKENS_BT).logits
    torch.testing.assert_close(back(TOKENS_BT), wanted, rtol=1e-4, atol=1e-4)
    assert (wanted - policy(TOKENS_BT)).abs().max() > 0.1


@torch.no_grad()
def test_a_folder_with_an_adapter_loads_as_the_merged_model(tmp_path):
    policy = adapted()
    save_model(tmp_path / "base", policy, TOKENIZER)
    save_policy(tmp_path / "adapter", policy, TOKENIZER, tmp_path / "base")
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    found = load_model(tmp_path / "adapter")
    assert found.policy.adapter is None and found.tokenizer.stop_ids == TOKENIZER.stop_ids
    torch.testing.assert_close(found.policy(TOKENS_BT), policy(TOKENS_BT), rtol=1e-4, atol=1e-4)


def test_an_adapter_on_an_adapter_loads_with_both(tmp_path):
    """A fine-tuning with adapters, and RL with adapters on what it made."""
    whole, first = tmp_path / "whole", tmp_path / "first"
    save_model(whole, tiny_transformer(), TOKENIZER)
    save_adapter(first, adapted(), str(whole))
    policy = load_model(first).policy
    add_lora(policy, 2, 4.0, 7)
    for parameter in policy.trainable():
        parameter.data.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(3))
    save_adapter(tmp_path / "second", policy, str(first))
    loaded = load_model(tmp_path / "second")
    assert loaded.tokenizer.stop_ids == TOKENIZER.stop_ids and loaded.policy.adapter is None
    merge_lora(policy)
    assert not torch.equal(policy(TOKENS_BT), load_model(first).policy(TOKENS_BT))
    torch.testing.assert_close(loaded.policy(TOKENS_BT), policy(TOKENS_BT), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_the_base_of_an_adapter_may_be_a_run(tmp_path):
    """Whose own config.json is a recipe, and describes no model."""
    run = tmp_path / "run"
    save_model(run / "model", tiny_transformer(), TOKENIZER)
    (run / "config.json").write_text("{}")
    (run / "metrics.jsonl").touch()
    save_adapter(tmp_path / "adapter", adapted(), str(run))
    loaded = load_model(tmp_path / "adapter")
    torch.testing.assert_close(loaded.policy(TOKENS_BT), adapted()(TOKENS_BT), rtol=1e-4, atol=1e-4)
    assert PlannedModel.of(tmp_path / "adapter").shaped == str(run / "model")


def test_adapters_that_name_each_other_are_no_model(tmp_path):
    for name, base in (("a", "b"), ("b", "a")):
        save_adapter(tmp_path / name, adapted(), str(tmp_path / base))
    with pytest.raises(ModelError, match="where no model is"):
        load_model(tmp_path / "a")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"use_dora": True}, "lacks .*lora_magnitude_vector"),
        ({"bias": "some"}, "bias"),
        ({"rank_pattern": {"q_proj": 9}}, r"q_proj.lora_A.weight .* shape \[3, 32\]"),
        ({"target_modules": ["q_proj"]}, "does not describe, such as"),
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"r": 0}, "r 0"),
        ({"lora_alpha": "16"}, "lora_alpha '16'"),
        ({"base_model_name_or_path": "/nowhere/base"}, "names the base"),
        ({"base_model_name_or_path": None}, "names no base"),
    ],
)
def test_an_adapter_of_another_kind_is_refused(tmp_path, change, words):
    save_model(tmp_path / "base", tiny_transformer(), TOKENIZER)
    save_adapter(tmp_path / "adapter", adapted(), str(tmp_path / "base"))
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=words):
        load_model(tmp_path / "adapter")


def test_an_adapter_of_another_shape_or_on_fewer_maps_is_refused(tmp_path):
    save_adapter(tmp_path, adapted(), "owner/base")
    with pytest.raises(ModelError, match="shape"):
        load_adapter(adapted(hidden_size=64), tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    del tensors[next(iter(peft_names(adapted())))]
    save_file(tensors, path)
    with pytest.raises(ModelError, match="lack base_model.model"):
        load_adapter(adapted(), tmp_path)
