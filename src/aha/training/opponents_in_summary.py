"""A trained model's place among searches without a model, for summary.json and the report card."""

from collections.abc import Callable
from typing import Any

from aha.core.config import RunConfig
from aha.eval.opponents import counter_of, counts_by_line
from aha.eval.suite import EvalReport
from aha.eval.yardstick import opponents_of
from aha.model.tokenizer import Tokenizer


def opponents_in_summary(
    cfg: RunConfig, after: EvalReport | None, tokenizer: Tokenizer, say: Callable[[str], None]
) -> dict[str, Any]:
    """`{"opponents": ...}` as `opponents_of` returns it, on the problems of the last test.

    The opponents are counted in the tokens of this model. {} without that test, for another task
    than Countdown, and for a tokenizer that cannot count them, see `counts_by_line`. A fault here
    is said, and does not fail a run whose training is done.
    """
    if after is None or cfg.task.name != "countdown":
        return {}
    limit, mean_tokens = cfg.rollout.max_new_tokens, after.numbers["mean_tokens"]
    try:
        if not counts_by_line(tokenizer):
            return {}
        count = counter_of(tokenizer)
        return {"opponents": opponents_of(after.graded, limit, mean_tokens, cfg.eval.seed, count)}
    except Exception as error:
        say(f"no comparison with searches: {error!r}")
        return {}
