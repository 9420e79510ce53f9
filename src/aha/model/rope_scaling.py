"""Rotary frequencies that were stretched for a longer context: `linear`, `yarn`, `llama3`.

Each kind is a record of its numbers in a config.json, and says how it changes the frequencies.
Other kinds (`dynamic`, `longrope`) depend on the length of a text: `transformers` runs those.
Shapes: D head size.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import torch

from aha.core.errors import ModelError
from aha.model.config_keys import UnsupportedModel, is_number

# Keys of a rope object that are not numbers of its kind.
OTHER_KEYS = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


@dataclass(frozen=True)
class LinearScaling:
    """All frequencies divided by `factor`: the positions are squeezed into the old context."""

    kind: ClassVar[str] = "linear"
    factor: float
    attention_factor: ClassVar[float] = 1.0

    def stretch(self, frequencies: torch.Tensor, theta: float) -> torch.Tensor:
        """The frequencies [D/2] of the stretched positions."""
        return frequencies / self.factor


@dataclass(frozen=True)
class Llama3Scaling:
    """How Llama 3.1 and later stretch the slow rotary frequencies to longer contexts.

    Slow frequencies are divided by `factor`, fast ones stay, and between them it is interpolated.
    A frequency is fast above `high_freq_factor` full turns within the context of pre-training,
    slow below `low_freq_factor`.
    Source: Llama 3 (arXiv 2407.21783) as its reference code computes it.
    """

    kind: ClassVar[str] = "llama3"
    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int
    attention_factor: ClassVar[float] = 1.0

    def stretch(self, frequencies: torch.Tensor, theta: float) -> torch.Tensor:
        """The frequencies [D/2] of the stretched positions."""
        turns = frequencies * self.original_max_position_embeddings / (2 * math.pi)
        low, high = self.low_freq_factor, self.high_freq_factor
        fast = ((turns - low) / (high - low)).clamp(0.0, 1.0)
        return frequencies * (fast + (1 - fast) / self.factor)


@dataclass(frozen=True)
class YarnScaling:
    """As `Llama3Scaling`, with a ramp over the index of the frequency, and sharper attention.

    `attention_factor` multiplies cos and sin, so the scores by its square.
    Source: Peng et al. 2023, YaRN (arXiv 2309.00071), as `transformers` computes it.
    """

    kind: ClassVar[str] = "yarn"
    factor: float
    original_max_position_embeddings: int
    attention_factor: float
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True  # the ends of the ramp are whole numbers

    def stretch(self, frequencies: torch.Tensor, theta: float) -> torch.Tensor:
        """The frequencies [D/2] of the stretched positions."""
        half = len(frequencies)

        def index_of(turns: float) -> float:
            context = self.original_max_position_embeddings
            return half * math.log(context / (turns * 2 * math.pi)) / math.log(theta)

        low, high = index_of(self.beta_fast), index_of(self.beta_slow)
        if self.truncate:
            low, high = math.floor(low), math.ceil(high)
        low, high = max(low, 0), min(high, 2 * half - 1)
        if low == high:
            high += 0.001
        index = torch.arange(half, dtype=torch.float32, device=frequencies.device)
        slow = ((index - low) / (high - low)).clamp(0.0, 1.0)
        return frequencies * (1 - slow) + frequencies / self.factor * slow


RopeScaling = LinearScaling | Llama3Scaling | YarnScaling


def rope_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The rope object of a config.json: `rope_scaling`, else `rope_parameters`, as
    `transformers` prefers them. Empty where there is none."""
    rope = raw.get("rope_scaling") or raw.get("rope_parameters") or {}
    if not isinstance(rope, dict):
        raise ModelError(f"config.json with rope scaling {rope!r:.80}", "an object, or null")
    if any(isinstance(value, dict) for value in rope.values()):
        raise UnsupportedModel("rope scaling for each kind of layer", "one for all layers")
    return rope


def read_scaling(raw: Mapping[str, Any], positions: int) -> RopeScaling | None:
    """The rotary scaling of a config.json; None for plain positions.

    Raises `UnsupportedModel`, with its name, for one that depends on the length of the text or
    whose numbers are not there.
    """
    rope = rope_of(raw)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind == "default":
        return None
    numbers = {key: value for key, value in rope.items() if key not in OTHER_KEYS}
    numbers = {key: value for key, value in numbers.items() if value is not None}
    before = raw.get("original_max_position_embeddings")
    if before is None:
        before = numbers.get("original_max_position_embeddings", positions)
    numbers["original_max_position_embeddings"] = before
    builders: dict[str, Callable[[Mapping[str, Any]], RopeScaling]]
    builders = {"linear": read_linear, "llama3": read_llama3, "yarn": read_yarn}
    builder = builders.get(kind) if isinstance(kind, str) else None
    try:
        if builder is not None:
            return builder(numbers)
    except KeyError:
        pass
    raise UnsupportedModel(
        f"rope scaling {rope!r:.200}",
        f"plain rotary positions, or one of {', '.join(builders)} with its factors",
    )


def positive(numbers: Mapping[str, Any], key: str, default: float | None = None) -> float:
    """A number above 0. Raises KeyError where there is none."""
    value = numbers.get(key, default)
    if not is_number(value) or value <= 0:
        raise KeyError(key)
    return value  # type: ignore[no-any-return]


def read_linear(numbers: Mapping[str, Any]) -> LinearScaling:
    return LinearScaling(positive(numbers, "factor"))


def read_llama3(numbers: Mapping[str, Any]) -> Llama3Scaling:
    values: dict[str, Any] = {f.name: positive(numbers, f.name) for f in fields(Llama3Scaling)}
    scaling = Llama3Scaling(**values)
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise KeyError("high_freq_factor")
    return scaling


def read_yarn(numbers: Mapping[str, Any]) -> YarnScaling:
    """`attention_factor` follows from the factor, and from `mscale` where DeepSeek's are given."""
    factor = positive(numbers, "factor")
    mscale, of_all = (numbers.get(key) or 0 for key in ("mscale", "mscale_all_dim"))
    for value in (mscale, of_all):
        if not is_number(value):
            raise KeyError("mscale")
    if mscale and of_all:
        attention = sharper(factor, mscale) / sharper(factor, of_all)
    else:
        attention = sharper(factor, 1.0)
    if "attention_factor" in numbers:
        attention = positive(numbers, "attention_factor")
    truncate = numbers.get("truncate", True)
    if not isinstance(truncate, bool):
        raise KeyError("truncate")
    return YarnScaling(
        factor,
        positive(numbers, "original_max_position_embeddings"),  # type: ignore[arg-type]
        float(attention),
        float(positive(numbers, "beta_fast", 32.0)),
        float(positive(numbers, "beta_slow", 1.0)),
        truncate,
    )


def sharper(factor: float, mscale: float) -> float:
    """0.1 mscale ln(factor) + 1: how much YaRN sharpens attention."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def written_scaling(scaling: RopeScaling) -> dict[str, Any]:
    """The rope object of a config.json."""
    return {"rope_type": scaling.kind, **asdict(scaling)}
