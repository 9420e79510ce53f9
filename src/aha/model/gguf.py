"""A model as one GGUF file, for llama.cpp and programs that are built on it.

Supported: Qwen2.5, Qwen3, and Llama-shaped models with plain positions or Llama 3's, with a
byte-level BPE tokenizer whose pre-tokenisation GGUF has a name for. Everything else is refused: the
tests could not read it back.
Source: the GGUF specification of ggml, and the names that llama.cpp gives tensors and keys.
"""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from tokenizers.models import BPE

from aha.core.errors import MissingExtra, ModelError
from aha.core.findings import warn
from aha.model.architecture import ModelConfig
from aha.model.chat_template import special_tokens
from aha.model.hf_policy import refuse_hf_policy
from aha.model.model_warning import warn_of
from aha.model.policy import Policy
from aha.model.rope_scaling import Llama3Scaling
from aha.model.tokenizer import QWEN2_PATTERN, Tokenizer
from aha.model.transformer import Transformer

if TYPE_CHECKING:
    from gguf import GGUFWriter

ARCHITECTURES = {"qwen2": "qwen2", "qwen3": "qwen3", "llama": "llama", "mistral": "llama"}
# Names of rules that split text before byte-level BPE, as llama.cpp spells them, by the regular
# expression of tokenizer.json. Llama 3 splits as Qwen2 does, but keeps up to three digits together.
LLAMA3_PATTERN = QWEN2_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
NEMO_PATTERN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {QWEN2_PATTERN: "qwen2", LLAMA3_PATTERN: "llama-bpe", NEMO_PATTERN: "tekken"}
# Rules without a regular expression of their own, by their steps: ByteLevel brings GPT-2's.
STEPS = {("ByteLevel",): "gpt-2", ("Digits", "ByteLevel"): "smollm"}
NAMES_OF_STEPS = {name: steps for steps, name in STEPS.items()}
# llama.cpp takes a word that is in the vocabulary without its merges under these names.
WHOLE_WORDS = {"llama-bpe", "tekken"}
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
ROPE_FACTORS = "rope_freqs.weight"  # what llama.cpp divides the rotary frequencies by
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # GGUF's kinds of tokens
# Tokens at which llama.cpp ends a completion by their text, whichever a file names besides.
ENDS_BY_TEXT = frozenset(
    "<|endoftext|> <|end_of_text|> <|im_end|> <|eot_id|> <|eom_id|> <|end|> <|return|> <|call|> "
    "<|calls|> <|flush|> <end_of_turn> <turn|> <|tool_response> <end_of_utterance> <eos> </s> "
    "<EOT> _<EOT> [EOT] [EOS] <\uff5cend\u2581of\u2581sentence\uff5c>".split()
)
PART_END = "<|end|>"  # of a message, where the vocabulary has other tokens that end the completion
WHOLE_ENDS = (frozenset({"<|return|>", "<|call|>"}), frozenset({"<|flush|>", "<|calls|>"}))


def save_gguf(path: Path, policy: Policy, tokenizer: Tokenizer, dtype: torch.dtype) -> None:
    """Write the file: matrices in `dtype`, norms and biases in float32 as llama.cpp reads them.

    Raises `ModelError`, before anything is written, for a model that the format cannot describe.
    """
    refuse_hf_policy(policy, "GGUF", "--form hf")
    assert isinstance(policy, Transformer), type(policy)
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
    if config.rope_scaling and not has_rope_factors(config):
        raise ModelError(
            f"scaled rotary positions ({config.rope_scaling.kind}) in a {config.model_type}",
            "plain ones, or those of Llama 3 in a Llama: GGUF has no other way of writing them",
            "--form hf",
        )
    if config.model_type == "qwen2" and config.head_dim * config.num_attention_heads != (
        config.hidden_size
    ):
        raise ModelError(f"head_dim {config.head_dim}", "hidden_size / heads", "--form hf")


def gguf_fault(policy: object, tokenizer: Tokenizer) -> str | None:
    """Why a model cannot be a GGUF file, in words; None where it can."""
    try:
        refuse_hf_policy(policy, "GGUF", "--form hf")
        assert isinstance(policy, Transformer), "all others run in transformers"
        check(policy.config)
        read_vocabulary(tokenizer, policy.config.vocab_size)
    except ModelError as error:
        return error.got
    return None


def has_rope_factors(config: ModelConfig) -> bool:
    """Whether the rotary frequencies are divided by factors that llama.cpp reads from a tensor."""
    llama = ARCHITECTURES[config.model_type] == "llama"
    return llama and isinstance(config.rope_scaling, Llama3Scaling)


