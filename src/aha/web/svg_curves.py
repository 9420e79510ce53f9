"""Curves as inline SVG: no script, no font, nothing from elsewhere; colours come from the page."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from math import floor, log10

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 10, 24


@dataclass(frozen=True)
class Line:
    """One curve; a gap where the value is None."""

    label: str
    xs: Sequence[float]
    ys: Sequence[float | None]


@dataclass(frozen=True)
class Point:
    """A measurement with its interval."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Figure:
    """A titled picture of a few lines; `rate` runs from 0 to 1 and is shown in per cent."""

    title: str
    lines: list[Line]
    points: list[Point] = field(default_factory=list)
    rate: bool = False
    note: str = ""

    @property
    def empty(self) -> bool:
        return not self.points and not any(_known(line) for line in self.lines)

    def svg(self) -> str:
        """The picture; a screen reader hears the first and the last value of every line."""
        xs = [x for line in self.lines for x, _ in _known(line)] + [p.x for p in self.points]
        ys = [y for line in self.lines for _, y in _known(line)]
        ys += [end for p in self.points for end in (p.low, p.high)]
        ticks_x = ticks(min(xs, default=0), max(xs, default=1), 5)
        ticks_y = [0, 0.25, 0.5, 0.75, 1.0] if self.rate else ticks(min(0, *ys, 0), max(ys), 4)
        low_x, high_x = min([*xs, 0]), max(xs, default=1) or 1
        low_y, high_y = ticks_y[0], max(ticks_y[-1], *ys, 1e-12)

        def at(x: float, y: float) -> tuple[float, float]:
            across = (x - low_x) / ((high_x - low_x) or 1)
            up = (y - low_y) / ((high_y - low_y) or 1)
            return (
                round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
                round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
            )

        parts = [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.spoken())}">'
        ]
        for y in ticks_y:
            height = at(low_x, y)[1]
            shown = f"{100 * y:.0f} %" if self.rate else short(y)
            parts.append(f'<path class="grid" d="M{LEFT} {height}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text x="{LEFT - 5}" y="{height + 3.5}" class="end">{shown}</text>')
        for x in ticks_x:
            parts.append(f'<text x="{at(x, 0)[0]}" y="{HEIGHT - 7}" class="mid">{short(x)}</text>')
        for place, line in enumerate(self.lines):
            path = " ".join(f"{x} {y}" for x, y in (at(*pair) for pair in _known(line)))
            if path:
                parts.append(f'<path class="curve s{place}" d="M{path}"/>')
        for p in self.points:
            (x, y), (_, low), (_, high) = at(p.x, p.y), at(p.x, p.low), at(p.x, p.high)
            diamond = f"M{x} {y - 4.5}L{x + 4.5} {y}L{x} {y + 4.5}L{x - 4.5} {y}Z"
            parts.append(f'<path class="test" d="M{x} {low}V{high}"/>')
            parts.append(f'<path class="test full" d="{diamond}"/>')
        return "".join([*parts, "</svg>"])

    def spoken(self) -> str:
        ends = []
        for line in self.lines:
            if known := _known(line):
                form = (lambda v: f"{v:.0%}") if self.rate else short
                ends.append(f"{line.label} from {form(known[0][1])} to {form(known[-1][1])}")
        return f"{self.title}: {'; '.join(ends) or 'no numbers'}"


def _known(line: Line) -> list[tuple[float, float]]:
    pairs = zip(line.xs, line.ys, strict=True)
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from at most `low` to at least `high`, about `count` of them."""
    if high <= low:
        high = low + (abs(low) or 1)
    rough = (high - low) / max(1, count - 1)
    power = 10 ** floor(log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * 0.999)
    first = floor(low / step + 1e-9)
    found = [first * step]
    while found[-1] < high - 1e-9 * step:
        found.append((first + len(found)) * step)
    return found


def short(value: float) -> str:
    """A number for an axis or a table: three digits, thousands as k."""
    if value == 0:
        return "0"
    if abs(value) >= 10_000:
        return f"{value / 1000:.0f}k"
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}"
