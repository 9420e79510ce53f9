"""A model as one GGUF file, for llama.cpp and programs that are built on it.

Supported: Qwen2.5, Qwen3, and Llama-shaped models without scaled positions, with a byte-level BPE
tokenizer whose pre-tokenisation GGUF has a name for. Everything else is refused: the tests could
not read it back.
Source: the GGUF specification of ggml, and the names that llama.cpp gives tensors and keys.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from aha.core.errors import MissingExtra, ModelError
from aha.model.architecture import ModelConfig
from aha.model.hf_policy import refuse_hf_policy
from aha.model.tokenizer import QWEN2_PATTERN, Tokenizer
from aha.model.transformer import Transformer

if TYPE_CHECKING:
    from gguf import GGUFWriter

ARCHITECTURES = {"qwen2": "qwen2", "qwen3": "qwen3", "llama": "llama", "mistral": "llama"}
# Llama 3 splits text as Qwen2 does, but keeps up to three digits together.
SPLITS = {QWEN2_PATTERN: "qwen2", QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|"): "llama-bpe"}
PARTS = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
}
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # GGUF's kinds of tokens


def save_gguf(path: Path, policy: Transformer, tokenizer: Tokenizer, dtype: torch.dtype) -> None:
    """Write the file: matrices in `dtype`, norms and biases in float32 as llama.cpp reads them.

    Raises `ModelError`, before anything is written, for a model that the format cannot describe.
    """
    refuse_hf_policy(policy, "GGUF", "--form hf")
    try:
        from gguf import GGUFWriter
    except ImportError as error:
        raise MissingExtra("gguf", "gguf") from error
    config = policy.config
    check(config)
    vocabulary = read_vocabulary(tokenizer, config.vocab_size)
    writer = GGUFWriter(path, ARCHITECTURES[config.model_type])
    write_shape(writer, config)
    write_vocabulary(writer, tokenizer, vocabulary)
    write_tensors(writer, policy, dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check(config: ModelConfig) -> None:
    """Raise `ModelError` for a shape that the format cannot describe."""
    if config.rope_scaling:
        raise ModelError(
            "scaled rotary positions", "plain ones: GGUF keeps the scaling apart", "--form hf"
        )
    if config.model_type == "qwen2" and config.head_dim * config.num_attention_heads != (
        config.hidden_size
    ):
        raise ModelError(f"head_dim {config.head_dim}", "hidden_size / heads", "--form hf")


def write_shape(writer: "GGUFWriter", config: ModelConfig) -> None:
    """The keys that describe the model."""
    writer.add_name(f"aha {config.model_type}")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def name_of(name: str) -> str:
    """`model.layers.3.mlp.up_proj.weight` as `blk.3.ffn_up.weight`."""
    match = re.fullmatch(r"(?:model\.)?(?:layers\.(\d+)\.)?(.+)\.(weight|bias)", name)
    assert match is not None, name
    layer, part, kind = match.groups()
    return (f"blk.{layer}." if layer else "") + f"{PARTS[part]}.{kind}"


def write_tensors(writer: "GGUFWriter", policy: Transformer, dtype: torch.dtype) -> None:
    """All weights under llama.cpp's names."""
    from gguf import GGMLQuantizationType
    from gguf.quants import quantize

    config = policy.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    narrow = {
        torch.float32: GGMLQuantizationType.F32,
        torch.float16: GGMLQuantizationType.F16,
        torch.bfloat16: GGMLQuantizationType.BF16,
    }[dtype]
    for name, tensor in policy.weights().items():
        numbers = tensor.detach().to("cpu", torch.float32).numpy()
        part = name.split(".")[-2]
        if part in heads and ARCHITECTURES[config.model_type] == "llama":
            numbers = interleave(numbers, heads[part])
        kind = narrow if numbers.ndim > 1 else GGMLQuantizationType.F32
        writer.add_tensor(name_of(name), quantize(numbers, kind), raw_dtype=kind)


def interleave(numbers: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    """The rows of q_proj or k_proj in llama.cpp's order for Llama: it rotates pairs of neighbours,
    where Hugging Face rotates row i of a head with row i + D/2. Example with D = 4: rows 0 1 2 3
    become 0 2 1 3."""
    return np.ascontiguousarray(
        numbers.reshape(heads, 2, -1, *numbers.shape[1:]).swapaxes(1, 2).reshape(numbers.shape)
    )


# -- the tokenizer --------------------------------------------------------------------------


def read_vocabulary(tokenizer: Tokenizer, size: int) -> tuple[str, list[str], list[int], list[str]]:
    """(name of the pre-tokenisation, tokens, their kinds, merges) from tokenizer.json."""
    content = json.loads(tokenizer.fast.to_str())
    model = content["model"]
    split = name_of_split(content.get("pre_tokenizer"))
    if model["type"] != "BPE" or split is None or not model["merges"]:
        raise ModelError(
            "a tokenizer that GGUF has no name for (aha-tiny's is one: it merges nothing)",
            "byte-level BPE as in Qwen2.5, Qwen3 or Llama 3",
            "--form hf",
        )
    tokens, kinds = [f"[PAD{i}]" for i in range(size)], [UNUSED] * size
    for text, i in model["vocab"].items():
        tokens[i], kinds[i] = text, NORMAL
    for added in content["added_tokens"]:
        tokens[added["id"]] = added["content"]
        kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    return split, tokens, kinds, merges


def name_of_split(pre_tokenizer: Mapping[str, Any] | None) -> str | None:
    """GGUF's name for the pre-tokenisation; None where there is none."""
    steps = (pre_tokenizer or {}).get("pretokenizers", [])
    if [step["type"] for step in steps] != ["Split", "ByteLevel"]:
        return None
    return SPLITS.get(steps[0]["pattern"].get("Regex"))


def write_vocabulary(
    writer: "GGUFWriter",
    tokenizer: Tokenizer,
    vocabulary: tuple[str, list[str], list[int], list[str]],
) -> None:
    """The tokenizer, from what `read_vocabulary` returned."""
    split, tokens, kinds, merges = vocabulary
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(tokenizer.stop_ids[0])
    writer.add_pad_token_id(tokenizer.pad_id)
    writer.add_add_bos_token(tokenizer.bos_id is not None)
    if tokenizer.bos_id is not None:
        writer.add_bos_token_id(tokenizer.bos_id)
    if tokenizer.template:
        writer.add_chat_template(tokenizer.template)
