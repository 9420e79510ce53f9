"""A completion for the pages: its text in pieces with their events, and its values by token.

Pieces of text are sent instead of offsets, because JavaScript counts UTF-16 units and Python code
points. Every kind of event has a sign and a label as well as a colour, for readers who do not see
the colours.
"""

from typing import Any, NamedTuple

from aha.behaviors.detector import Behaviours, Mark, annotate, count_behaviours
from aha.behaviors.events import last_answer
from aha.behaviors.search_ways import read_search
from aha.behaviors.trends import summarise
from aha.behaviors.way_shares import Reading, way_shares
from aha.core.control_characters import visible
from aha.store.guarded_files import number

MAX_CHARS = 200_000  # that the detector reads of a completion: about a tenth of a second
MAX_NUMBERS = 12  # the detector's tables grow exponentially with the numbers of a puzzle

Row = dict[str, Any]  # one line of a JSON-lines file, as it was read: any key may be missing


# -- events ---------------------------------------------------------------------------------------


class EventKind(NamedTuple):
    """How one kind of event is displayed."""

    key: str  # its CSS class and its key in the dashboard's JSON
    sign: str
    label: str
    detector_label: str  # its name in the detector; empty if it is not from the detector


EVENT_KINDS = (
    EventKind("true-check", "✓", "true check", "true check"),
    EventKind("false-check", "✗", "false check", "false check"),
    EventKind("back-to-start", "↺", "back to the start", "back to the start"),
    EventKind(
        *("back-to-intermediate", "↩"),
        *("back to an intermediate result", "back to an intermediate result"),
    ),
    EventKind("continuation", "→", "goes on", "goes on from the last value"),
    EventKind("subgoal", "◎", "subgoal", "subgoal"),
    EventKind("subgoal-reached", "◉", "subgoal reached", "subgoal achieved"),
    EventKind("backward-chaining", "⇠", "backward chaining", "backward chaining"),
    EventKind("wrong-arithmetic", "≠", "wrong arithmetic", "wrong arithmetic"),
    EventKind(*("illegal-numbers", "⊘"), *("illegal numbers", "numbers that are on no table")),
    EventKind("repeat", "⟲", "tried before", "an attempt made before"),
    EventKind("solution", "★", "solution", "a solution"),
    EventKind("right-answer", "■", "right answer", ""),
    EventKind("wrong-answer", "□", "wrong answer", ""),
)
_KEY_OF_LABEL = {kind.detector_label: kind.key for kind in EVENT_KINDS if kind.detector_label}


def puzzle_of(row: Row) -> tuple[tuple[int, ...], int] | None:
    """(numbers, target) of a row; None if it is not a puzzle with numbers and a target."""
    numbers, target = row.get("numbers"), row.get("target")
    if not isinstance(numbers, list) or not 0 < len(numbers) <= MAX_NUMBERS:
        return None
    if type(target) is not int:
        return None
    if not all(type(n) is int and abs(n) < 10**9 for n in [*numbers, target]):
        return None
    return tuple(numbers), target


def text_of(row: Row) -> str:
    """The completion's text; empty where the row has none."""
    text = row.get("completion")
    return text if isinstance(text, str) else ""


def behaviours_of(row: Row) -> Behaviours | None:
    """The detector's counts for one completion; None if it is not of a puzzle."""
    puzzle = puzzle_of(row)
    return None if puzzle is None else count_behaviours(text_of(row)[:MAX_CHARS], *puzzle)


def mean_behaviours(rows: list[Row]) -> dict[str, float]:
    """Means over completions, as `trends.summarise` names them, and the shares of the ways of
    searching; {} if no row has a puzzle."""
    counts = [behaviours for behaviours in map(behaviours_of, rows) if behaviours is not None]
    return summarise(counts) | ways_of_rows(rows) if counts else {}


def ways_of_rows(rows: list[Row]) -> dict[str, float]:
    """The ways of searching, as `way_shares` names them; {} if no row has a puzzle."""
    return way_shares(reading for reading in map(reading_of, rows) if reading is not None)


def reading_of(row: Row) -> Reading | None:
    """The way in which one completion searches; None if it is not of a puzzle."""
    puzzle = puzzle_of(row)
    if puzzle is None:
        return None
    correct, tokens = row.get("correct"), row.get("tokens")
    return Reading(
        read_search(text_of(row)[:MAX_CHARS], *puzzle),
        correct if isinstance(correct, bool) else None,
        tokens if type(tokens) is int and tokens >= 0 else None,
    )


