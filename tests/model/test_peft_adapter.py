"""Adapters that PEFT writes, of every kind: its logits, or a refusal that names the key."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from aha.core.errors import ModelError
from aha.model.model_warning import ModelWarning
from aha.model.weights import load_model

from ..strangers import stranger_folder
from ..tiny import TOKENIZER, tiny_folder

peft = pytest.importorskip("peft")

TOKENS_BT = torch.randint(0, TOKENIZER.vocab_size, (2, 20), generator=torch.manual_seed(4))
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KINDS = {
    "default": {},
    "all linear": {"target_modules": "all-linear", "lora_alpha": 16},
    "attention": {"target_modules": ALL[:4], "lora_dropout": 0.3},
    "one layer": {"target_modules": ALL, "layers_to_transform": [1]},
    "one layer, by its pattern": {
        "target_modules": ALL,
        "layers_to_transform": 0,
        "layers_pattern": "layers",
    },
    "regex": {"target_modules": r".*\.1\..*\.(q_proj|up_proj)"},
    "full names": {"target_modules": ["model.layers.0.mlp.down_proj", "v_proj"]},
    "excluded": {"target_modules": ALL, "exclude_modules": ["k_proj"]},
    "excluded by regex": {"target_modules": "all-linear", "exclude_modules": r".*\.0\..*"},
    "ranks": {"target_modules": ALL, "rank_pattern": {"q_proj": 6, r"layers\.1\.mlp\.up_proj": 2}},
    "alphas": {"target_modules": ALL, "alpha_pattern": {"^model.layers.0.mlp.up_proj": 40}},
    "rsLoRA": {"target_modules": ALL, "use_rslora": True},
    "DoRA": {"target_modules": ALL, "use_dora": True},
    "DoRA, rsLoRA, ranks": {
        "target_modules": ALL,
        "use_dora": True,
        "use_rslora": True,
        "rank_pattern": {"v_proj": 2},
    },
    "bias": {"target_modules": ALL, "bias": "all"},
    "fan in": {"target_modules": ALL, "fan_in_fan_out": True},
    "gaussian": {"target_modules": ALL, "init_lora_weights": "gaussian"},
    "head whole": {"target_modules": ALL, "modules_to_save": ["lm_head"]},
    "embedding whole": {"target_modules": ALL, "modules_to_save": ["embed_tokens"]},
    "norms whole": {"target_modules": ["q_proj"], "modules_to_save": ["input_layernorm"]},
    "embedding": {"target_modules": [*ALL, "embed_tokens"]},
    "head": {"target_modules": [*ALL, "lm_head"]},
    "DoRA on all": {"target_modules": [*ALL, "embed_tokens", "lm_head"], "use_dora": True},
}
UNTIED = {"head whole", "embedding whole", "embedding", "head", "DoRA on all"}


@torch.no_grad()
def adapter(base: Path, folder: Path, **settings):
    """An adapter of PEFT with every number moved from its start."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, **settings)
    model, generator = peft.get_peft_model(model, config), torch.manual_seed(1)
    moved = ("lora_", "modules_to_save", *(["bias"] if "bias" in settings else []))
    for name, parameter in model.named_parameters():
        if any(word in name for word in moved):
            parameter += torch.randn(parameter.shape, generator=generator) * 0.1
    model.save_pretrained(folder)
    return model.eval()


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def base(request, tmp_path_factory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("base"), tie_word_embeddings=request.param)


def read(folder: Path):
    """The model, and the texts that were told."""
    loaded = load_model(folder)
    return loaded, [finding.message for finding in loaded.findings]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_an_adapter_of_peft_has_its_logits(base, tmp_path, kind):
    model = adapter(base, tmp_path, **KINDS[kind])
    loaded, told = read(tmp_path)
    wanted, plain = model(TOKENS_BT).logits, load_model(base).policy(TOKENS_BT)
    torch.testing.assert_close(loaded.policy(TOKENS_BT), wanted, rtol=2e-4, atol=2e-4)
    assert (wanted - plain).abs().max() > 0.05, "an adapter without effect"
    tied = json.loads((base / "config.json").read_text())["tie_word_embeddings"]
    assert bool(told) == (tied and kind in UNTIED)
    assert all(parameter.requires_grad for parameter in loaded.policy.parameters())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["gpt2", "gemma2"])
@torch.no_grad()
def test_an_adapter_on_a_model_that_transformers_runs(tmp_path, kind):
    base = stranger_folder(tmp_path / "base", kind)
    targets = ["c_attn", "c_proj"] if kind == "gpt2" else ALL
    model = adapter(base, tmp_path / "adapter", target_modules=targets)
    ours = load_model(tmp_path / "adapter").policy(TOKENS_BT)
    torch.testing.assert_close(ours, model(TOKENS_BT).logits, rtol=2e-4, atol=2e-4)
    adapter(base, tmp_path / "head", target_modules=[*targets, "lm_head"])
    with pytest.raises(ModelError, match="ties to another weight.*merge_and_unload"):
        load_model(tmp_path / "head")


