"""The turn of the way of search for every reader: its words, its columns, the puzzle that shows it.

Terminal, dashboard, report and `aha behaviors` take all three from here, so that they say the same.
"""

from typing import NamedTuple

from aha.behaviors.search_ways import LABELS
from aha.behaviors.turn import NoTurn, Turn, find_turn
from aha.behaviors.way_shares import PREFIX
from aha.store.guarded_files import number
from aha.web.curves import Curves
from aha.web.event_spans import Row, reading_of
from aha.web.run_comparison import Pair, PairedComparison

WAY_WORDS = {PREFIX + way: words for way, words in LABELS.items()}  # by the name of the column
SEARCH_COLUMNS = (
    *WAY_WORDS,
    *("first_attempt_rate", "attempts_per_solve", "tokens_per_solve"),
)


def turn_words(turn: Turn | NoTurn | None) -> str:
    """The one sentence about the turn; empty where no way of search was measured."""
    return "" if turn is None else turn.sentence()


def turn_of_curves(curves: Curves, running: bool) -> Row:
    """The turn for the dashboard: {"words", "step", tokens and seconds of training at the step}.

    Only the words where there is no turn, and no words while the run may still turn. From the
    metrics alone: of an older run, whose metrics have no ways of search, a page would have to read
    all completions. So nothing is said of a run that an older version began either.
    """
    rows = curves.rows_of(("step", "groups", *WAY_WORDS))
    if any(set(map(row.get, WAY_WORDS)) == {None} for row in rows):
        return {"words": ""}
    turn = find_turn(rows)
    if not isinstance(turn, Turn):
        return {"words": "" if running else turn_words(turn)}
    axes = {axis: column[0] for axis, column in curves.axes_at([turn.step]).items()}
    return {"words": turn_words(turn), "step": turn.step, **axes}


def way_of(row: Row) -> str | None:
    """The way in which a completion searches, as a key of LABELS; None without a puzzle."""
    reading = reading_of(row)
    return None if reading is None else reading.search.way


class TellingPair(NamedTuple):
    """The held-out puzzle that shows the turn, and the rule that has chosen it, in words."""

    pair: Pair | None
    rule: str


def telling_pair(paired: PairedComparison, turn: Turn) -> TellingPair:
    """The puzzle to show of those whose way of search changed as the turn says.

    Nobody's taste: of those that were wrong before and are right after (of all, where there are
    none), with no completion cut at the token limit, the one whose new completion has the middle
    length. None where the ways of no puzzle changed so.
    """
    changed = [
        (old, new)
        for old, new in paired.pairs
        if "length" not in (old.get("finish"), new.get("finish"))
        and way_of(old) == turn.before
        and way_of(new) == turn.way
    ]
    ways = f"“{LABELS[turn.before]}” before to “{LABELS[turn.way]}” after"
    if not changed:
        return TellingPair(None, f"No held-out puzzle was tested that went from {ways}.")
    learnt = [
        (old, new)
        for old, new in changed
        if old.get("correct") is not True and new.get("correct") is True
    ]
    shown = sorted(learnt or changed, key=lambda pair: number(pair[1].get("tokens")) or 0.0)
    verdicts = ", and from wrong to right" if learnt else ""
    rule = (
        f"{len(shown)} of {paired.problems} held-out puzzles went from {ways}{verdicts}, and ended "
        "within the token limit both times. Shown is the one whose new completion has the middle "
        "length of these: chosen by this rule, not by hand."
    )
    return TellingPair(shown[len(shown) // 2], rule)
