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


# Other numbers, which have defaults.
NUMBERS = {"num_key_value_heads", "max_position_embeddings", "head_dim", "rope_theta"}
NUMBERS |= {"rms_norm_eps"}


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
        "Qwen2ForCausalLM", True, False, {"max_position_embeddings": 32_768}, _NO_WINDOW
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        False,
        True,
        {"max_position_embeddings": 32_768, "head_dim": 128},
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
class Llama3Scaling:
    """How Llama 3.1 and later stretch the slow rotary frequencies to longer contexts."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int


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
    rope_scaling: Llama3Scaling | None = None

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
        content = {**FAMILIES[name].defaults, **raw}
        content = {key: value for key, value in content.items() if value is not None}
        refuse_unsupported(content)
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        if not isinstance(rope, dict):
            raise ModelError(f"config.json with rope scaling {rope!r}", "an object, or null")
        content = {"rope_theta": rope.get("rope_theta"), "tie_word_embeddings": False, **content}
        known = {f.name for f in fields(cls)}
        values = {k: value for k, value in content.items() if k in known and value is not None}
        missing = [key for key in SIZES if not isinstance(values.get(key), int)]
        if missing:
            raise ModelError(f"config.json without {', '.join(missing)}", "whole numbers for them")
        for key in NUMBERS & values.keys():
            if type(values[key]) not in (int, float) or values[key] <= 0:
                raise ModelError(f"config.json with {key} {values[key]!r}", "a number above 0")
        values.setdefault("num_key_value_heads", values["num_attention_heads"])
        values["rope_scaling"] = read_scaling(rope, values["max_position_embeddings"])
        if name == "mistral" and "sliding_window" in content:
            # Within one window, attention through a window and full attention are the same.
            values["max_position_embeddings"] = min(
                values["max_position_embeddings"], content["sliding_window"]
            )
        return cls(**values)

    def to_hf(self) -> dict[str, Any]:
        """The content of `config.json`."""
        sizes = asdict(self)
        name, head_dim, scaling = (
            sizes.pop(key) for key in ("model_type", "head_dim", "rope_scaling")
        )
        derived = self.hidden_size // self.num_attention_heads == head_dim
        if name == "qwen3" or not derived:
            sizes["head_dim"] = head_dim
        if scaling:
            sizes["rope_scaling"] = {"rope_type": "llama3", **scaling}
        return {
            "architectures": [self.family.architecture],
            "model_type": name,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            **self.family.extra_keys,
            "torch_dtype": "float32",
            **sizes,
        }


def refuse_unsupported(content: Mapping[str, Any]) -> None:
    """Raise `UnsupportedModel` for a switch of these families that `Transformer` does not have."""
    rope = content.get("rope_parameters") or {}
    supported = {
        "hidden_act": "silu",
        "use_sliding_window": False,
        "attention_bias": False,
        "mlp_bias": False,
        "partial_rotary_factor": 1.0,
    }
    for key, only in supported.items():
        value = content.get(key, rope.get(key, only))
        if value != only:
            raise UnsupportedModel(
                f"{key} {value!r}", f"{only!r}, as in Qwen2.5, Qwen3 and Llama-3.2"
            )
    refuse_quantised(content)
    mixed = set(content.get("layer_types") or ()) - {"full_attention"}
    if mixed and content["model_type"] != "mistral":
        raise UnsupportedModel(
            f"layers of {', '.join(sorted(mixed))}", "full_attention in every layer"
        )


def refuse_quantised(content: Mapping[str, Any]) -> None:
    """Raise `ModelError` for weights that cannot be trained."""
    if content.get("quantization_config"):
        raise ModelError(
            "a model with quantised weights", "weights in float32, bfloat16 or float16"
        )


def read_scaling(rope: Mapping[str, Any], positions: int) -> Llama3Scaling | None:
    """The rotary scaling of a config.json; None for plain positions."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    numbers = {
        "original_max_position_embeddings": positions,
        **{f.name: rope[f.name] for f in fields(Llama3Scaling) if f.name in rope},
    }
    plain = all(type(value) in (int, float) and value > 0 for value in numbers.values())
    if kind != "llama3" or len(numbers) < len(fields(Llama3Scaling)) or not plain:
        raise UnsupportedModel(
            f"rope scaling {dict(rope)}", "plain rotary positions, or 'llama3' with its factors"
        )
    return Llama3Scaling(**numbers)
