"""The model among searches without one, as a table of the report; read from summary.json."""

from aha.store.guarded_files import number
from aha.web.event_spans import Row
from aha.web.runs import clipped, rate_of, rate_text, section

THIS_MODEL = "this model"
MOST_ROWS = 20  # a damaged file may have any number


def opponents_table(summary: Row) -> Row | None:
    """{mean, limit, n, lines}, all as text, the lines from the lowest solve rate at equal mean to
    the highest. None where the summary has no comparison, or a damaged one."""
    opponents = section(summary, "opponents")
    rows, model = opponents.get("searches"), section(summary, "after")
    heads = {key: number(opponents.get(key)) for key in ("mean_tokens", "tokens", "n")}
    if not isinstance(rows, list) or None in heads.values() or rate_of(model) is None:
        return None
    lines = [line_of(THIS_MODEL, model, model)]
    for row in rows[:MOST_ROWS]:
        if isinstance(row, dict):
            lines.append(line_of(clipped(row.get("search", "?")), row, section(row, "at_mean")))
    lines.sort(key=lambda line: line["rate"])
    texts = {key: f"{value:,.0f}" for key, value in heads.items()}
    return {"mean": texts["mean_tokens"], "limit": texts["tokens"], "n": texts["n"], "lines": lines}


def line_of(name: str, at_limit: Row, at_mean: Row) -> Row:
    """One line of the table; `rate` is the solve rate that it is sorted by, -1 without one."""
    rate = rate_of(at_mean)
    return {
        "name": name,
        "rate": rate["solve_rate"] if rate else -1.0,
        "at_mean": rate_text(rate, "–"),
        "mean_used": used(at_mean),
        "at_limit": rate_text(rate_of(at_limit), "–"),
        "limit_used": used(at_limit),
    }


def used(row: Row) -> str:
    """The mean number of tokens, as text."""
    tokens = number(row.get("mean_tokens"))
    return "–" if tokens is None else f"{tokens:.0f}"
