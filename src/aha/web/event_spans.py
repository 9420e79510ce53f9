"""A completion as pieces of text with the events that the detector found, ready to be drawn.

Offsets never leave this room: a browser counts in other units than Python. Every kind of event has
a sign and a label beside its colour, for those who see no colours.
"""

from typing import NamedTuple

from aha.behaviors.detector import Behaviours, Mark, annotate, count_behaviours
from aha.behaviors.events import last_answer
from aha.behaviors.trends import summarise

MAX_NUMBERS = 12  # a puzzle of more is not one of ours, and the tables of numbers would explode


class Kind(NamedTuple):
    """How one kind of event is shown."""

    key: str
    sign: str
    label: str
    what: str  # the detector's words for it


KINDS = (
    Kind("true", "✓", "true check", "true check"),
    Kind("false", "✗", "false check", "false check"),
    Kind("root", "↺", "back to the start", "back to the start"),
    Kind("back", "↩", "back to an intermediate result", "back to an intermediate result"),
    Kind("on", "→", "goes on", "goes on from the last value"),
    Kind("goal", "◎", "subgoal", "subgoal"),
    Kind("got", "◉", "subgoal reached", "subgoal achieved"),
    Kind("chain", "⇠", "backward chaining", "backward chaining"),
    Kind("sum", "≠", "wrong arithmetic", "wrong arithmetic"),
    Kind("nowhere", "⊘", "illegal numbers", "numbers that lie together nowhere"),
    Kind("again", "⟲", "tried before", "an attempt made before"),
    Kind("solved", "★", "solution", "a solution"),
    Kind("right", "■", "right answer", ""),
    Kind("wrong", "□", "wrong answer", ""),
)
_BY_WHAT = {kind.what: kind.key for kind in KINDS if kind.what}
_STRANGE = {
    **{code: 0x2400 + code for code in range(32) if code not in (9, 10)},
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
    # Marks that turn the direction of writing can make a line read as what it is not.
    **dict.fromkeys((0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F)), 0xFFFD),
    **dict.fromkeys((*range(0x2066, 0x206A), *range(0xD800, 0xE000)), 0xFFFD),
}


def visible(text: str) -> str:
    """The text with control characters as signs that can be seen; as long as before."""
    return text.translate(_STRANGE)


def puzzle_of(row: dict) -> tuple[tuple[int, ...], int] | None:
    """The numbers and the target of a row; None where it holds no puzzle of arithmetic."""
    numbers, target = row.get("numbers"), row.get("target")
    if not isinstance(numbers, list) or not 0 < len(numbers) <= MAX_NUMBERS:
        return None
    if not all(type(n) is int and abs(n) < 10**9 for n in [*numbers, target]):
        return None
    return tuple(numbers), target


def text_of(row: dict) -> str:
    text = row.get("completion")
    return text if isinstance(text, str) else ""


def behaviours_of(row: dict) -> Behaviours | None:
    """What one completion does, counted; None where its task has no arithmetic."""
    puzzle = puzzle_of(row)
    return None if puzzle is None else count_behaviours(text_of(row), *puzzle)


def means_of(rows: list[dict]) -> dict[str, float]:
    """The behaviours of many completions, as in `trends.summarise`; empty where there are none."""
    found = [one for one in map(behaviours_of, rows) if one is not None]
    return summarise(found) if found else {}


def pieces_of(row: dict, limit: int) -> list[list]:
    """[text, keys of the events it is part of, keys of those that end with it], in order.

    At most `limit` characters are shown.
    """
    text = text_of(row)
    marks = _marks(text, row)
    shown = text[:limit]
    cuts = sorted({0, len(shown), *(c for m in marks for c in m[:2] if c < len(shown))})
    pieces, active, waiting = [], [], list(reversed(marks))
    for begin, end in zip(cuts, cuts[1:], strict=False):
        active = [mark for mark in active if mark.end > begin]
        while waiting and waiting[-1].start <= begin:
            active.append(waiting.pop())
        inside = list(dict.fromkeys(mark.what for mark in active))
        ending = list(dict.fromkeys(mark.what for mark in active if mark.end == end))
        pieces.append([visible(shown[begin:end]), inside, ending])
    return pieces


def _marks(text: str, row: dict) -> list[Mark]:
    """The detector's marks with our keys for their kinds, and the answer's verdict."""
    puzzle = puzzle_of(row)
    found = annotate(text, *puzzle) if puzzle else ()
    marks = [Mark(m.start, m.end, _BY_WHAT[m.what]) for m in found if m.what in _BY_WHAT]
    answer = last_answer(text)
    if answer is not None and answer.end > answer.start:
        marks.append(Mark(answer.start, answer.end, "right" if row.get("correct") else "wrong"))
    return sorted(mark for mark in marks if mark.end > mark.start)
