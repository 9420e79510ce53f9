"""What a step has computed so far: all that is left of it where it fails."""

from dataclasses import dataclass

from aha.core.records import StepReport
from aha.training.advantage_estimators import Estimate
from aha.training.rollouts import Collected, PhaseClock


@dataclass
class StepAttempt:
    """A step on its way to `version`: each part is set as soon as it is there."""

    version: int
    clock: PhaseClock
    collected: Collected | None = None
    estimate: Estimate | None = None

    def report(self, numbers: dict[str, float]) -> StepReport:
        """The record of the step. Without an estimate it has no advantages."""
        groups = self.collected.groups if self.collected else []
        advantages = self.estimate.advantages_PG.tolist() if self.estimate else []
        return StepReport(
            self.version,
            tuple(map(tuple, groups)),
            tuple(map(tuple, advantages)),
            numbers,
            self.clock.seconds,
            self.estimate.token_advantages() if self.estimate else (),
        )
