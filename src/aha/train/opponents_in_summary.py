"""A trained model's place among searches without a model, for summary.json and the report card."""

from collections.abc import Callable
from typing import Any

from aha.core.config import RunConfig
from aha.eval.opponents import OpponentSearch
from aha.eval.suite import EvalReport
from aha.eval.yardstick import opponents_of
from aha.model.tokenizer import Tokenizer


def opponents_in_summary(
    cfg: RunConfig, after: EvalReport | None, tokenizer: Tokenizer, say: Callable[[str], None]
) -> dict[str, Any]:
    """`{"opponents": ...}` as `opponents_of` returns it, on the problems of the last test.

    {} without that test, for another task than Countdown, and for a model whose tokens are not
    those of the opponents: numbers of unlike tokens cannot be compared. A fault here is said, and
    does not fail a run whose training is done.
    """
    if after is None or cfg.task.name != "countdown" or not has_their_tokens(tokenizer):
        return {}
    limit, mean_tokens = cfg.rollout.max_new_tokens, after.numbers["mean_tokens"]
    try:
        return {"opponents": opponents_of(after.graded, limit, mean_tokens, cfg.eval.seed)}
    except Exception as error:
        say(f"no comparison with searches: {error!r}")
        return {}


def has_their_tokens(tokenizer: Tokenizer) -> bool:
    """Whether a model with this tokenizer would need as many tokens for an opponent's completion
    as are counted for it."""
    search = OpponentSearch("in-order", (46, 32, 94), 80, seed=0)
    search.continue_to(1_000)
    tokens = tokenizer.fast.encode(search.completion(), add_special_tokens=False).ids
    return search.end == len(tokens) + 1  # with the stop token
