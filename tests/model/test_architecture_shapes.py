"""The real models' own config.json, without their weights: accepted, and of the published size.

The numbers of parameters are those that the hub shows beside each model, so they check widths,
heads, biases, norms and tied heads at once. Nothing is allocated: the tensors have shapes alone.
"""

import pytest
import torch

from aha.model.architecture import ModelConfig
from aha.model.transformer import Transformer

QWEN25 = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "max_window_layers": 24,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_mrope": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
QWEN3 = {
    "model_type": "qwen3",
    "attention_bias": False,
    "head_dim": 128,
    "hidden_act": "silu",
    "max_position_embeddings": 40960,
    "max_window_layers": 28,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
LLAMA32 = {
    "model_type": "llama",
    "attention_bias": False,
    "eos_token_id": [128001, 128008, 128009],
    "hidden_act": "silu",
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_key_value_heads": 8,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_scaling": {
        "factor": 32.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "vocab_size": 128256,
}
SMOLLM2 = {
    "model_type": "llama",
    "attention_bias": False,
    "hidden_act": "silu",
    "is_llama_config": True,
    "max_position_embeddings": 8192,
    "mlp_bias": False,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-05,
    "rope_interleaved": False,
    "rope_scaling": None,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "vocab_size": 49152,
}
MISTRAL = {
    "model_type": "mistral",
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "vocab_size": 32768,
}
WIDE = {"vocab_size": 152064, "tie_word_embeddings": False}


def sizes(hidden, inner, layers, heads, kv=None) -> dict:
    found = {
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }
    return found | ({"num_key_value_heads": kv} if kv else {})


PUBLISHED = {
    "Qwen2.5-0.5B": (QWEN25 | sizes(896, 4864, 24, 14, 2), 494_032_768),
    "Qwen2.5-1.5B": (QWEN25 | sizes(1536, 8960, 28, 12, 2), 1_543_714_304),
    "Qwen2.5-3B": (QWEN25 | sizes(2048, 11008, 36, 16, 2), 3_085_938_688),
    "Qwen2.5-7B": (QWEN25 | WIDE | sizes(3584, 18944, 28, 28, 4), 7_615_616_512),
    "Qwen2.5-14B": (QWEN25 | WIDE | sizes(5120, 13824, 48, 40, 8), 14_770_033_664),
    "Qwen2.5-32B": (QWEN25 | WIDE | sizes(5120, 27648, 64, 40, 8), 32_763_876_352),
    "Qwen3-0.6B": (QWEN3 | sizes(1024, 3072, 28, 16), 596_049_920),
    "Qwen3-1.7B": (QWEN3 | sizes(2048, 6144, 28, 16), 1_720_574_976),
    "Qwen3-4B": (QWEN3 | sizes(2560, 9728, 36, 32), 4_022_468_096),
    "Qwen3-8B": (
        QWEN3 | {"tie_word_embeddings": False} | sizes(4096, 12288, 36, 32),
        8_190_735_360,
    ),
    "Llama-3.2-1B": (LLAMA32 | {"head_dim": 64} | sizes(2048, 8192, 16, 32), 1_235_814_400),
    "Llama-3.2-3B": (LLAMA32 | {"head_dim": 128} | sizes(3072, 8192, 28, 24), 3_212_749_824),
    "SmolLM2-135M": (SMOLLM2 | sizes(576, 1536, 30, 9, 3), 134_515_008),
    "SmolLM2-360M": (SMOLLM2 | sizes(960, 2560, 32, 15, 5), 361_821_120),
    "SmolLM2-1.7B": (SMOLLM2 | sizes(2048, 8192, 24, 32, 32), 1_711_376_384),
    "Mistral-7B-v0.3": (MISTRAL | sizes(4096, 14336, 32, 32), 7_248_023_552),
    "Mistral-Nemo-12B": (
        MISTRAL | {"vocab_size": 131072, "head_dim": 128} | sizes(5120, 14336, 40, 32),
        12_247_782_400,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_real_config_is_accepted_and_makes_a_model_of_the_published_size(name):
    raw, parameters = PUBLISHED[name]
    config = ModelConfig.from_hf(raw)
    with torch.device("meta"):
        policy = Transformer(config)
    assert policy.num_parameters() == parameters
    assert config.max_position_embeddings == raw["max_position_embeddings"]
    assert config.rope_theta == raw["rope_theta"] and config.rms_norm_eps == raw["rms_norm_eps"]
    assert (config.rope_scaling is not None) == name.startswith("Llama")
    assert ModelConfig.from_hf(config.to_hf()) == config
