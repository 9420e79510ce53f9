"""The engine that fits a policy."""

from aha.model.hf_policy import HfPolicy
from aha.model.policy import Policy
from aha.model.tokenizer import Tokenizer
from aha.rollout.hf_engine import HfEngine
from aha.rollout.native import Loop, NativeEngine


def open_engine(
    policy: Policy,
    tokenizer: Tokenizer,
    dtype: str = "auto",
    max_rows: int = 512,
    loop: Loop = "auto",
) -> NativeEngine:
    """The native engine, or its slower sister for a model that `transformers` runs."""
    kind = HfEngine if isinstance(policy, HfPolicy) else NativeEngine
    return kind(policy, tokenizer, dtype, max_rows, loop)
