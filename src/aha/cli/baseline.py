"""`aha baseline`: the solve rate of random search."""

from typing import Annotated

from cyclopts import Parameter

from aha.cli.parameters import Count, ProblemCount, ProblemSeed, whole
from aha.cli.terminal_text import say_json


def baseline(
    *,
    numbers: Annotated[
        tuple[int, ...], Parameter(converter=whole, consume_multiple=True, negative=())
    ] = (3,),
    tokens: Count = 320,
    n: ProblemCount = 1000,
    seed: ProblemSeed = 0,
) -> None:
    """Solve rate of random search within a budget of tokens, written in aha-tiny's grammar.

    Parameters
    ----------
    numbers
        How many numbers a puzzle has, 2 to 6; several values are equally likely.
    tokens
        Token limit of each search.
    """
    from aha.eval.random_search import random_baseline

    say_json(random_baseline(numbers, tokens, n, seed))
