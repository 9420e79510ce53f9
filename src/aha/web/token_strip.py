"""A completion token by token, where the run has recorded it: log-prob, entropy, advantage.

A run records a group or so of each step (`token_groups`), older ones none. What is missing or does
not fit together is said in words, for the page to show.
"""

from aha.web.event_spans import visible
from aha.web.file_reader import number

MOST_TOKENS = 4_000
MEASURES = ("logprobs", "entropies", "advantages")
NONE_KEPT = (
    "No tokens were recorded for this completion: a run keeps those of a few groups of each step "
    "(token_groups), and runs made before Aha recorded tokens have none."
)
MISSING = {
    "logprobs": "the log-probs were not recorded",
    "entropies": "the entropies were not recorded",
    "advantages": "no advantage: only the steps of a training have one",
}


def has_strip(row: dict) -> bool:
    return isinstance(row.get("pieces"), list) and bool(row["pieces"])


def strip_of(row: dict) -> dict:
    """{pieces, a column for each measure or None, missing: sentences, hidden: tokens left out}."""
    if not has_strip(row):
        return {"pieces": [], "missing": [NONE_KEPT], "hidden": 0, **dict.fromkeys(MEASURES)}
    pieces = [visible(one) if isinstance(one, str) else "?" for one in row["pieces"]]
    columns = {name: _column(row.get(name), len(pieces)) for name in MEASURES}
    credit = number(row.get("advantage"))
    if columns["advantages"] is None and credit is not None:
        # Without a critic all tokens of a completion share what it got.
        columns["advantages"] = [credit] * min(len(pieces), MOST_TOKENS)
    return {
        "pieces": pieces[:MOST_TOKENS],
        **columns,
        "missing": [MISSING[name] for name in MEASURES if columns[name] is None],
        "hidden": max(0, len(pieces) - MOST_TOKENS),
    }


def _column(values: object, count: int) -> list[float | None] | None:
    """One number for each token; None where there is no list, or one of another length."""
    if not isinstance(values, list) or len(values) != count:
        return None
    return [number(value) for value in values[:MOST_TOKENS]]