def rope_factors(config: ModelConfig) -> npt.NDArray[np.float32]:
    """What the rotary frequencies [D/2] are divided by."""
    assert config.rope_scaling is not None, "only of stretched positions"
    half = config.head_dim // 2
    plain = config.rope_theta ** -(torch.arange(half, dtype=torch.float32) / half)
    return (plain / config.rope_scaling.stretch(plain, config.rope_theta)).numpy()


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
    if has_rope_factors(config):
        writer.add_tensor(ROPE_FACTORS, rope_factors(config))
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
    fault = fault_of(content, split)
    if not fault and len(tokenizer.prefix) > 1:
        fault = f"that begins every text with {len(tokenizer.prefix)} tokens, where GGUF has one"
    if fault or split is None:
        raise ModelError(
            f"a tokenizer {fault}",
            "byte-level BPE with a rule that llama.cpp has a name for, as in Qwen2.5, Qwen3, "
            "Llama 3, SmolLM2, Mistral-Nemo and GPT-2",
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


def fault_of(content: Mapping[str, Any], split: str | None) -> str:
    """Why GGUF cannot hold a tokenizer.json; "" where it can."""
    model, normalizer = content["model"], content.get("normalizer")
    if model["type"] != "BPE":
        return f"of the kind {model['type']}"
    if not model["merges"]:
        return "that merges nothing (aha-tiny's is one)"
    if model.get("byte_fallback"):
        return "of sentencepiece (byte_fallback)"
    if normalizer and normalizer["type"] != "NFC":
        return f"with the normalizer {normalizer['type']}, which llama.cpp leaves out"
    if split is None:
        return f"whose rule of splitting llama.cpp has no name for: {splitting(content)}"
    skips, expected = bool(model.get("ignore_merges")), split in WHOLE_WORDS
    added = {token["content"] for token in content["added_tokens"]}
    if skips != expected and not all_words_merge(model, added):
        return f"with ignore_merges {skips}, and llama.cpp has {expected} for {split}"
    return ""


def all_words_merge(model: Mapping[str, Any], added: Collection[str]) -> bool:
    """Whether the merges make every token of the vocabulary but those that were `added`: then
    ignore_merges changes nothing."""
    pairs = (pair.split(" ", 1) if isinstance(pair, str) else pair for pair in model["merges"])
    merges = [(left, right) for left, right in pairs]
    bpe = BPE(vocab=model["vocab"], merges=merges)
    return all(len(bpe.tokenize(token)) == 1 for token in model["vocab"] if token not in added)


def splitting(content: Mapping[str, Any]) -> str:
    """The steps of the pre-tokenizer, in short."""
    return ", ".join(step["type"] for step in steps_of(content.get("pre_tokenizer"))) or "none"


def steps_of(pre_tokenizer: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """The steps of a pre-tokenizer, which is one step or a sequence of them."""
    if not pre_tokenizer:
        return []
    steps: list[Mapping[str, Any]] = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    return steps


def name_of_split(pre_tokenizer: Mapping[str, Any] | None) -> str | None:
    """llama.cpp's name for the pre-tokenisation; None where there is none."""
    steps = steps_of(pre_tokenizer)
    kinds = tuple(step["type"] for step in steps)
    if not steps or kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    regex = steps[-1].get("use_regex", True)
    if kinds == ("Split", "ByteLevel") and not regex:
        isolated = steps[0].get("behavior") == "Isolated" and not steps[0].get("invert")
        return SPLITS.get(steps[0]["pattern"].get("Regex")) if isolated else None
    if kinds == ("Digits", "ByteLevel") and not steps[0].get("individual_digits"):
        return None
    return STEPS.get(kinds) if regex else None


def ends_by_text(tokens: Sequence[str], kinds: Sequence[int]) -> list[int]:
    """The ids at which llama.cpp ends a completion whatever the file names, in their order.

    Control tokens alone: a word such as `</s>`, which llama.cpp takes as well, is HTML in some
    vocabularies.
    """
    pairs = zip(tokens, kinds, strict=True)
    ends = {text: i for i, (text, kind) in enumerate(pairs) if kind == CONTROL}
    texts = ENDS_BY_TEXT & ends.keys()
    if any(whole <= texts for whole in WHOLE_ENDS):
        texts -= {PART_END}
    return sorted(ends[text] for text in texts)


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
    write_ends(writer, tokenizer, set(ends_by_text(tokens, kinds)))
    writer.add_pad_token_id(tokenizer.pad_id)
    writer.add_add_bos_token(tokenizer.bos_id is not None)
    begin = special_tokens(tokenizer.settings or {}).get("bos_token", "")
    bos = tokenizer.fast.token_to_id(begin) if tokenizer.bos_id is None else tokenizer.bos_id
    if bos is not None:
        writer.add_bos_token_id(bos)  # a template may write it where nothing else does
    if tokenizer.template:
        writer.add_chat_template(tokenizer.template)


def write_ends(writer: "GGUFWriter", tokenizer: Tokenizer, by_text: Collection[int]) -> None:
    """The tokens that end a completion. llama.cpp stops at each of the three that the format names,
    the ends of a text, of a turn and of a call of a tool, and at those that it knows `by_text`."""
    first, *others = tokenizer.stop_ids
    ends = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    stops = [first, *sorted(others, key=lambda stop: stop in by_text)]
    for add, stop in zip(ends, stops, strict=False):
        add(stop)
    if more := [stop for stop in stops[len(ends) :] if stop not in by_text]:
        names = ", ".join(repr(tokenizer.fast.id_to_token(stop)) for stop in more)
        warn_of(warn(f"GGUF has three ends of a completion: {names} will not end one", ""))