@torch.no_grad()
def test_an_adapter_beside_weights_belongs_to_them(tmp_path):
    """`transformers` reads such a folder as the local base with the adapter, not as the base."""
    base = tiny_folder(tmp_path / "base")
    adapter(base, tmp_path / "adapter")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(tmp_path / "adapter" / name, base)
    theirs = AutoModelForCausalLM.from_pretrained(base).eval()
    wanted = theirs(TOKENS_BT).logits
    torch.testing.assert_close(load_model(base).policy(TOKENS_BT), wanted, rtol=2e-4, atol=2e-4)
    # A copy of the config alone is no base: the one that the adapter names is.
    shutil.copy(base / "config.json", tmp_path / "adapter")
    for path in base.glob("adapter_*"):
        path.unlink()
    found = load_model(tmp_path / "adapter").policy(TOKENS_BT)
    torch.testing.assert_close(found, wanted, rtol=2e-4, atol=2e-4)


def test_the_tokenizer_of_the_adapter_comes_before_that_of_its_base(tmp_path):
    base = tiny_folder(tmp_path / "base")
    adapter(base, tmp_path / "adapter")
    assert load_model(tmp_path / "adapter").tokenizer.template is None
    TOKENIZER.save(tmp_path / "adapter")
    (tmp_path / "adapter" / "chat_template.jinja").write_text("{{ messages[0].content }}")
    assert load_model(tmp_path / "adapter").tokenizer.template is not None


REFUSED = {
    "init_lora_weights": ("pissa", "init_lora_weights 'pissa'"),
    "layer_replication": ([[0, 2]], "layer_replication"),
    "use_qalora": (True, "use_qalora"),
    "alora_invocation_tokens": ([1, 2], "alora_invocation_tokens"),
    "target_parameters": (["mlp.experts.gate_up_proj"], "target_parameters"),
    "trainable_token_indices": ([3], "trainable_token_indices"),
    "lora_bias": (True, "lora_bias"),
    "arrow_config": ({"top_k": 2}, "arrow_config"),
    "a_key_of_tomorrow": (7, "a_key_of_tomorrow 7"),
    "peft_type": ("IA3", "peft_type 'IA3'"),
    "target_modules": (["nothing"], "fits no module"),
    "target_modules ": ("(", "a regular expression"),
    "rank_pattern": ([3], "an object"),
    "r": ("8", "r '8'"),
    "layers_to_transform": (["x"], "numbers of layers"),
    "use_rslora": ("no", "true or false"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain")
    adapter(tiny_folder(folder / "base"), folder / "adapter")
    return folder / "adapter"


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_computed_is_refused_by_its_key(plain, tmp_path, key):
    value, words = REFUSED[key]
    shutil.copytree(plain, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key.strip(): value}))
    with pytest.raises(ModelError, match=words) as caught:
        load_model(tmp_path / "adapter")
    assert "; fix: " in str(caught.value)


def without(tensors: dict, word: str) -> dict:
    return {name: tensor for name, tensor in tensors.items() if word not in name}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: without(t, "layers.1.self_attn.v_proj.lora_B"), "lacks .*v_proj.lora_B"),
        (lambda t: t | {"base_model.model.other.weight": torch.ones(2)}, "does not describe"),
        (lambda t: {k: v * float("nan") for k, v in t.items()}, "no number"),
        (lambda t: {k: v[:2].contiguous() for k, v in t.items()}, "has shape"),
        (lambda t: {k: v.to(torch.int8) for k, v in t.items()}, "is torch.int8"),
    ],
)
def test_a_file_that_is_not_what_its_config_describes_is_refused(plain, tmp_path, change, words):
    """PEFT would leave the missing ones at their random start, and drop the unknown ones."""
    shutil.copytree(plain, tmp_path / "adapter")
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(ModelError, match=words):
        load_model(tmp_path / "adapter")


def test_a_pickle_in_place_of_an_adapter_is_never_opened(plain, tmp_path):
    shutil.copytree(plain, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_model.safetensors").rename(
        tmp_path / "adapter" / "adapter_model.bin"
    )
    with pytest.raises(ModelError, match="a pickle"):
        load_model(tmp_path / "adapter")


def test_the_default_targets_are_those_of_peft(tmp_path):
    from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as theirs

    from aha.model.peft_adapter import DEFAULT_TARGETS

    for kind in ("qwen2", "qwen3", "llama", "mistral"):
        assert sorted(theirs[kind]) == sorted(DEFAULT_TARGETS)


def test_an_untied_head_is_told(tmp_path):
    base = tiny_folder(tmp_path / "base")
    adapter(base, tmp_path / "adapter", target_modules=["lm_head"])
    with pytest.warns(ModelWarning, match="one of head and embedding"):
        assert not load_model(tmp_path / "adapter").policy.config.tie_word_embeddings
