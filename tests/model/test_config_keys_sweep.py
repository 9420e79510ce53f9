"""Random settings of config.json: where both read the folder, the logits are the same."""

import json
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from aha.core.errors import ModelError
from aha.model.weights import load_model

from ..tiny import TOKENIZER, tiny_folder

TOKENS_BT = torch.randint(0, TOKENIZER.vocab_size, (1, 70), generator=torch.manual_seed(4))
FULL, SLIDING = "full_attention", "sliding_attention"
ROPE = {
    "rope_type": ["default", "linear", "yarn", "llama3", "dynamic", "longrope", None, "new"],
    "type": ["default", "linear", "yarn", "llama3", "dynamic"],
    "factor": [1.0, 2, 4.0, 8.5],
    "rope_theta": [100.0, 1e4, 500000],
    "original_max_position_embeddings": [16, 40, 64],
    "low_freq_factor": [1.0, 2.0],
    "high_freq_factor": [4.0, 2.0],
    "attention_factor": [1.0, 1.7],
    "beta_fast": [32, 8.0],
    "beta_slow": [1, 2.0],
    "mscale": [1.0, 0.5],
    "mscale_all_dim": [1.0, 0.8],
    "truncate": [True, False],
    "partial_rotary_factor": [1.0, 0.5],
}
KEYS = {
    "rope_theta": [100.0, 1_000_000, None],
    "rms_norm_eps": [1e-5, 1e-2, None],
    "hidden_act": ["silu", "gelu", "swish", "relu"],
    "tie_word_embeddings": [True, False, None],
    "attention_bias": [False, True, None],
    "mlp_bias": [False, True],
    "use_sliding_window": [False, True],
    "sliding_window": [4, 30, 4096, None],
    "max_window_layers": [0, 1, 2, 28],
    "layer_types": [None, [FULL, FULL], [FULL, SLIDING], [SLIDING, SLIDING], [FULL]],
    "head_dim": [8, 16, None],
    "num_key_value_heads": [1, 2, 4, None],
    "attention_dropout": [0.0, 0.4],
    "partial_rotary_factor": [1.0, 0.5],
    "original_max_position_embeddings": [20],
    "max_position_embeddings": [80, 160, None],
    "pretraining_tp": [1, 2],
    "is_causal": [True, False, None],
    "torch_dtype": ["float16", "bfloat16"],
    "logit_scale": [0.1],
    "final_logit_softcapping": [30.0],
    "per_layer_config": [None, {"1": {"num_key_value_heads": 1}}],
    "architectures": [["Qwen2Model"], [], None],
    "num_hidden_layers": [1, 2, 3],
    "vocab_size": [112, 120],
}


def drawn(rng: random.Random) -> dict:
    """Up to three keys, and often an object of positions."""
    change = {key: rng.choice(KEYS[key]) for key in rng.sample(sorted(KEYS), rng.randint(0, 3))}
    if rng.random() < 0.6:
        keys = ["factor", *rng.sample(sorted(ROPE), rng.randint(1, 6))]
        rope = {key: rng.choice(ROPE[key]) for key in keys}
        rope.setdefault("rope_type", rng.choice(["linear", "yarn", "llama3"]))
        if rope["rope_type"] == "llama3":
            rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
        change[rng.choice(["rope_scaling", "rope_parameters"])] = rope
    return change


@torch.no_grad()
def theirs(folder: Path) -> torch.Tensor | None:
    """The logits of `transformers`; None where it cannot read all weights of the folder."""
    logging.set_verbosity_error()
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
        logits: torch.Tensor = model.eval()(TOKENS_BT).logits
    except Exception:
        return None
    return None if info["missing_keys"] or info["mismatched_keys"] else logits


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["qwen2", "qwen3", "llama", "mistral"])
def test_a_random_config_has_the_logits_of_transformers(tmp_path, kind):
    rng, both, only = random.Random(kind), 0, []
    folder = tiny_folder(tmp_path, model_type=kind, head_dim=8)
    base = json.loads((folder / "config.json").read_text())
    for _ in range(250):
        change = drawn(rng)
        (folder / "config.json").write_text(json.dumps(base | change))
        wanted = theirs(folder)
        try:
            policy = load_model(folder).policy
        except ModelError as error:
            if wanted is not None:
                only.append((change, str(error)))
            continue
        if wanted is None:
            continue
        both += 1
        with torch.no_grad():
            tokens_BT = TOKENS_BT[:, : policy.config.max_position_embeddings]
            ours, wanted = policy(tokens_BT), wanted[:, : tokens_BT.shape[1]]
        torch.testing.assert_close(ours, wanted, rtol=2e-3, atol=2e-3, msg=f"{change}")
    assert both > 60
    # What only they read: models that look ahead, and a model without its last layer.
    for change, error in only:
        ahead = change.get("is_causal", True) is not True and "a later token" in error
        shorter = change.get("num_hidden_layers") == 1 and "write num_hidden_layers 2" in error
        assert ahead or shorter, f"{change}: {error}"
