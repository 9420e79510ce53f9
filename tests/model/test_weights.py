"""Model folders: there and back, and each way in which a folder can be wrong."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from aha.core.errors import ModelError
from aha.machine.host import Memory
from aha.model import tensors
from aha.model.model_warning import ModelWarning
from aha.model.weights import load_model, save_model

from ..tiny import TOKENIZER, tiny_folder, tiny_transformer

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture
def folder(tmp_path) -> Path:
    return tiny_folder(tmp_path / "model")


def refused(folder: Path, words: str) -> str:
    """The folder's error is one line and says what was wanted or how to mend it."""
    with pytest.raises(ModelError, match=words) as caught:
        load_model(folder)
    text = str(caught.value)
    assert "\n" not in text and ("wanted" in text or "fix" in text)
    return text


def rewrite(folder: Path, change) -> None:
    """Change the tensors of a folder in place."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("tied", [True, False])
def test_save_and_load_are_bit_equal(tmp_path, tied):
    policy = tiny_transformer(tie_word_embeddings=tied)
    save_model(tmp_path, policy, TOKENIZER)
    found = load_model(tmp_path)
    assert found.path == tmp_path and found.policy.config == policy.config
    ours, theirs = policy.state_dict(), found.policy.state_dict()
    assert ours.keys() == theirs.keys() and ("lm_head.weight" in ours) == (not tied)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_folder_has_what_others_look_for(folder):
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["eos_token_id"], config["pad_token_id"]) == ("qwen2", 0, 1)
    # Drawn from the whole distribution, which is the one that was trained.
    sampling = json.loads((folder / "generation_config.json").read_text())
    assert (sampling["temperature"], sampling["top_k"], sampling["top_p"]) == (1.0, 0, 1.0)


def test_whoever_may_read_the_config_may_read_the_weights(folder):
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1


def test_shards_are_read_together(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    for number, part in enumerate((names[:5], names[5:]), 1):
        shard = {name: tensors[name] for name in part}
        save_file(shard, folder / f"model-0000{number}-of-00002.safetensors")
    found = load_model(folder).policy.state_dict()
    assert all(torch.equal(found[name], tensors[name]) for name in names)


def test_a_model_that_the_memory_does_not_hold_is_refused_before_it_is_read(folder, monkeypatch):
    needed = 4 * tiny_transformer().num_parameters()
    monkeypatch.setattr(tensors, "memory_bytes", lambda: Memory(needed, needed))
    load_model(folder)
    monkeypatch.setattr(tensors, "memory_bytes", lambda: Memory(needed - 1, needed))
    assert "fix: a machine with" in refused(
        folder, r"million weights, 0\.\d GB while they are read"
    )
    monkeypatch.setattr(
        tensors, "memory_bytes", lambda: Memory(0, 0)
    )  # a system that does not tell
    load_model(folder)


def test_a_missing_folder(tmp_path):
    assert "nowhere" in refused(tmp_path / "nowhere", "no model in")


def test_a_folder_that_is_no_model(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    refused(tmp_path, "no model in")


def test_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "model").write_text("hello")
    refused(tmp_path / "model", "no model in")


@pytest.mark.parametrize("text", ["{", "[]", '"qwen2"', "null", "\xff"])
def test_a_config_that_is_no_json_object(folder, text):
    (folder / "config.json").write_bytes(text.encode("latin-1"))
    refused(folder, "config.json")


def test_a_json_file_of_any_length_is_not_read_into_memory(folder):
    with (folder / "tokenizer_config.json").open("wb") as sparse:
        sparse.truncate(2**31)
    assert "2,147,483,648 bytes" in refused(folder, "tokenizer_config.json")


def test_a_folder_in_the_place_of_the_weights(folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    refused(folder, "model.safetensors is no file")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_a_pickle_is_never_opened(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    refused(folder, "pickle")


def test_a_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, "no weights")


@pytest.mark.parametrize("keep", [0, 4, 100, 5_000])
def test_a_file_that_was_cut_off(folder, keep):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(folder, "model.safetensors")


def test_a_file_of_something_else(folder):
    (folder / "model.safetensors").write_bytes(b"<!doctype html>" * 1000)
    refused(folder, "model.safetensors")


def test_a_tensor_of_another_shape(folder):
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite(folder, lambda all: all.update({name: torch.zeros(47, 32)}))
    assert "[47, 32]" in refused(folder, "up_proj") and "[48, 32]"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_refused_by_name(folder, value):
    """Every log-prob would be none: a run on it ends with a solve rate of 0 and no complaint."""
    name = "model.layers.0.mlp.up_proj.weight"
    rewrite(folder, lambda all: all[name].__setitem__((1, 2), value))
    refused(folder, "up_proj.weight in .* holds what is no number")


def test_a_missing_tensor(folder):
    rewrite(folder, lambda all: all.pop("model.norm.weight"))
    refused(folder, "lack model.norm.weight")


def test_an_unknown_tensor(folder):
    rewrite(folder, lambda all: all.update({"model.layers.0.adapter.weight": torch.zeros(2)}))
    refused(folder, "unknown model.layers.0.adapter.weight")


def test_an_untied_model_without_its_head(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    refused(folder, "lack lm_head.weight")


def test_another_architecture(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "gpt2"}))
    refused(folder, "gpt2")


def test_heads_that_do_not_fit_the_width(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_attention_heads": 5}))
    with pytest.raises(ModelError, match="5 heads"):
        load_model(folder)


def test_a_folder_without_a_tokenizer(folder):
    (folder / "tokenizer.json").unlink()
    refused(folder, "tokenizer.json")


# -- shards, types and heads ----------------------------------------------------------------


@pytest.fixture
def shards(folder) -> Path:
    """The same model in three files with an index."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    path.unlink()
    names, places = sorted(tensors), {}
    for part in range(3):
        file = f"model-{part + 1:05d}-of-00003.safetensors"
        mine = {name: tensors[name] for name in names[part::3]}
        save_file(mine, folder / file)
        places |= dict.fromkeys(mine, file)
    index = {"metadata": {}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_shards_are_one_model(shards):
    found, wanted = load_model(shards).policy.weights(), tiny_transformer().weights()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_missing_shard_is_named(shards):
    (shards / "model-00002-of-00003.safetensors").unlink()
    refused(shards, "model-00002-of-00003.safetensors is missing")


@pytest.mark.parametrize(
    "index", ["{", "{}", '{"weight_map": []}', '{"weight_map": {"a": "../../outside.safetensors"}}']
)
def test_an_index_that_makes_no_sense(shards, index):
    (shards / "model.safetensors.index.json").write_text(index)
    refused(shards, "index.json")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_become_float32(folder, dtype):
    rewrite(folder, lambda all: all.update({n: t.to(dtype) for n, t in all.items()}))
    found = load_model(folder).policy.weights()
    for name, tensor in tiny_transformer().weights().items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], tensor.to(dtype).float())


