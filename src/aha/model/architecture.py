"""The shape of a decoder, and `config.json` in and out.

Four families of Hugging Face are one decoder with switches: Qwen2 (Qwen2.5 too), Qwen3, Llama
(Llama-3.2, SmolLM2) and Mistral. What the decoder would compute wrongly is refused, never ignored.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

from aha.core.errors import ConfigError, ModelError
from aha.core.sizes import TINY_POSITIONS


class NotOurs(ModelError):
    """A model that this decoder would compute wrongly. `transformers` may know it (see hf.py)."""


SIZES = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)


# Beside the sizes.
NUMBERS = {"num_key_value_heads", "max_position_embeddings", "head_dim", "rope_theta"}
NUMBERS |= {"rms_norm_eps"}


@dataclass(frozen=True)
class Family:
    """What a `model_type` stands for. `left_out` is what a config.json means that leaves a key
    out: other writers follow the classes of `transformers`, not us."""

    architecture: str
    qkv_bias: bool = False
    qk_norm: bool = False
    left_out: Mapping = field(default_factory=dict)
    told: Mapping = field(default_factory=dict)  # what others want to read in its config.json


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
        left_out={"max_position_embeddings": 2_048},
        told={"attention_bias": False, "mlp_bias": False},
    ),
    "mistral": Family(
        "MistralForCausalLM",
        left_out={
            "max_position_embeddings": 131_072,
            "num_key_value_heads": 8,
            "sliding_window": 4_096,
        },
        told={"sliding_window": None},
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
    def from_hf(cls, raw: dict) -> "ModelConfig":
        """From the content of a `config.json`; refuses what this decoder would compute wrongly."""
        name = raw.get("model_type")
        if not isinstance(name, str) or name not in FAMILIES:
            raise NotOurs(
                f"model_type {name!r}",
                f"a model folder of the family {', '.join(FAMILIES)}",
                "Qwen2.5, Qwen3, Llama-3.2, SmolLM2 and Mistral are of these",
            )
        given = FAMILIES[name].left_out | raw
        given = {key: value for key, value in given.items() if value is not None}
        refuse_the_unknown(given)
        rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
        if not isinstance(rope, dict):
            raise ModelError(f"config.json with rope scaling {rope!r}", "an object, or null")
        given = {"rope_theta": rope.get("rope_theta"), "tie_word_embeddings": False, **given}
        known = {f.name for f in fields(cls)}
        found = {key: value for key, value in given.items() if key in known and value is not None}
        missing = [key for key in SIZES if not isinstance(found.get(key), int)]
        if missing:
            raise ModelError(f"config.json without {', '.join(missing)}", "whole numbers for them")
        for key in NUMBERS & found.keys():
            if type(found[key]) not in (int, float) or found[key] <= 0:
                raise ModelError(f"config.json with {key} {found[key]!r}", "a number above 0")
        found.setdefault("num_key_value_heads", found["num_attention_heads"])
        found["rope_scaling"] = read_scaling(rope, found["max_position_embeddings"])
        if name == "mistral" and "sliding_window" in given:
            # Within one window, attention through a window and full attention are the same.
            found["max_position_embeddings"] = min(
                found["max_position_embeddings"], given["sliding_window"]
            )
        return cls(**found)

    def to_hf(self) -> dict:
        """The content of `config.json`."""
        told = asdict(self)
        name, head_dim, scaling = (
            told.pop(key) for key in ("model_type", "head_dim", "rope_scaling")
        )
        plain = self.hidden_size // self.num_attention_heads == head_dim
        if name == "qwen3" or not plain:
            told["head_dim"] = head_dim
        if scaling:
            told["rope_scaling"] = {"rope_type": "llama3", **scaling}
        return {
            "architectures": [self.family.architecture],
            "model_type": name,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            **self.family.told,
            "torch_dtype": "float32",
            **told,
        }


def refuse_the_unknown(given: Mapping) -> None:
    """Switches of these families that the decoder does not have."""
    rope = given.get("rope_parameters") or {}
    wanted = {
        "hidden_act": "silu",
        "use_sliding_window": False,
        "attention_bias": False,
        "mlp_bias": False,
        "partial_rotary_factor": 1.0,
    }
    for key, only in wanted.items():
        value = given.get(key, rope.get(key, only))
        if value != only:
            raise NotOurs(f"{key} {value!r}", f"{only!r}, as in Qwen2.5, Qwen3 and Llama-3.2")
    refuse_quantised(given)
    mixed = set(given.get("layer_types") or ()) - {"full_attention"}
    if mixed and given["model_type"] != "mistral":
        raise NotOurs(f"layers of {', '.join(sorted(mixed))}", "full_attention in every layer")


def refuse_quantised(given: Mapping) -> None:
    if given.get("quantization_config"):
        raise ModelError(
            "a model with quantised weights", "weights in float32, bfloat16 or float16"
        )


def read_scaling(rope: Mapping, positions: int) -> Llama3Scaling | None:
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
        raise NotOurs(
            f"rope scaling {dict(rope)}", "plain rotary positions, or 'llama3' with its factors"
        )
    return Llama3Scaling(**numbers)
