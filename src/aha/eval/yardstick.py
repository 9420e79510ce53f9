"""What opponents solve with as many tokens as a model: at its limit, and at its mean.

A search that is stopped at L tokens uses min(T, L) of them on a puzzle whose completion has T. So
one search of each puzzle gives the whole curve: for every L the mean number of tokens and the solve
rate. At a model's *limit* each puzzle gets as many tokens as the model was allowed. At its *mean*,
L is the largest limit with which the search uses at most as many tokens in the mean as the model
did: what easy puzzles leave over is spent on hard ones.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from aha.core.errors import ConfigError
from aha.core.records import Graded
from aha.eval.opponents import OPPONENTS, CountTokens, OpponentSearch
from aha.eval.statistics import wilson
from aha.tasks.countdown import Countdown

Puzzle = tuple[tuple[int, ...], int]  # numbers, target

STRETCH = 16  # a search for an equal mean goes as far as this many times the limit, or the mean
MOST_TOKENS = 2**20  # of one opponent in a report card: puzzles times the limit, or twice the mean


@dataclass(frozen=True)
class Curve:
    """One opponent on n puzzles, for every limit up to `longest` tokens.

    `ends` are the tokens of its whole completions, sorted: those that solve, and all. Completions
    longer than `longest` are in neither; there are n - len(all_ends) of them.
    """

    n: int
    longest: int
    solved_ends: list[int]
    all_ends: list[int]

    @property
    def ended(self) -> bool:
        """Whether each completion is whole: a larger limit changes nothing."""
        return len(self.all_ends) == self.n

    def mean_tokens(self, limit: int) -> float:
        """Tokens of a puzzle, in the mean, where each search is stopped at `limit`."""
        whole = bisect_right(self.all_ends, limit)
        return (sum(self.all_ends[:whole]) + limit * (self.n - whole)) / self.n

    def solved(self, limit: int) -> int:
        """How many puzzles are solved with at most `limit` tokens each."""
        return bisect_right(self.solved_ends, limit)

    def limit_of(self, mean_tokens: float) -> int:
        """The largest limit up to `longest` whose mean number of tokens is not above this one."""
        limits = range(self.longest + 1)
        return bisect_right(limits, mean_tokens, key=self.mean_tokens) - 1

    def row(self, limit: int) -> dict[str, Any]:
        """The point of the curve at a limit: the solve rate with its 95 % interval, and the mean
        number of tokens used."""
        solved = self.solved(limit)
        return {
            "tokens": limit,
            "n": self.n,
            "solve_rate": solved / self.n,
            "interval": list(wilson(solved, self.n)),
            "mean_tokens": self.mean_tokens(limit),
        }

    def row_at_mean(self, mean_tokens: float) -> dict[str, Any]:
        """The point with this mean number of tokens, less than one token below it.

        `uses_fewer`: there is none, because all completions together have fewer, or because the
        search uses fewer up to `longest`. The point is then the end of the curve.
        """
        uses_fewer = self.mean_tokens(self.longest) < mean_tokens
        limit = self.limit_of(mean_tokens)
        if self.ended:
            limit = min(limit, self.all_ends[-1])
        return self.row(limit) | {"uses_fewer": uses_fewer}


def curve_of(
    name: str,
    puzzles: Sequence[Puzzle],
    seed: int,
    count: CountTokens,
    limit: int,
    mean_tokens: float = 0.0,
) -> Curve:
    """The curve of an opponent up to `limit`, and on until its mean is above `mean_tokens`, as far
    as STRETCH allows.

    `seed` chooses the draws of an opponent that makes any; `count` counts its tokens. Raises
    `ConfigError` for an opponent that does not exist.
    """
    if name not in OPPONENTS:
        raise ConfigError(f"search {name!r}", f"one of {', '.join(OPPONENTS)}")
    searches = [OpponentSearch(name, *puzzle, seed, count) for puzzle in puzzles]
    longest = limit
    while True:
        for search in searches:
            search.continue_to(longest)
        whole = [(search.end, search.solved) for search in searches if search.end is not None]
        ends = sorted(end for end, _ in whole if end <= longest)
        solved = sorted(end for end, is_solved in whole if is_solved and end <= longest)
        curve = Curve(len(puzzles), longest, solved, ends)
        if (
            curve.ended
            or curve.mean_tokens(longest) > mean_tokens
            or longest >= STRETCH * max(limit, mean_tokens)
        ):
            return curve
        longest *= 2


# -- commands -------------------------------------------------------------------------------


def held_out_puzzles(numbers: tuple[int, ...], split: str, n: int, seed: int) -> list[Puzzle]:
    """The first n puzzles of a split, fewer where it has fewer; those that a model is tested on."""
    problems = islice(Countdown(numbers).problems(split, seed), n)
    return [(problem.given["numbers"], problem.given["target"]) for problem in problems]


def opponent_row(
    name: str,
    puzzles: Sequence[Puzzle],
    seed: int,
    count: CountTokens,
    limit: int,
    mean_tokens: float | None = None,
) -> dict[str, Any]:
    """One opponent as one row: its point at the limit and, with `mean_tokens`, under `at_mean` the
    one there. Raises as `curve_of` does."""
    curve = curve_of(name, puzzles, seed, count, limit, mean_tokens or 0.0)
    row = {"search": name} | curve.row(limit)
    if mean_tokens is not None:
        row["at_mean"] = curve.row_at_mean(mean_tokens)
    return row


# -- a model's place ------------------------------------------------------------------------


def opponents_of(
    graded: Sequence[Sequence[Graded]],
    limit: int,
    mean_tokens: float,
    seed: int,
    count: CountTokens,
) -> dict[str, Any]:
    """All opponents on the puzzles of an evaluation, at its limit and at its mean.

    On the first puzzles alone where limit or mean are so high that all would take long, see
    MOST_TOKENS; `n` says on how many.
    """
    given = [group[0].completion.prompt.problem.given for group in graded if group[0].completion]
    puzzles = [(tuple(puzzle["numbers"]), puzzle["target"]) for puzzle in given]
    puzzles = puzzles[: max(1, int(MOST_TOKENS // max(limit, 2 * mean_tokens)))]
    rows = [opponent_row(name, puzzles, seed, count, limit, mean_tokens) for name in OPPONENTS]
    return {"tokens": limit, "mean_tokens": mean_tokens, "n": len(puzzles), "searches": rows}


def place_lines(opponents: Mapping[str, Any], model: Mapping[str, Any]) -> list[str]:
    """What `opponents_of` returns, with the model's own result among it, as lines to print."""
    limit, mean = opponents["tokens"], opponents["mean_tokens"]
    rows = opponents["searches"]
    at_mean = [(row["search"], row["at_mean"]) for row in rows]
    at_limit = [(row["search"], row) for row in rows]
    return [
        f"searches with perfect arithmetic on {opponents['n']:,} of these problems "
        "(~: intervals overlap)",
        f"at {mean:.0f} tokens in the mean: {chain(at_mean, model)}",
        f"at {limit:,} tokens at most: {chain(at_limit, model)}",
    ]


def chain(points: list[tuple[str, dict[str, Any]]], model: Mapping[str, Any]) -> str:
    """The opponents and the model from the lowest solve rate to the highest, `<` where the
    intervals of two neighbours are apart; with the tokens of those that need fewer."""
    places: list[tuple[str, Mapping[str, Any]]] = [*points, ("this model", model)]
    places.sort(key=lambda place: place[1]["solve_rate"])
    text, top = "", None
    for name, row in places:
        low, high = row["interval"]
        if top is not None:
            text += " < " if low > top else " ~ "
        top = high
        text += f"{name} {row['solve_rate']:.3f} [{low:.3f}, {high:.3f}]"
        if row.get("uses_fewer"):
            text += f" with {row['mean_tokens']:.0f} tokens"
    return text
