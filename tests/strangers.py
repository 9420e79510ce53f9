"""Small models of architectures that our decoder is not, drawn at random."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from aha.model.weights import LoadedModel, load_model

from .tiny import TOKENIZER

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
STRANGERS = {
    # Absolute positions, and dropout of 0.1 in its config.
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 160},
    # Capped logits, and every other layer looks back 16 tokens.
    "gemma2": {
        **SIZES,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
        "max_position_embeddings": 160,
        "sliding_window": 16,
    },
    # Recurrent: no keys, no values, no cache that we know.
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8},
}


@torch.no_grad()
def stranger(kind: str, std: float = 0.3, **changes) -> PreTrainedModel:
    torch.manual_seed(0)
    special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    sizes = STRANGERS.get(kind, {})
    config = AutoConfig.for_model(
        kind, vocab_size=TOKENIZER.vocab_size, **special | sizes | changes
    )
    net = AutoModelForCausalLM.from_config(config).eval()
    for parameter in net.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0.0, std)
    return net


def stranger_folder(folder: Path, kind: str, **changes) -> Path:
    """A folder as its makers would write it."""
    stranger(kind, **changes).save_pretrained(folder)
    TOKENIZER.save(folder)
    return folder


def load_stranger(folder: Path, kind: str, **changes) -> LoadedModel:
    return load_model(stranger_folder(folder, kind, **changes))
