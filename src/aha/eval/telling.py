"""Which of several completions tell most: the best, the median and the worst."""

from collections.abc import Sequence


def telling_places(order: Sequence[int]) -> dict[str, int]:
    """{best, median, worst: place} of completions whose places are in order, the best first.

    Each place once: of two the best and the worst, of one the best, of none nothing.
    """
    if not order:
        return {}
    places = {"best": order[0], "median": order[len(order) // 2], "worst": order[-1]}
    if len(order) < 3:
        del places["median"]
    if len(order) == 1:
        del places["worst"]
    return places
