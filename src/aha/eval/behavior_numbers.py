"""Behaviours and ways of searching in graded completions, as the numbers of an evaluation."""

from collections.abc import Iterable

from aha.behaviors.detector import count_behaviours
from aha.behaviors.search_ways import read_search
from aha.behaviors.trends import summarise
from aha.behaviors.way_shares import Reading, way_shares
from aha.core.records import Completion, Graded


def completion_of(graded: Graded) -> Completion:
    """The completion that was graded."""
    assert graded.completion is not None, "`Graded.of` ties a grade to its completion"
    return graded.completion


def behaviors_of(graded: list[Graded]) -> dict[str, float]:
    """The behaviours in the completions, as means, and the shares of the ways of searching; empty
    where the task has no arithmetic."""
    counts = []
    for completion in map(completion_of, graded):
        given = completion.prompt.problem.given
        if {"numbers", "target"} <= given.keys():
            counts.append(count_behaviours(completion.text, given["numbers"], given["target"]))
    return summarise(counts) | ways_of(graded) if counts else {}


def ways_of(graded: Iterable[Graded]) -> dict[str, float]:
    """The ways of searching, as `way_shares` names them; empty where the task has no arithmetic."""
    readings = []
    for row in graded:
        completion = completion_of(row)
        given = completion.prompt.problem.given
        if {"numbers", "target"} <= given.keys():
            search = read_search(completion.text, given["numbers"], given["target"])
            readings.append(Reading(search, row.correct, len(completion.tokens)))
    return way_shares(readings)
