"""The engine that fits a policy."""

from aha.model.hf_policy import HfPolicy
from aha.model.policy import Policy
from aha.model.tokenizer import Tokenizer
from aha.rollout.hf_engine import HfEngine
from aha.rollout.native import NativeEngine
from aha.rollout.slot_engine import Loop, SlotEngine


def open_engine(
    policy: Policy,
    tokenizer: Tokenizer,
    dtype: str = "auto",
    max_rows: int = 512,
    loop: Loop = "auto",
) -> SlotEngine:
    """The native engine, or `HfEngine`, which is slower, for a model that `transformers` runs."""
    kind: type[SlotEngine] = HfEngine if isinstance(policy, HfPolicy) else NativeEngine
    return kind(policy, tokenizer, dtype, max_rows, loop)