def test_quantised_weights_are_refused(folder):
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite(folder, lambda all: all.update({name: all[name].to(torch.int8)}))
    refused(folder, "I8")


def test_weights_in_another_layout_beside_the_model_are_left_alone(folder):
    save_file({"tok_embeddings.weight": torch.zeros(2)}, folder / "consolidated.safetensors")
    with pytest.warns(ModelWarning, match="consolidated.safetensors is not"):
        found = load_model(folder)
    assert found.policy.config == tiny_transformer().config and len(found.findings) == 1


def test_a_tied_head_that_was_written_twice_is_read_once(folder):
    rewrite(folder, lambda all: all.update({"lm_head.weight": all[EMBEDDING].clone()}))
    found = load_model(folder)
    assert found.policy.config.tie_word_embeddings and not found.findings
    assert torch.equal(found.policy.lm_head_weight, tiny_transformer().model.embed_tokens.weight)


def test_a_head_of_its_own_is_kept_where_the_config_ties_it(folder):
    """As `transformers` keeps it: what was trained is not dropped."""
    head = torch.randn(112, 32, generator=torch.Generator().manual_seed(1))
    rewrite(folder, lambda all: all.update({"lm_head.weight": head}))
    with pytest.warns(ModelWarning, match="head of its own"):
        found = load_model(folder).policy
    assert not found.config.tie_word_embeddings and torch.equal(found.lm_head_weight, head)
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    tokens_BT = torch.arange(20)[None]
    torch.testing.assert_close(found(tokens_BT), theirs(tokens_BT).logits, rtol=1e-4, atol=1e-4)


def test_the_only_tensor_of_a_tied_pair_is_taken_for_both(folder):
    rewrite(folder, lambda all: all.update({"lm_head.weight": all.pop(EMBEDDING)}))
    found = load_model(folder).policy
    assert torch.equal(found.lm_head_weight, tiny_transformer().model.embed_tokens.weight)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path):
    save_model(tmp_path, tiny_transformer(vocab_size=100), TOKENIZER)
    refused(tmp_path, "112 tokens for a model of 100")
