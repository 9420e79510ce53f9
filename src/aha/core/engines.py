"""What the rest of the program has to know of each engine, before one is built.

The checks of a recipe read it: what a method needs of an engine is refused before a run begins, not
after its first rollout.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Facts of one engine.

    `entropies`: its completions have the entropy of each token's distribution. `exact`: its
    log-probs are those of the trainer, but for rounding in one type of number.
    """

    entropies: bool
    exact: bool


# By the value of `rollout.engine`.
ENGINES = {
    "native": EngineFacts(entropies=True, exact=True),
    "vllm": EngineFacts(entropies=False, exact=False),
}
