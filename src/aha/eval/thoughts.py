"""The thoughts of completions in numbers: how long they are, and whether a budget was kept.

Control is the share of thoughts whose tokens are between the minimum and the maximum of their
budget. Source: s1 (arXiv 2501.19393), section 3.2.
"""

from collections.abc import Sequence
from typing import TypedDict

from aha.core.records import Completion
from aha.rollout.engine import Sampling
from aha.rollout.forcing import ThoughtLength, ThoughtReader
from aha.rollout.slot_engine import SlotEngine


class ThinkingNumbers(TypedDict):
    """The thoughts of an evaluation with a budget; its limits are in tokens."""

    max_tokens: int
    min_tokens: int
    mean_tokens: float  # of a thought
    control: float  # share of thoughts between minimum and maximum
    closed_by_budget: float  # share of thoughts
    not_closed: float  # share of completions that ended inside their thought
    mean_waits: float  # suppressed ends of a thought


def thoughts_of(
    completions: Sequence[Completion], engine: SlotEngine, sampling: Sampling
) -> list[ThoughtLength]:
    """The thought of each completion that the engine has generated with this sampling."""
    reader = ThoughtReader(engine.tokenizer, engine.loaded().config.vocab_size)
    tables = engine.tables_of(sampling)
    wait_size = tables.wait_size if tables else 1
    return [reader.read(one.tokens, one.forced, wait_size) for one in completions]


def thinking_numbers(
    completions: Sequence[Completion], engine: SlotEngine, sampling: Sampling
) -> ThinkingNumbers:
    """The numbers of completions that were generated with the budget of `sampling`."""
    budget = sampling.budget
    assert budget is not None and completions, "an evaluation with a budget"
    most, least = budget.most(sampling.max_new_tokens), budget.least
    thoughts, n = thoughts_of(completions, engine, sampling), len(completions)
    return {
        "max_tokens": most,
        "min_tokens": least,
        "mean_tokens": sum(thought.tokens for thought in thoughts) / n,
        "control": sum(least <= thought.tokens <= most for thought in thoughts) / n,
        "closed_by_budget": sum(thought.closed == "budget" for thought in thoughts) / n,
        "not_closed": sum(thought.closed == "open" for thought in thoughts) / n,
        "mean_waits": sum(thought.waits for thought in thoughts) / n,
    }
