"""Model folders in odd shapes: the logits of `transformers`, or a refusal that names the cause."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from aha.core.errors import ModelError
from aha.model.hf_policy import HfPolicy
from aha.model.model_warning import ModelWarning
from aha.model.transformer import Transformer
from aha.model.weights import load_model

from ..tiny import TOKENIZER, tiny_folder

TOKENS_BT = torch.randint(0, TOKENIZER.vocab_size, (2, 90), generator=torch.manual_seed(4))
INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"


def configure(folder: Path, change: dict) -> Path:
    """Change keys of config.json; a key of ... is taken out."""
    path = folder / "config.json"
    content = json.loads(path.read_text()) | change
    content = {key: value for key, value in content.items() if value is not ...}
    path.write_text(json.dumps(content))
    return folder


def rewrite(folder: Path, change) -> Path:
    tensors = load_file(folder / WHOLE)
    save_file(change(tensors), folder / WHOLE, metadata={"format": "pt"})
    return folder


@torch.no_grad()
def as_transformers_reads(folder: Path, kind: type = Transformer):
    """The model, after its logits were held to those of `transformers`."""
    loaded = load_model(folder)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ours, wanted = loaded.policy(TOKENS_BT), theirs(TOKENS_BT).logits
    torch.testing.assert_close(ours, wanted, rtol=2e-4, atol=2e-4)
    assert isinstance(loaded.policy, kind)
    return loaded


def refused(folder: Path, words: str) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        load_model(folder)
    text = str(caught.value)
    assert "\n" not in text and "; fix: " in text


# -- which files are read -------------------------------------------------------------------


def shard(folder: Path, scale: float = 1.0, index: bool = True, keep_whole: bool = False) -> None:
    """Write the weights, times `scale`, in two files."""
    tensors = load_file(folder / WHOLE)
    names, places = sorted(tensors), {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] * scale for name in part}, folder / file)
        places |= dict.fromkeys(part, file)
    if index:
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    if not keep_whole:
        (folder / WHOLE).unlink()


def old_shards_beside_a_whole(folder):
    shard(folder, 0.5, keep_whole=True)


def an_old_index_alone(folder):
    shard(folder, keep_whole=True)
    for path in folder.glob("model-*"):
        path.unlink()


def shards_beside_a_pickle(folder):
    shard(folder)
    torch.save({}, folder / "pytorch_model.bin")


def shards_and_another_layout(folder):
    shard(folder)
    save_file({"tok_embeddings.weight": torch.zeros(2)}, folder / "consolidated.safetensors")


def a_variant_beside_a_whole(folder):
    save_file({"x": torch.zeros(2)}, folder / "model.fp16.safetensors")


@pytest.mark.parametrize(
    ("arrange", "left"),
    [
        (shard, ""),
        (old_shards_beside_a_whole, "model-00001-of-00002.safetensors"),
        (an_old_index_alone, INDEX),
        (shards_beside_a_pickle, "pytorch_model.bin"),
        (shards_and_another_layout, "consolidated.safetensors"),
        (a_variant_beside_a_whole, "model.fp16.safetensors"),
    ],
)
def test_the_files_that_transformers_reads_are_read_and_the_rest_is_told(tmp_path, arrange, left):
    folder = tiny_folder(tmp_path)
    arrange(folder)
    if not left:
        assert not as_transformers_reads(folder).findings
        return
    with pytest.warns(ModelWarning, match=f"{left}.* is not"):
        assert left in as_transformers_reads(folder).findings[0].message


def test_shards_without_an_index_are_read_only_if_all_are_there(tmp_path):
    folder = tiny_folder(tmp_path)
    shard(folder, index=False)
    load_model(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(folder, "1 of 2 shards")


@pytest.mark.parametrize("name", ["weights.safetensors", "model.fp16.safetensors"])
def test_a_file_of_another_name_is_told_how_to_be_called(tmp_path, name):
    folder = tiny_folder(tmp_path)
    (folder / WHOLE).rename(folder / name)
    refused(folder, f"mv {name} model.safetensors")


def test_a_pointer_in_place_of_the_weights_is_told_from_a_damaged_file(tmp_path):
    folder = tiny_folder(tmp_path)
    (folder / WHOLE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    refused(folder, "pointer of Git LFS.*fix: git lfs pull")


# -- names ----------------------------------------------------------------------------------


def test_a_backbone_alone_is_read_as_transformers_reads_it(tmp_path):
    folder = rewrite(
        tiny_folder(tmp_path), lambda all: {k.removeprefix("model."): v for k, v in all.items()}
    )
    as_transformers_reads(folder)


@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("_orig_mod.", "torch.compile"),
        ("module.", "DataParallel"),
        ("base_model.model.", "PEFT.*merge_and_unload"),
        ("language_model.", "text and images"),
    ],
)
def test_names_of_a_wrapper_are_named(tmp_path, prefix, words):
    folder = rewrite(tiny_folder(tmp_path), lambda all: {prefix + k: v for k, v in all.items()})
    refused(folder, words)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("score.weight", "another head, score.weight"),
        ("model.layers.0.mlp.up_proj.qweight", "are quantised"),
        ("model.layers.0.self_attn.o_proj.bias", "attention_bias"),
        ("model.layers.2.mlp.up_proj.weight", "write num_hidden_layers 3"),
        ("model.extra.weight", "have unknown model.extra.weight"),
    ],
)
def test_a_tensor_too_many_is_refused_for_what_it_is(tmp_path, extra, words):
    folder = rewrite(tiny_folder(tmp_path), lambda all: all | {extra: torch.zeros(32)})
    refused(folder, words)


def test_a_missing_head_is_told_how_to_tie(tmp_path):
    folder = configure(tiny_folder(tmp_path), {"tie_word_embeddings": False})
    refused(folder, 'fix: write "tie_word_embeddings": true')
    configure(folder, {"tie_word_embeddings": ...})
    refused(folder, 'fix: write "tie_word_embeddings": true')
    as_transformers_reads(configure(folder, {"tie_word_embeddings": True}))


def test_layers_that_are_not_there_are_told_by_their_number(tmp_path):
    folder = configure(tiny_folder(tmp_path), {"num_hidden_layers": 3})
    refused(folder, "write num_hidden_layers 2")
    as_transformers_reads(configure(folder, {"num_hidden_layers": 2}))
    refused(configure(folder, {"num_hidden_layers": 10**9}), "tensors for 1000000000 layers")


def test_what_a_config_leaves_out_is_named_where_it_does_not_fit(tmp_path):
    folder = configure(tiny_folder(tmp_path / "kv"), {"num_key_value_heads": ...})
    refused(folder, r"4 heads on 32 key-value heads.*num_key_value_heads \(then 32\)")
    folder = tiny_folder(tmp_path / "head", model_type="qwen3", head_dim=8)
    refused(configure(folder, {"head_dim": ...}), r"has shape .*head_dim \(then 128\)")


# -- keys of config.json --------------------------------------------------------------------

LLAMA3 = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LLAMA3 |= {"original_max_position_embeddings": 40}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40}
SAME_HERE = {
    "linear": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "yarn": {"rope_scaling": YARN},
    "yarn of DeepSeek": {"rope_scaling": YARN | {"mscale": 0.7, "mscale_all_dim": 0.5}},
    "yarn with a ramp": {"rope_scaling": YARN | {"beta_fast": 8, "beta_slow": 2}},
    "yarn with a factor": {"rope_scaling": YARN | {"attention_factor": 1.3, "truncate": False}},
    "llama3": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e4, **LLAMA3}},
    "length outside": {
        "rope_scaling": LLAMA3 | {"rope_type": "llama3"},
        "original_max_position_embeddings": 20,
    },
    "theta inside": {"rope_scaling": {"type": "linear", "factor": 2.0, "rope_theta": 77.0}},
    "both objects": {
        "rope_scaling": {"type": "linear", "factor": 2.0},
        "rope_parameters": {"rope_type": "linear", "factor": 3.0},
    },
    "no theta": {"rope_theta": ...},
    "window not used": {"sliding_window": 4, "max_window_layers": 0},
    "dropout": {"attention_dropout": 0.5},
    "null": {"rope_scaling": None, "layer_types": None},
    "eps": {"rms_norm_eps": 0.1},
}
IN_TRANSFORMERS = {
    "dynamic": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope scaling"),
    "a window": (
        {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 9},
        "use_sliding_window True",
    ),
    "gelu": ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
    "layers": (
        {
            "layer_types": ["full_attention", "sliding_attention"],
            "use_sliding_window": True,
            "sliding_window": 9,
        },
        "use_sliding_window True",
    ),
}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("qwen"))


def changed(folder: Path, to: Path, change: dict) -> Path:
    shutil.copytree(folder, to)
    return configure(to, change)


@pytest.mark.parametrize("name", SAME_HERE)
def test_a_key_is_honoured_as_transformers_honours_it(qwen, tmp_path, name):
    loaded = as_transformers_reads(changed(qwen, tmp_path / "model", SAME_HERE[name]))
    assert not loaded.findings


@pytest.mark.parametrize("name", IN_TRANSFORMERS)
def test_a_key_that_is_not_computed_here_is_left_to_transformers(qwen, tmp_path, name):
    change, reason = IN_TRANSFORMERS[name]
    loaded = as_transformers_reads(changed(qwen, tmp_path / "model", change), HfPolicy)
    assert reason in loaded.policy.reason


def test_a_model_that_looks_ahead_is_refused(qwen, tmp_path):
    folder = changed(qwen, tmp_path / "model", {"is_causal": False})
    with pytest.raises(ModelError, match="changes its logits when a later token changes"):
        load_model(folder)


def test_a_key_that_nobody_reads_is_told(qwen, tmp_path):
    change = {"logit_scale": 0.5, "my_note": "x", "use_mrope": False, "rope_scaling": None}
    folder = changed(qwen, tmp_path / "model", change)
    with pytest.warns(ModelWarning, match="'logit_scale', 'my_note', which neither"):
        as_transformers_reads(folder)


def test_llama_and_mistral_with_scaled_positions(tmp_path):
    for kind in ("llama", "mistral", "qwen3"):
        folder = tiny_folder(tmp_path / kind, model_type=kind, head_dim=8)
        for scaling in (YARN, {"rope_type": "linear", "factor": 3.0}):
            as_transformers_reads(configure(folder, {"rope_scaling": scaling}))


def test_a_config_far_larger_than_its_weights_allocates_nothing(tmp_path):
    folder = tiny_folder(tmp_path)
    refused(configure(folder, {"vocab_size": 2**30}), "has shape .*wanted .*1073741824")
    refused(configure(folder, {"vocab_size": 10**40}), "vocab_size 1e\\+40")
    huge = {"vocab_size": 2**30, "hidden_act": "gelu"}  # in transformers
    refused(configure(folder, huge), "config.json describes .* numbers, and its files hold")
    huge = {"vocab_size": 112, "num_hidden_layers": 10**9}
    refused(configure(folder, huge), "config.json describes 1e\\+09 layers")


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "fp8"])
def test_quantised_weights_are_refused_by_their_method(tmp_path, method):
    folder = tiny_folder(tmp_path)
    refused(configure(folder, {"quantization_config": {"quant_method": method}}), method)
