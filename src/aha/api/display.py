"""A run as HTML for notebooks: its curves as inline SVG, what it solved, and some completions.

No script and no outside file. What a model or a file wrote is only ever text. The colours can be
read on a light and on a dark page: letters and lines take those of the notebook.
"""

import sys
import time
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from aha.core.control_characters import visible
from aha.eval.telling import telling_places
from aha.store.guarded_files import number
from aha.web.svg_curves import Figure, Line, Point

Row = dict[str, Any]
Publish = Callable[[str], None]
CURVE_POINTS, SHOWN_CHARS, TITLE_CHARS = 200, 2_000, 80
UPDATE_SECONDS = 1.0
STYLE = """<style>
.aha-run{font:14px system-ui,sans-serif;max-width:800px}
.aha-run .figures{display:flex;flex-wrap:wrap;gap:12px}
.aha-run figure{flex:1 1 300px;max-width:390px;margin:6px 0}
.aha-run svg{width:100%;height:auto;display:block}
.aha-run svg text{font:10px system-ui,sans-serif;fill:currentColor}
.aha-run .end{text-anchor:end}.aha-run .mid{text-anchor:middle}
.aha-run .grid{stroke:currentColor;stroke-opacity:.2}
.aha-run .curve{fill:none;stroke:#3b82b6;stroke-width:1.9;stroke-linecap:round}
.aha-run .interval{stroke:#d9702a;stroke-width:1.8}.aha-run .diamond{fill:#d9702a}
.aha-run pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:4px 0 8px 16px}
</style>"""


def run_html(
    title: str,
    rows: Sequence[Row],
    tests: Sequence[tuple[float, Row]] = (),
    lines: Sequence[str] = (),
    completions: Sequence[Row] = (),
) -> str:
    """The HTML of a run.

    `rows` are those of metrics.jsonl, `tests` held-out results with the step that each belongs to,
    `lines` sentences below the title, `completions` those that are shown.
    """
    figures = [figure for figure in figures_of_rows(rows, tests) if not figure.empty]
    parts = [STYLE, f'<div class="aha-run"><b>{shown_text(title)}</b>']
    parts += [f"<div>{shown_text(line)}</div>" for line in lines]
    if figures:
        drawn = (
            f"<figure><figcaption>{escape(f.title)}{f' ({escape(f.note)})' if f.note else ''}"
            f"</figcaption>{f.svg()}</figure>"
            for f in figures
        )
        parts.append(f'<div class="figures">{"".join(drawn)}</div>')
    parts += map(completion_html, completions)
    return "".join([*parts, "</div>"])


def figures_of_rows(rows: Sequence[Row], tests: Sequence[tuple[float, Row]]) -> list[Figure]:
    """The solve rate with the held-out tests; the reward, where it says something else."""
    thinned = rows[:: max(1, len(rows) // CURVE_POINTS)]
    if rows and thinned[-1] is not rows[-1]:
        thinned = [*thinned, rows[-1]]
    steps = [number(row.get("step")) for row in thinned]
    rates = [number(row.get("solve_rate")) for row in thinned]
    rewards = [number(row.get("reward")) for row in thinned]
    points = []
    for step, row in tests:
        rate, ends = number(row.get("solve_rate")), row.get("interval")
        if rate is not None and isinstance(ends, list) and len(ends) == 2:
            points.append(Point(step, rate, *map(float, ends)))
    solved = Line("training", steps, rates)
    note = "diamonds: held-out, 95 % intervals" if points else ""
    figures = [Figure("Solve rate", [solved], points, rate=True, note=note)]
    if rewards != rates:
        figures.append(Figure("Reward", [Line("training", steps, rewards)]))
    return figures


def completion_html(row: Row) -> str:
    """One completion, folded: reward and prompt in the title, its text inside."""
    reward, text = number(row.get("reward")), str(row.get("completion", ""))
    paid = "–" if reward is None else f"{reward:g}"
    prompt = " ".join(str(row.get("prompt", "")).split())
    cut = f"{prompt[:TITLE_CHARS]} ..." if len(prompt) > TITLE_CHARS else prompt
    body = text if len(text) <= SHOWN_CHARS else f"{text[:SHOWN_CHARS]}\n... (shortened)"
    reason = str(row.get("reason", ""))[:300]
    return (
        f"<details><summary>reward {paid}: {shown_text(cut)}</summary>"
        f"<pre>{shown_text(body)}</pre><div>{shown_text(reason)}</div></details>"
    )


def shown_text(text: str) -> str:
    """A text of others for a page: escaped, its control characters as pictures."""
    return escape(visible(text))


def telling_completions(rows: Sequence[Row]) -> list[Row]:
    """The best, the median and the worst of some completions by their reward; of equal ones the
    first."""
    rewards = [number(row.get("reward")) or 0.0 for row in rows]
    order = sorted(range(len(rows)), key=lambda place: -rewards[place])
    return [rows[place] for place in telling_places(order).values()]


def notebook_publisher() -> Publish | None:
    """A function that shows HTML in place of what it has shown before; None outside of a notebook.

    A terminal of IPython is no notebook: it shows no HTML.
    """
    module: Any = sys.modules.get("IPython")
    shell = module.get_ipython() if module else None
    if shell is None or not hasattr(shell, "kernel"):
        return None
    from IPython.display import HTML, display

    handle = display(HTML(""), display_id=True)
    return lambda html: handle.update(HTML(html))


class LiveRun:
    """A run that is being trained, for a notebook: a new picture at most once a second."""

    def __init__(self, title: str, publish: Publish):
        self.title, self.publish = title, publish
        self.rows: list[Row] = []
        self.tests: list[tuple[float, Row]] = []
        self.completions: list[Row] = []
        self.line, self.next_s = "", 0.0

    def show(self, line: str, now: bool = False) -> None:
        """Show everything with this line, or only remember it where the last picture is new."""
        self.line = line or self.line
        clock = time.monotonic()
        if now or clock >= self.next_s:
            self.next_s = clock + UPDATE_SECONDS
            html = run_html(self.title, self.rows, self.tests, [self.line], self.completions)
            self.publish(html)

    def step(self, row: Row, line: str) -> None:
        """After a step."""
        self.rows.append(row)
        self.show(line, now=len(self.rows) == 1)
