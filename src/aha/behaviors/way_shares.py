"""The ways of searching in many completions, as the columns of a step or of an evaluation."""

from collections.abc import Iterable
from typing import NamedTuple

from aha.behaviors.search_ways import NOT_WAYS, WAYS, Search

PREFIX = "way_"
WAY_COLUMNS = tuple(PREFIX + way for way in (*WAYS, *NOT_WAYS))
COLUMNS = (
    *WAY_COLUMNS,
    *("first_attempt_rate", "attempts_per_solve", "tokens_per_solve"),
    *("moves_in_order", "openings_back"),
    *("openings_passed", "openings_tried_once", "openings_tried_more"),
)


class Reading(NamedTuple):
    """A completion as it was read, whether its answer is right, and its length; None: unknown."""

    search: Search
    correct: bool | None = None
    tokens: int | None = None


def way_shares(many: Iterable[Reading]) -> dict[str, float]:
    """The columns for these completions; {} for none.

    - `way_<way>`: the share of the completions that search in this way; with `way_unclear` and
      `way_none` they sum to 1.
    - `first_attempt_rate`: the share whose first attempt with all numbers makes the target. Where
      no line uses up the numbers, the answer is that attempt.
    - `attempts_per_solve`, `tokens_per_solve`: attempts and tokens of all completions over the
      right answers, so that what is spent in vain counts too.
    - `moves_in_order` of all moves; `openings_back`: the share of the openings that are steps back;
      `openings_passed`, `openings_tried_once`, `openings_tried_more`: of the openings that count,
      see `Search`.

    A ratio that has no denominator is left out, and so are those of answers or tokens where one of
    the completions does not have its own.
    """
    rows = list(many)
    if not rows:
        return {}
    searches = [row.search for row in rows]
    ways = [search.way for search in searches]
    shares = {PREFIX + way: ways.count(way) / len(rows) for way in (*WAYS, *NOT_WAYS)}
    answers = [row.correct for row in rows if row.correct is not None]
    if len(answers) == len(rows):
        first = sum(
            correct if search.first_right is None else search.first_right
            for search, correct in zip(searches, answers, strict=True)
        )
        shares["first_attempt_rate"] = first / len(rows)
    tokens = [row.tokens for row in rows if row.tokens is not None]
    if len(answers) == len(rows) and any(answers):
        shares["attempts_per_solve"] = sum(s.attempts for s in searches) / sum(answers)
        if len(tokens) == len(rows):
            shares["tokens_per_solve"] = sum(tokens) / sum(answers)
    moves, openings = sum(s.moves for s in searches), sum(s.openings for s in searches)
    passed, once, more = (
        sum(counts) for counts in zip(*((s.passed, s.once, s.more) for s in searches), strict=True)
    )
    if moves:
        shares["moves_in_order"] = sum(s.moves_in_order for s in searches) / moves
    if openings:
        shares["openings_back"] = sum(s.steps_back for s in searches) / openings
    if counted := passed + once + more:
        shares["openings_passed"] = passed / counted
        shares["openings_tried_once"] = once / counted
        shares["openings_tried_more"] = more / counted
    return shares
