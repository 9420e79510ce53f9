"""The shape of a transformer, and `config.json` in and out.

Four families of Hugging Face are one transformer with switches: Qwen2 (Qwen2.5 too), Qwen3, Llama
(Llama-3.2, SmolLM2) and Mistral. A setting that `Transformer` does not support is refused, never
ignored: it would compute wrong numbers.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from aha.core.errors import ConfigError, ModelError
from aha.core.sizes import TINY_POSITIONS
from aha.model.config_keys import (
    SIZES,
    UnsupportedModel,
    check_numbers,
    refuse_unsupported,
    whole,
)
from aha.model.rope_scaling import RopeScaling, read_scaling, rope_of, written_scaling


@dataclass(frozen=True)
class Family:
    """What a `model_type` stands for.

    `defaults` are the values of keys that a config.json leaves out, as the classes of
    `transformers` have them: other writers follow those, not us. `extra_keys` are written into our
    config.json for other readers.
    """

    architecture: str
    qkv_bias: bool = False
    qk_norm: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    extra_keys: Mapping[str, Any] = field(default_factory=dict)


_NO_WINDOW = {"use_sliding_window": False}
FAMILIES = {
    "qwen2": Family(
        "Qwen2ForCausalLM",
        True,
        False,
        {"max_position_embeddings": 32_768, "num_key_value_heads": 32},
        _NO_WINDOW,
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        False,
        True,
        {"max_position_embeddings": 32_768, "num_key_value_heads": 32, "head_dim": 128},
        {**_NO_WINDOW, "attention_bias": False},
    ),
    "llama": Family(
        "LlamaForCausalLM",
        defaults={"max_position_embeddings": 2_048},
        extra_keys={"attention_bias": False, "mlp_bias": False},
    ),
    "mistral": Family(
        "MistralForCausalLM",
        defaults={
            "max_position_embeddings": 131_072,
            "num_key_value_heads": 8,
            "sliding_window": 4_096,
        },
        extra_keys={"sliding_window": None},
    ),
}


@dataclass(frozen=True)
class ModelConfig:
    """The numbers of a Hugging Face `config.json`, under their names there."""

    vocab_size: int
    hidden_size: int = 128
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = TINY_POSITIONS
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = True
    model_type: str = "qwen2"
    head_dim: int = 0  # 0: hidden_size / num_attention_heads
    rope_scaling: RopeScaling | None = None

    def __post_init__(self) -> None:
        for name in (*SIZES, "num_key_value_heads", "max_position_embeddings"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} {getattr(self, name)}", "at least 1")
        if self.head_dim == 0:
            if self.hidden_size % self.num_attention_heads:
                raise ConfigError(
                    f"hidden_size {self.hidden_size} with {self.num_attention_heads} heads",
                    "a hidden_size that the heads divide",
                    f"use {self.num_attention_heads * 32}",
                )
            object.__setattr__(self, "head_dim", self.hidden_size // self.num_attention_heads)
        if self.head_dim < 2 or self.head_dim % 2:
            raise ConfigError(
                f"head_dim {self.head_dim}", "an even number: rotary positions turn pairs"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"{self.num_attention_heads} heads on {self.num_key_value_heads} key-value heads",
                "a number of heads that the key-value heads divide",
            )
        assert self.model_type in FAMILIES, self.model_type

    @property
    def family(self) -> Family:
        return FAMILIES[self.model_type]

    @property
    def architecture(self) -> str:
        """The class of `transformers` that reads it."""
        return self.family.architecture

    @classmethod
    def from_hf(cls, raw: Mapping[str, Any]) -> "ModelConfig":
        """From the content of a `config.json`.

        Raises `UnsupportedModel` for what `Transformer` would compute wrongly, `ModelError` for a
        value that is missing or no number.
        """
        name = raw.get("model_type")
        if not isinstance(name, str) or name not in FAMILIES:
            raise UnsupportedModel(
                f"model_type {name!r}",
                f"a model folder of the family {', '.join(FAMILIES)}",
                "Qwen2.5, Qwen3, Llama-3.2, SmolLM2 and Mistral are of these",
            )
        family, rope = FAMILIES[name], rope_of(raw)
        content = {**family.defaults, **raw}
        refuse_unsupported(content, rope)
        theta = rope.get("rope_theta", raw.get("rope_theta", 10_000.0))
        check_numbers({**content, "rope_theta": theta})
        content = {key: value for key, value in content.items() if value is not None}
        content = {"tie_word_embeddings": False, **content, "rope_theta": theta}
        values = {f.name: content[f.name] for f in fields(cls) if f.name in content}
        values.setdefault("num_key_value_heads", values["num_attention_heads"])
        values["rope_scaling"] = read_scaling(raw, values["max_position_embeddings"])
        if name == "mistral" and "sliding_window" in content:
            # Within one window, attention through a window and full attention are the same.
            positions = min(values["max_position_embeddings"], whole(content, "sliding_window"))
            values["max_position_embeddings"] = positions
        try:
            return cls(**values)
        except ConfigError as error:
            fix = f"correct it{left_out(raw)}"
            raise ModelError(f"config.json with {error.got}", error.wanted, fix) from error

    def to_hf(self) -> dict[str, Any]:
        """The content of `config.json`."""
        sizes = asdict(self)
        name, head_dim, _ = (sizes.pop(key) for key in ("model_type", "head_dim", "rope_scaling"))
        derived = self.hidden_size // self.num_attention_heads == head_dim
        if name == "qwen3" or not derived:
            sizes["head_dim"] = head_dim
        if self.rope_scaling:
            sizes["rope_scaling"] = written_scaling(self.rope_scaling)
        return {
            "architectures": [self.family.architecture],
            "model_type": name,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            **self.family.extra_keys,
            "torch_dtype": "float32",
            **sizes,
        }


def left_out(raw: Mapping[str, Any]) -> str:
    """The keys that a config.json leaves out, with what they mean then, as the end of a message."""
    defaults = FAMILIES[raw["model_type"]].defaults
    keys = sorted(defaults.keys() - raw.keys())
    said = ", ".join(f"{key} (then {defaults[key]})" for key in keys)
    return f"; it leaves out {said}" if keys else ""


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The tensors of a `Transformer` of this shape, under Hugging Face's names.

    Known without the model: a config.json that does not fit its weights is refused before anything
    of its sizes is allocated.
    """
    C, middle, D = config.hidden_size, config.intermediate_size, config.head_dim
    queries, keys = config.num_attention_heads * D, config.num_key_value_heads * D
    maps = {
        "self_attn.q_proj": (queries, C),
        "self_attn.k_proj": (keys, C),
        "self_attn.v_proj": (keys, C),
        "self_attn.o_proj": (C, queries),
        "mlp.gate_proj": (middle, C),
        "mlp.up_proj": (middle, C),
        "mlp.down_proj": (C, middle),
    }
    layer: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in maps.items()}
    layer |= {"input_layernorm.weight": (C,), "post_attention_layernorm.weight": (C,)}
    if config.family.qkv_bias:
        names = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
        layer |= {f"{name}.bias": maps[name][:1] for name in names}
    if config.family.qk_norm:
        layer |= {"self_attn.q_norm.weight": (D,), "self_attn.k_norm.weight": (D,)}
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config.vocab_size, C),
        "model.norm.weight": (C,),
    }
    for index in range(config.num_hidden_layers):
        shapes |= {f"model.layers.{index}.{name}": shape for name, shape in layer.items()}
    if not config.tie_word_embeddings:
        shapes["lm_head.weight"] = (config.vocab_size, C)
    return shapes
