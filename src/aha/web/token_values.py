"""Log-prob, entropy and advantage of each token of a completion, where the run recorded them.

A run records a few groups of each step (the setting `token_groups`), older runs none. What is
missing or has the wrong length is reported as a sentence that the page displays.
"""

from aha.web.event_spans import Row, visible
from aha.web.file_reader import number

MAX_TOKENS = 4_000
MEASURES = ("logprobs", "entropies", "advantages")
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
    for each token (null for a measure that was not recorded), missing: sentences, hidden: number of
    tokens that were left out}.
    """
    if not has_tokens(row):
        return {"pieces": [], "missing": [NOT_RECORDED], "hidden": 0, **dict.fromkeys(MEASURES)}
    pieces = [visible(piece) if isinstance(piece, str) else "?" for piece in row["pieces"]]
    columns = {name: _column(row.get(name), len(pieces)) for name in MEASURES}
    advantage = number(row.get("advantage"))
    if columns["advantages"] is None and advantage is not None:
        # Without a critic all tokens of a completion have the completion's advantage.
        columns["advantages"] = [advantage] * min(len(pieces), MAX_TOKENS)
    return {
        "pieces": pieces[:MAX_TOKENS],
        **columns,
        "missing": [MISSING[name] for name in MEASURES if columns[name] is None],
        "hidden": max(0, len(pieces) - MAX_TOKENS),
    }


def _column(values: object, count: int) -> list[float | None] | None:
    """One number for each token; None where there is no list, or one of another length."""
    if not isinstance(values, list) or len(values) != count:
        return None
    return [number(value) for value in values[:MAX_TOKENS]]
