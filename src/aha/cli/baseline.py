"""`aha baseline`: the solve rates of searches without a model."""

from typing import Annotated, Literal

from cyclopts import Parameter, validators

from aha.cli.parameters import Count, ModelName, ProblemCount, ProblemSeed, whole
from aha.cli.terminal_text import say_json
from aha.core.errors import ConfigError

COUNTED = "The model whose tokens are counted: aha-tiny, a run, a model folder, or a hub name."


def baseline(
    *,
    search: Literal["blind", "in-order", "glance", "clairvoyant", "all"] = "blind",
    numbers: Annotated[
        tuple[int, ...], Parameter(converter=whole, consume_multiple=True, negative=())
    ] = (3,),
    tokens: Count = 320,
    mean_tokens: Annotated[
        float | None, Parameter(validator=validators.Number(gte=1, lte=10**6))
    ] = None,
    model: Annotated[ModelName, Parameter(help=COUNTED)] = "aha-tiny",
    split: Literal["train", "validation", "test", "test_targets"] = "test",
    n: ProblemCount = 1000,
    seed: ProblemSeed = 0,
) -> None:
    """Solve rates of searches without a model, in the tokens of a model to compare them with.

    Parameters
    ----------
    search
        blind: attempts by chance. in-order: pair by pair with + - * /, every last operation
        written. glance: of the last operations only the nearest. clairvoyant: the last operation
        only where it hits. all: one row for each.
    numbers
        How many numbers a puzzle has, 2 to 6; several values are equally likely.
    tokens
        Token limit of each search.
    mean_tokens
        A model's mean number of tokens. The row then has under at_mean what the search solves with
        this mean: under the largest limit with which it uses no more.
    split
        Part of the puzzles that is searched.
    """
    from aha.eval.opponents import OPPONENTS, counter_of, counts_by_line
    from aha.eval.yardstick import held_out_puzzles, opponent_row
    from aha.model.folders import resolve_model
    from aha.model.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(resolve_model(model))
    if not counts_by_line(tokenizer):
        raise ConfigError(
            f"{model}, whose tokenizer counts lines otherwise one by one than together",
            "a tokenizer that does not begin each text with a space of its own",
            "--model aha-tiny",
        )
    count = counter_of(tokenizer)
    puzzles = held_out_puzzles(numbers, split, n, seed)
    for name in OPPONENTS if search == "all" else [search]:
        row = opponent_row(name, puzzles, seed, count, tokens, mean_tokens)
        say_json({"numbers": list(numbers), "split": split, "seed": seed} | row)
