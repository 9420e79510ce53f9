"""How long a run will still take, from its own steps and the plan's curve of lengths.

The steps of late say how long a step takes now. Completions mostly grow in training, and a step
with them: the plan has the mean length over a run (`rollout.expected_tokens`, where it was
measured), the first step has the length at the beginning, and a straight line with this mean gives
the rest.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aha.core.config import RunConfig

WINDOW = 10  # steps whose pace counts: so many lie between two validations


def share_done(row: Mapping[str, Any], cfg: RunConfig) -> float:
    """Share of the run that is done: the larger one of its share of steps and of tokens."""
    by_tokens: float = row["generated"] / cfg.tokens if cfg.tokens else 0.0
    by_steps: float = row["step"] / cfg.steps if cfg.steps else 1.0
    return min(1.0, max(by_steps, by_tokens))


@dataclass
class TimeLeft:
    """The seconds that a run still takes. `add` every row of its metrics, `add_test` the test
    before training; of a resumed run first those that it has already."""

    cfg: RunConfig
    points: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=WINDOW + 1))
    first_tokens: float = 0.0  # of a completion, at the beginning
    test_s: float = 0.0
    test_tokens: float = 0.0

    def add_test(self, numbers: Mapping[str, Any]) -> None:
        """The numbers of the test before training: the one after it is as large."""
        self.test_s, self.test_tokens = numbers["seconds"], numbers["mean_tokens"]

    def add(self, row: Mapping[str, Any]) -> None:
        """A row of metrics.jsonl."""
        share = share_done(row, self.cfg)
        if not self.points and row["step"] == 1:
            self.points.append((0.0, 0.0))
        self.first_tokens = self.first_tokens or row["mean_tokens"]
        self.points.append((share, row["elapsed_s"]))

    def seconds(self) -> float | None:
        """Seconds until the last test is done; None before two points of a run are known."""
        if len(self.points) < 2 or self.points[-1][0] <= self.points[0][0]:
            return None
        (then, then_s), (share, now_s) = self.points[0], self.points[-1]
        pace = (now_s - then_s) / (share - then)
        left = (1.0 - share) * pace
        if not self.cfg.tokens:  # a run of so many tokens does not take longer with longer ones
            middle = (then + share) / 2
            left *= self.length((share + 1.0) / 2) / self.length(middle)
        return left + self.last_test_s()

    def length(self, share: float) -> float:
        """Tokens of a completion at this share of the run; 1 where no length is planned."""
        mean, first = self.cfg.rollout.expected_tokens, self.first_tokens
        if not mean or not first:
            return 1.0
        last = min(max(2 * mean - first, 1.0), self.cfg.training_limit)
        return first + (last - first) * share

    def last_test_s(self) -> float:
        """Seconds of the test after training: that before it, at the length of the end."""
        planned = self.cfg.rollout.expected_tokens and self.first_tokens and self.test_tokens
        return self.test_s * (self.length(1.0) / self.test_tokens if planned else 1.0)