def text_pieces(row: Row, limit: int) -> list[list[Any]]:
    """The first `limit` characters, cut wherever an event begins or ends.

    Each piece is [text, keys of the events that cover it, keys of the events that end with it];
    keys are those of EVENT_KINDS.
    """
    text = text_of(row)
    spans = _event_spans(text, row)
    shown = text[:limit]
    cuts = sorted({0, len(shown), *(c for s in spans for c in s[:2] if c < len(shown))})
    pieces: list[list[Any]] = []
    active: list[Mark] = []
    pending = list(reversed(spans))
    for begin, end in zip(cuts, cuts[1:], strict=False):
        active = [span for span in active if span.end > begin]
        while pending and pending[-1].start <= begin:
            active.append(pending.pop())
        covering = list(dict.fromkeys(span.what for span in active))
        ending = list(dict.fromkeys(span.what for span in active if span.end == end))
        pieces.append([visible(shown[begin:end]), covering, ending])
    return pieces


def _event_spans(text: str, row: Row) -> list[Mark]:
    """The detector's spans with our keys as their kinds, and the span of the answer."""
    puzzle = puzzle_of(row)
    detected = annotate(text[:MAX_CHARS], *puzzle) if puzzle else ()
    spans = [
        Mark(span.start, span.end, _KEY_OF_LABEL[span.what])
        for span in detected
        if span.what in _KEY_OF_LABEL
    ]
    answer = last_answer(text)
    if answer is not None and answer.end > answer.start:
        key = "right-answer" if row.get("correct") else "wrong-answer"
        spans.append(Mark(answer.start, answer.end, key))
    return sorted(span for span in spans if span.end > span.start)


MAX_TOKENS = 4_000
DARKER = "The taller and darker, the"
MEASURES = (  # name, label, explanation
    ("logprobs", "log-prob", f"{DARKER} less likely the token was (−log-prob in nats)."),
    ("entropies", "entropy", f"{DARKER} higher the policy's entropy at this token (nats)."),
    (
        "advantages",
        "advantage",
        f"▲ the update makes the token more likely, ▼ less likely. {DARKER} more.",
    ),
)
NOT_RECORDED = (
    "No tokens were recorded for this completion: a run keeps those of a few groups of each step "
    "(token_groups), and runs made before Aha recorded tokens have none."
)
MISSING = {
    "logprobs": "the log-probs were not recorded",
    "entropies": "the entropies were not recorded",
    "advantages": "no advantage: only the steps of a training have one",
}


def has_tokens(row: Row) -> bool:
    """Whether the run recorded this completion token by token."""
    return isinstance(row.get("pieces"), list) and bool(row["pieces"])


def token_values(row: Row) -> Row:
    """The tokens of a completion for the page.

    {pieces: texts of at most MAX_TOKENS tokens, logprobs, entropies, advantages: a number or null
    for each token (null for a measure that was not recorded), measures: [name, label, explanation]
    of those that were, missing: sentences, hidden: number of tokens that were left out}.
    """
    if not has_tokens(row):
        return {"pieces": [], "missing": [NOT_RECORDED], "hidden": 0, **dict.fromkeys(MISSING)}
    pieces = [visible(piece) if isinstance(piece, str) else "?" for piece in row["pieces"]]
    columns = {name: _column(row.get(name), len(pieces)) for name in MISSING}
    advantage = number(row.get("advantage"))
    if columns["advantages"] is None and advantage is not None:
        # Without a critic all tokens of a completion have the completion's advantage.
        columns["advantages"] = [advantage] * min(len(pieces), MAX_TOKENS)
    return {
        "pieces": pieces[:MAX_TOKENS],
        **columns,
        "measures": [measure for measure in MEASURES if columns[measure[0]] is not None],
        "missing": [words for name, words in MISSING.items() if columns[name] is None],
        "hidden": max(0, len(pieces) - MAX_TOKENS),
    }


def _column(values: object, count: int) -> list[float | None] | None:
    """One number for each token; None where there is no list, or one of another length."""
    if not isinstance(values, list) or len(values) != count:
        return None
    return [number(value) for value in values[:MAX_TOKENS]]
