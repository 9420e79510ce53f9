"""What the keys of a Hugging Face config.json mean to our decoder.

Four kinds. Sizes and numbers, which `ModelConfig` holds. Switches, of which one value is computed
here: with another, `transformers` runs the model. Keys that do not change the logits. All others
are unknown: the classes of `transformers` for our families ignore them too, and the reader says so.
"""

from collections.abc import Mapping
from typing import Any

from aha.core.errors import ModelError


class UnsupportedModel(ModelError):
    """A model that `Transformer` would compute wrongly. `transformers` may know it (see
    aha.model.hf_policy)."""


SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)

# The largest size of which a tensor could exist, and the largest context whose table of positions
# fits a machine.
LARGEST = {"max_position_embeddings": 2**24}
LARGEST_SIZE = 2**31
WHOLE = (*SIZES, "num_key_value_heads", "max_position_embeddings", "head_dim")
REAL = ("rope_theta", "rms_norm_eps")
# null means: derived from the other numbers, or none.
MAY_BE_NULL = ("num_key_value_heads", "head_dim")

SWITCHES: dict[str, object] = {
    "hidden_act": "silu",
    "use_sliding_window": False,
    "attention_bias": False,
    "mlp_bias": False,
    "partial_rotary_factor": 1.0,
}

# Settings of one layer alone, and another file of weights: `transformers` reads both.
ONLY_TRANSFORMERS = ("per_layer_config", "transformers_weights")

NO_LOGITS = frozenset(
    # What the file is, and who wrote it.
    "architectures model_type torch_dtype dtype transformers_version _name_or_path name_or_path "
    "_commit_hash auto_map task_specific_params finetuning_task unsloth_fixed unsloth_version "
    "model_name model_max_length tokenizer_class transformers.js_config "
    # How it is computed, not what: the numbers are the same.
    "use_cache attn_implementation _attn_implementation _attn_implementation_autoset torchscript "
    "_flash_attn_2_enabled _attn_implementation_internal use_bfloat16 gradient_checkpointing "
    "pretraining_tp chunk_size_feed_forward output_attentions output_hidden_states return_dict "
    "tf_legacy_loss pruned_heads "
    # How it was initialised and regularised: nothing drops out here.
    "initializer_range attention_dropout hidden_dropout resid_pdrop embd_pdrop classifier_dropout "
    # Heads and shapes that a causal language model does not have.
    "id2label label2id num_labels problem_type is_decoder is_encoder_decoder add_cross_attention "
    "cross_attention_hidden_size tie_encoder_decoder decoder_start_token_id prefix "
    "is_llama_config rope_interleaved use_mrope max_window_layers keys_to_ignore_at_inference "
    # Tokens, and how text is drawn, which recipes say.
    "bos_token_id eos_token_id pad_token_id unk_token_id sep_token_id max_length min_length "
    "do_sample early_stopping num_beams num_beam_groups diversity_penalty temperature top_k top_p "
    "typical_p repetition_penalty length_penalty no_repeat_ngram_size bad_words_ids "
    "encoder_no_repeat_ngram_size num_return_sequences output_scores return_dict_in_generate "
    "forced_bos_token_id forced_eos_token_id remove_invalid_values suppress_tokens "
    "exponential_decay_length_penalty begin_suppress_tokens".split()
)

READ = frozenset(
    (*WHOLE, *REAL, *SWITCHES, *ONLY_TRANSFORMERS, "tie_word_embeddings", "layer_types")
    + ("is_causal", "sliding_window", "rope_scaling", "rope_parameters")
    + ("original_max_position_embeddings", "quantization_config", "quantization")
)
READ_IN_ROPE = frozenset(
    "rope_type type rope_theta partial_rotary_factor factor original_max_position_embeddings "
    "low_freq_factor high_freq_factor attention_factor beta_fast beta_slow truncate mscale "
    "mscale_all_dim".split()
)


def is_number(value: object) -> bool:
    """Whether it is a finite number of a usual size; True and False are none."""
    return type(value) in (int, float) and -1e30 < value < 1e30  # type: ignore[operator]


def whole(content: Mapping[str, Any], key: str) -> int:
    """A size. Raises `ModelError` for what is none, and for one that no machine could hold."""
    value, largest = content[key], LARGEST.get(key, LARGEST_SIZE)
    if type(value) is int and 1 <= value <= largest:
        return value
    shown = f"{value:.3g}" if type(value) is int and abs(value) < 1e300 else f"{value!r:.60}"
    raise ModelError(
        f"config.json with {key} {shown}", f"a whole number from 1 to {largest}", "correct it"
    )


def check_numbers(content: Mapping[str, Any]) -> None:
    """Raise `ModelError` for a size or a number of another kind, or null without a meaning."""
    missing = [key for key in SIZES if content.get(key) is None]
    if missing:
        raise ModelError(f"config.json without {', '.join(missing)}", "whole numbers for them")
    for key in (*WHOLE, *REAL):
        if key not in content or (content[key] is None and key in MAY_BE_NULL):
            continue
        if key in WHOLE:
            whole(content, key)
        elif not (is_number(content[key]) and content[key] > 0):
            raise ModelError(f"config.json with {key} {content[key]!r:.60}", "a number above 0")
    if type(content.get("tie_word_embeddings", False)) is not bool:
        raise ModelError(
            f"config.json with tie_word_embeddings {content['tie_word_embeddings']!r:.60}",
            "true or false",
        )


def refuse_unsupported(content: Mapping[str, Any], rope: Mapping[str, Any]) -> None:
    """Raise `UnsupportedModel` for a switch of these families that `Transformer` does not have."""
    refuse_quantised(content)
    for key, only in SWITCHES.items():
        value = (
            rope.get(key, content.get(key)) if key == "partial_rotary_factor" else content.get(key)
        )
        if value is not None and value != only:
            raise UnsupportedModel(
                f"{key} {value!r:.60}", f"{only!r}, as in Qwen2.5, Qwen3 and Llama-3.2"
            )
    if content.get("is_causal", True) is not True:
        raise UnsupportedModel(f"is_causal {content['is_causal']!r:.60}", "a causal model")
    for key in ONLY_TRANSFORMERS:
        if content.get(key):
            raise UnsupportedModel(f"{key} {content[key]!r:.60}", f"a config.json without {key}")
    layers = content.get("layer_types")
    if layers is None or content["model_type"] == "mistral":  # whose class does not read it
        return
    kinds = sorted({str(kind) for kind in layers}) if isinstance(layers, list) else [str(layers)]
    if any(kind != "full_attention" for kind in kinds):
        raise UnsupportedModel(
            f"layers of {', '.join(kinds)!r:.80}", "full_attention in every layer"
        )


def refuse_quantised(content: Mapping[str, Any]) -> None:
    """Raise `ModelError` for weights that cannot be trained."""
    quantisation = content.get("quantization_config") or content.get("quantization")
    if quantisation:
        method = quantisation.get("quant_method") if isinstance(quantisation, dict) else None
        raise ModelError(
            f"a model with quantised weights ({method or 'quantization_config in config.json'})",
            "weights in float32, bfloat16 or float16",
            "use the model that it was made from",
        )


def unknown_keys(raw: Mapping[str, Any], rope: Mapping[str, Any]) -> list[str]:
    """Keys with a value that neither we nor the classes of `transformers` read."""
    keys = [key for key, value in raw.items() if value and key not in READ | NO_LOGITS]
    keys += [f"rope scaling: {key}" for key in rope if key not in READ_IN_ROPE]
    return sorted(f"{key!r:.60}" for key in keys)
