"""What a recipe's method needs and computes: the record that trainer and plan share.

`aha.algo.algorithms.method_of` resolves it from the facts of the chosen algorithms. The plan gets
it from its callers, because the plan must not import the registries.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Method:
    """Facts of a whole recipe.

    A group is flat when its rewards are all equal, before a KL is subtracted from them.
    """

    flat_is_zero: bool  # advantages compare groups, so that those of a flat group are 0
    critic: bool  # a value model gives each token its own advantage
    reference: bool  # a frozen copy of the policy is read
    resamples: bool  # prompts are drawn again until enough groups are not flat
    drops_flat: bool  # flat groups leave the loss and its denominators
    every_row: bool  # the loss moves rows with advantage 0 in every update
    every_row_later: bool  # ... in each update of a rollout but the first

    def computes_every_row(self, update: int, bonus: float) -> bool:
        """Whether rows with advantage 0 are computed in an update, or skipped: they move nothing.

        `update` counts the updates of one rollout from 0, `bonus` is the coefficient of the
        entropy bonus in this update. A row that left the loss is never computed.
        """
        later = self.every_row_later and update > 0
        return self.critic or self.every_row or later or bonus > 0
