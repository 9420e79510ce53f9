"""A model's shape, without the model: enough to count its parameters and what they need."""

import json
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from aha.core.errors import ModelError


@dataclass(frozen=True)
class Shape:
    """V vocabulary, C hidden, I mlp, L layers, H heads, K key-value heads, D head size."""

    V: int
    C: int
    I: int  # noqa: E741 - the letter that goes with the others
    L: int
    H: int
    K: int
    D: int
    tied: bool
    bias: bool = False
    norms: bool = False

    @property
    def parameters(self) -> int:
        q, kv = self.H * self.D, self.K * self.D
        layer = 2 * self.C * (q + kv) + 3 * self.C * self.I + 2 * self.C
        layer += self.bias * (q + 2 * kv) + self.norms * 2 * self.D
        return self.V * self.C * (1 if self.tied else 2) + self.L * layer + self.C

    @property
    def multiplied(self) -> int:
        """Parameters that each token is multiplied with: all but an embedding of its own."""
        return self.parameters - (0 if self.tied else self.V * self.C)

    @property
    def kv_numbers(self) -> int:
        """Numbers of one position in the generation cache."""
        return 2 * self.L * self.K * self.D


def known_shapes() -> dict[str, Shape]:
    text = (files("aha.plan") / "models.toml").read_text(encoding="utf-8")
    families = tomllib.loads(text).values()
    return {name: Shape(**shape) for family in families for name, shape in family.items()}


def shape_of(name: str) -> Shape:
    """A folder's config.json; else a known model by its name, owner or not, `-Instruct` or not.
    NAME/model, where training leaves what it made, stands for NAME before it is there.

    Raises `ModelError` where neither is.
    """
    config = Path(name) / "config.json"
    if config.is_file():
        return read_shape(config)
    known = known_shapes()
    base = name.removesuffix("/model").rsplit("/", 1)[-1]
    base = base.removesuffix("-Instruct").removesuffix("-Base")
    if base not in known:
        raise ModelError(
            f"no shape of the model {name!r}", f"{', '.join(known)}, or a model folder"
        )
    return known[base]


EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")


def refuse_experts(raw: dict[str, Any], config: Path) -> None:
    """Raise `ModelError` for a mixture of experts: counted as one decoder it would be several times
    too small."""
    for key in EXPERTS:
        if isinstance(raw.get(key), int) and raw[key] > 1:
            raise ModelError(
                f"{config}: a mixture of {raw[key]} experts ({key}), which the plan cannot count",
                "a model with one MLP in each layer",
                "plan a dense model of the size of all experts together",
            )


def read_shape(config: Path) -> Shape:
    try:
        raw = json.loads(config.read_text(encoding="utf-8"))
        if isinstance(raw.get("text_config"), dict) and "hidden_size" not in raw:
            raw |= raw["text_config"] | {"model_type": raw["text_config"].get("model_type", "")}
        refuse_experts(raw, config)
        heads, hidden = raw["num_attention_heads"], raw["hidden_size"]
        kind = raw.get("model_type", "")
        shape = Shape(
            *(raw["vocab_size"], hidden, raw["intermediate_size"], raw["num_hidden_layers"]),
            *(heads, raw.get("num_key_value_heads") or heads),
            raw.get("head_dim") or hidden // heads,
            tied=raw.get("tie_word_embeddings", False),
            bias=kind == "qwen2",
            norms=kind == "qwen3",
        )
        assert all(type(getattr(shape, key)) is int for key in "VCILHKD") and shape.parameters > 0
    except ModelError:
        raise
    except KeyError as error:
        raise ModelError(
            f"{config} without {error.args[0]}",
            "a model's config, in Qwen's or Llama's words",
        ) from None
    except (OSError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
        raise ModelError(f"{config}: {type(error).__name__} {error}", "a model's config") from None
    except AssertionError:
        raise ModelError(f"{config}: sizes that are no whole numbers", "a model's config") from None
    return shape
