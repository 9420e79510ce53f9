"""Curves as inline SVG: no script, no font, no external file; the page's CSS has the colours."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from math import floor, log10

WIDTH, HEIGHT = 360, 190
DOT = "h0"  # a line without length: the round end of a stroke makes a dot of a lone point
LEFT, RIGHT, TOP, BOTTOM = 44, 16, 14, 24  # the last figure is centred below its place
MARK_WIDTH = 70  # room that the words at a turn need to one side of it


@dataclass(frozen=True)
class Line:
    """One curve; a value of None is a gap in it. `intervals`: (low, high) around every value, drawn
    as a band; empty for none."""

    label: str
    xs: Sequence[float | None]
    ys: Sequence[float | None]
    intervals: Sequence[tuple[float, float] | None] = ()


@dataclass(frozen=True)
class Point:
    """A measurement with its interval, drawn as a diamond on a vertical line."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """Some lines on common axes; a `rate` is from 0 to 1, with an axis in per cent.

    `turn`: the step at which the way of search turns, marked by an upright line; None for none.
    `names`: what to write below these places of the horizontal axis, in place of round numbers.
    """

    title: str
    lines: list[Line]
    points: list[Point] = field(default_factory=list)
    rate: bool = False
    note: str = ""
    turn: int | None = None
    names: Mapping[float, str] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to draw."""
        return not self.points and not any(_known(line) for line in self.lines)

    def svg(self) -> str:
        """The figure as an <svg> element; its aria-label has each line's first and last value."""
        xs = [x for line in self.lines for x, _ in _known(line)] + [p.x for p in self.points]
        ys = [y for line in self.lines for _, y in _known(line)]
        ys += [end for p in self.points for end in (p.low, p.high)]
        ys += [end for line in self.lines for ends in line.intervals if ends for end in ends]
        names = self.names or {
            x: short(x) for x in ticks(min(xs, default=0), max(xs, default=1), 5)
        }
        ticks_y = [0, 0.25, 0.5, 0.75, 1.0] if self.rate else ticks(min(0, *ys, 0), max(ys), 4)
        low_x, high_x = min([*xs, 0]), max(xs, default=1) or 1
        low_y, high_y = ticks_y[0], max(ticks_y[-1], *ys, 1e-12)

        def position(x: float, y: float) -> tuple[float, float]:
            right = (x - low_x) / ((high_x - low_x) or 1)
            up = (y - low_y) / ((high_y - low_y) or 1)
            return (
                round(LEFT + right * (WIDTH - LEFT - RIGHT), 1),
                round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
            )

        label = escape(self.description())
        parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">']
        for y in ticks_y:
            height = position(low_x, y)[1]
            shown = f"{100 * y:.0f} %" if self.rate else short(y)
            parts.append(f'<path class="grid" d="M{LEFT} {height}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text x="{LEFT - 5}" y="{height + 3.5}" class="end">{shown}</text>')
        for x in (x for x in names if low_x <= x <= high_x):
            across, name = position(x, 0)[0], escape(names[x])
            parts.append(f'<text x="{across}" y="{HEIGHT - 7}" class="mid">{name}</text>')
        if self.turn is not None and low_x <= self.turn <= high_x:
            parts.append(_turn_mark(self.turn, position(self.turn, low_y)[0]))
        for number, line in enumerate(self.lines):
            if band := _band(line, position):
                parts.append(f'<path class="band b{number}" d="{band}"/>')
        for number, line in enumerate(self.lines):
            path = "".join(
                "M" + " ".join(f"{x} {y}" for x, y in (position(*pair) for pair in part)) + DOT
                for part in _parts(line)
            )
            if path:
                parts.append(f'<path class="curve s{number}" d="{path}"/>')
        for p in self.points:
            x, y = position(p.x, p.y)
            low, high = (position(p.x, end)[1] for end in (p.low, p.high))
            diamond = f"M{x} {y - 4.5}L{x + 4.5} {y}L{x} {y + 4.5}L{x - 4.5} {y}Z"
            parts.append(f'<path class="interval" d="M{x} {low}V{high}"/>')
            parts.append(f'<path class="interval diamond" d="{diamond}"/>')
        return "".join([*parts, "</svg>"])

    def description(self) -> str:
        """The title, and the first and last value of every line."""
        ends = []
        for line in self.lines:
            if known := _known(line):
                form = (lambda v: f"{v:.0%}") if self.rate else short
                ends.append(f"{line.label} from {form(known[0][1])} to {form(known[-1][1])}")
        turn = "" if self.turn is None else f"; turn at step {self.turn}"
        return f"{self.title}: {'; '.join(ends) or 'no numbers'}{turn}"


def _turn_mark(step: int, across: float) -> str:
    """An upright line over the height of the plot, with its words above."""
    before, after = across - LEFT, WIDTH - RIGHT - across
    side = "end" if after < MARK_WIDTH else "" if before < MARK_WIDTH else "mid"
    words = f'<text x="{across}" y="{TOP - 4}" class="{side}">turn, step {step}</text>'
    return f'<path class="turn" d="M{across} {TOP}V{HEIGHT - BOTTOM}"/>{words}'


def _band(line: Line, position: Callable[[float, float], tuple[float, float]]) -> str:
    """The outline of a line's intervals, there along their upper ends and back along the lower
    ones; a part for each run of values that have one."""
    runs: list[list[tuple[float, tuple[float, float]]]] = [[]]
    for x, y, ends in zip(line.xs, line.ys, line.intervals, strict=bool(line.intervals)):
        if x is not None and y is not None and ends is not None:
            runs[-1].append((x, ends))
        elif runs[-1]:
            runs.append([])
    outline = ""
    for run in runs:
        there = [position(x, high) for x, (_, high) in run]
        back = [position(x, low) for x, (low, _) in reversed(run)]
        if len(run) > 1:
            outline += "M" + "L".join(f"{x} {y}" for x, y in there + back) + "Z"
    return outline


def _known(line: Line) -> list[tuple[float, float]]:
    pairs = zip(line.xs, line.ys, strict=True)
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _parts(line: Line) -> list[list[tuple[float, float]]]:
    """The points of the line, a list for each part between two gaps."""
    parts: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(line.xs, line.ys, strict=True):
        if x is not None and y is not None:
            parts[-1].append((x, y))
        elif parts[-1]:
            parts.append([])
    return [part for part in parts if part]


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about `count` of them."""
    if high - low < 1e-300:  # a step between them would underflow
        high = low + (abs(low) if abs(low) > 1e-299 else 1)
    rough = (high - low) / max(1, count - 1)
    power = 10 ** floor(log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first = floor(low / step + 1e-9)
    values = [first * step]
    while values[-1] < high - 1e-9 * step:
        values.append((first + len(values)) * step)
    return values


def short(value: float) -> str:
    """A number for an axis or a table: three digits, thousands as k."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value / 1000:.0f}k"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
