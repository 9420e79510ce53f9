"""Numbers of a step that are NaN or infinite: noticed before a weight changes.

Every check raises `RunStopped`, which names what is not finite and where it came from. They look at
numbers that lie in the processor's memory already, so they cost nothing that can be measured. The
norm of the gradient and the new weights are checked in `model.optimizer`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping

import torch

from aha.core.errors import RunStopped
from aha.core.records import Graded
from aha.eval.grade_errors import GradeErrors
from aha.training.advantage_estimators import Estimate
from aha.training.rollouts import Collected

LARGEST = "at most 3.4e38 from 0, the range of float32"


def check_rollout(collected: Collected, max_grade_errors: float) -> None:
    """The grades that failed, whose reward of 0 is none; the recorded log-probs; the rewards as
    float32."""
    flat = [graded for group in collected.groups for graded in group]
    GradeErrors.of(flat).check(max_grade_errors)
    if not math.isfinite(collected.numbers["entropy"]):
        for graded in flat:
            if not all(map(math.isfinite, graded.completion.logprobs)):
                raise RunStopped(
                    f"a recorded log-prob that is no number, in {name_of(graded)}",
                    "finite log-probs from the engine",
                    "--rollout.dtype float32; `aha doctor RECIPE` looks at the base's weights",
                    check="logprobs",
                )
    rewards_N = collected.scores.rewards_PG.flatten()
    for index in not_finite(rewards_N):
        graded = flat[index]
        raise RunStopped(
            f"a reward of {graded.reward:g} for {name_of(graded)}, {float(rewards_N[index])} after "
            "the rules of the recipe",
            LARGEST,
            "mend the task's `grade`: rewards of a usual size, such as 0 to 1",
            check="reward",
        )


def check_advantages(estimate: Estimate) -> None:
    """One advantage for each completion; with a critic it is the mean over the tokens."""
    flat = [row.graded for group in estimate.rows for row in group]
    advantages_N = estimate.advantages_PG.flatten()
    for index in not_finite(advantages_N):
        raise RunStopped(
            f"an advantage of {float(advantages_N[index])} for {name_of(flat[index])}, "
            f"whose reward is {flat[index].reward:g}",
            "finite advantages",
            "rewards of a usual size, such as 0 to 1; else another --algo.advantage",
            check="advantage",
        )


def check_numbers(numbers: Mapping[str, float], rate: str = "optim.lr") -> None:
    """Numbers by name, such as the loss of an update. `rate` is the setting of the rate at which
    the weights behind them learn."""
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise RunStopped(
                f"a {name} of {value}",
                "a finite one",
                f"a lower --{rate}, --optim.dtype float32; `aha doctor RECIPE` looks at the loss",
                check="loss",
            )


def not_finite(values_N: torch.Tensor) -> Iterator[int]:
    """The indices of the numbers that are not finite."""
    indices: Iterable[int] = (~torch.isfinite(values_N)).nonzero().flatten().tolist()
    return iter(indices)


def name_of(graded: Graded) -> str:
    """A completion by its problem, for a message."""
    return f"a completion of the problem {graded.completion.prompt.problem.id}"
