"""The rates of the corpus: how often each kind of document and each behaviour is written."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TraceMix:
    """The rates of the corpus; each is a probability unless its comment says otherwise.

    With the rate of a behaviour at 0, a base has never read that behaviour: this is what a study of
    priming changes. The names are keys of `aha pretrain --mix` and of `pretraining.json`.
    """

    # How many numbers a puzzle has, drawn evenly. Two make no search: they teach what a verdict is.
    numbers: tuple[int, ...] = (2, 2, 3, 3, 3, 3, 3, 4, 4)
    drill: float = 0.35  # a page of arithmetic before each puzzle
    judged: float = 0.65  # of those pages: every result is compared with a goal
    search: float = 0.32  # of the puzzles: tries and checks; the others guess at once
    gold_guess: float = 0.03  # a direct guess that is right on purpose
    gold_attempt: float = 0.10  # an attempt that follows a solution
    abandon: float = 0.35  # a division that is not whole, a difference below 0: written, and left
    insight: float = 0.30  # last operation chosen to hit the target when one does
    verify: float = 0.92  # searches that write a verdict after each full attempt
    backtrack: float = 0.45  # an attempt that starts from an intermediate result
    backward: float = 0.12  # an attempt that works back from the target
    subgoal: float = 0.08  # an attempt that names its goal first
    give_up: float = 0.45  # after each failed attempt
    orderly: float = 0.35  # searches that try operations in order, see `TraceWriter.orderly`
    glance: float = 0.3  # of those: of the last two numbers only the operation that comes nearest
    patient: float = 0.12  # other searches that are long: give_up / 12, gold_attempt / 8
    max_attempts: int = 60
    max_lines: int = 90  # of an orderly search
    high_result: int = 200  # results above it are written less often ...
    high_rate: float = 0.25  # ... by this factor: they rarely lead to targets of 10..100
    max_result: int = 1_000  # and above this one
    max_rate: float = 0.01
    multiply: float = 0.0  # a product before each puzzle, drawn again after each: for `multiply`
    long_way: float = 0.25  # of those: digit by digit; the others answer at once
