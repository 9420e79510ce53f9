"""The language part of a model that wraps one with eyes or ears: Ministral-3, Gemma-3, LLaVA.

Their config.json has the language model's settings in `text_config`, and their files have its
tensors behind a prefix, between those of the other parts. What trains here reads text alone, so the
language part is the model: the others would take memory, and never get a gradient.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from aha.model.architecture import FAMILIES

# The names of the parts differ, and the head is inside the language part or beside it.
# Example: language_model.model.norm.weight and model.text_model.norm.weight are both
# model.norm.weight; language_model.lm_head.weight is lm_head.weight.
NAMES = {
    r"^(?:model\.)?(?:language_model|text_model)\.lm_head\.": "lm_head.",
    r"^(?:model\.)?(?:language_model|text_model)\.(?:model\.)?": "model.",
}
SHARED = ("tie_word_embeddings", "quantization_config", "quantization")


def language_config(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """The settings of the language part; None in a config.json that wraps nothing. What the wrapper
    says of it holds: there the part has its own default, such as an untied head."""
    text, kind = raw.get("text_config"), raw.get("model_type")
    if not isinstance(text, dict) or (isinstance(kind, str) and kind in FAMILIES):
        return None
    return text | {key: raw[key] for key in SHARED if key in raw}


def language_name(name: str) -> str | None:
    """The name that a tensor has in the language model alone; None for one of another part."""
    for pattern, start in NAMES.items():
        inner, count = re.subn(pattern, start, name)
        if count:
            return inner
    return name if name.startswith("lm_head.") else None


def parts_beside(names: Iterable[str]) -> list[str]:
    """The other parts, by the first words of their tensors' names."""
    beside = (name.removeprefix("model.") for name in names if language_name(name) is None)
    return sorted({name.split(".")[0] for name in beside})
