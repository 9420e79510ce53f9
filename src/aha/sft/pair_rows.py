"""The rows of a file of preference pairs, and pairs out of graded completions.

{"prompt": "...", "chosen": "...", "rejected": "..."}          texts, or messages as in TRL
{"chosen": [{"role": "user", ...}, ...], "rejected": [...]}    whole conversations
{"prompt": "...", "completion": "...", "correct": true, ...}   completions of ours: made into pairs
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from aha.core.errors import ModelError
from aha.model.tokenizer import Tokenizer
from aha.sft.example_rows import (
    NO_ANSWER,
    NO_TOKENS,
    UNREADABLE,
    UnusableRow,
    example_texts,
    lengths_of,
)
from aha.sft.examples import Example, PreferencePair, encoded_texts
from aha.tasks.files import UnreadableRow

EXPECTED = "JSON lines or Parquet with 'prompt', 'chosen' and 'rejected'"
SAME = "with two equal completions"
Row = dict[str, Any]
Sized = tuple[int, Row]  # the length of a completion, and its row


def encoded_pair(row: object, tokenizer: Tokenizer, limit: int) -> list[PreferencePair]:
    """The pair of a row. Raises `UnusableRow` where one of its completions cannot be used."""
    if isinstance(row, UnreadableRow):
        raise UnusableRow(UNREADABLE, row.reason)
    if not isinstance(row, dict):
        raise UnusableRow(UNREADABLE, f"{str(row)[:60]!r} is no object with columns")
    for side in ("chosen", "rejected"):
        if row.get(side) is None:
            columns = ", ".join(map(str, row))[:80] or "no columns"
            raise UnusableRow(NO_ANSWER, f"no {side}; it has {columns}")
    try:
        chosen, rejected = (side_of(row, side, tokenizer, limit) for side in ("chosen", "rejected"))
    except ModelError as error:
        raise UnusableRow(NO_TOKENS, error.got) from None
    if chosen.completion == rejected.completion:
        raise UnusableRow(SAME, "nothing to choose")
    if chosen.prompt != rejected.prompt:
        raise UnusableRow(UNREADABLE, "chosen and rejected follow different prompts")
    return [PreferencePair(chosen.prompt, chosen.completion, rejected.completion)]


def side_of(row: Mapping[str, Any], side: str, tokenizer: Tokenizer, limit: int) -> Example:
    """One completion of a pair, as an example would have it."""
    content, prompt = row[side], row.get("prompt")
    alone = isinstance(content, list) and prompt is None
    texts = example_texts(
        {"messages": content} if alone else {"prompt": prompt, "completion": content}
    )
    return list(encoded_texts(texts[-1:], tokenizer, limit))[0]


# -- pairs out of completions ---------------------------------------------------------------------


@dataclass(frozen=True)
class PairRules:
    """Which pairs are made of the completions of one prompt.

    `shorter`: the shortest right one is chosen over the longest right one, where it has at most
    `most` of its tokens. `right`: the shortest right one is chosen over a wrong one; Sky-T1-Flash
    takes the shortest wrong one, so that short is not always better.
    """

    shorter: bool = True
    right: bool = True
    most: float = 0.8


def pairs_of(rows: Iterable[Row], rules: PairRules) -> Iterator[tuple[str, Row | None]]:
    """(kind, pair or None) for the pairs of graded completions, prompt by prompt.

    Kinds with a pair are "shorter" and "right"; without one the kind says why a prompt, or a
    completion, gives none. Completions of the same prompt belong together whatever their file.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        reason = unfit(row)
        if reason:
            yield reason, None
            continue
        groups.setdefault(row["prompt"], []).append(row)
    for group in groups.values():
        unit, lengths = lengths_of(group)
        sized = sorted(zip(lengths, group, strict=True), key=lambda pair: pair[0])
        right = [pair for pair in sized if pair[1]["correct"]]
        wrong = [pair for pair in sized if not pair[1]["correct"]]
        if not right:
            yield "no right completion", None
            continue
        yield from pairs_of_group(right, wrong, rules, unit)


def pairs_of_group(
    right: list[Sized], wrong: list[Sized], rules: PairRules, unit: str
) -> Iterator[tuple[str, Row | None]]:
    """The pairs of one prompt, from its right and its wrong completions, shortest first."""
    made = False
    if rules.shorter and right[0][0] <= rules.most * right[-1][0]:
        yield "shorter", pair_row("shorter", right[0], right[-1], unit)
        made = True
    if rules.right and wrong:
        yield "right", pair_row("right", right[0], wrong[0], unit)
        made = True
    if not made:
        yield "nothing to choose", None


def unfit(row: Row) -> str:
    """Why a completion gives no pair; empty for one that does."""
    if not isinstance(row.get("prompt"), str) or not isinstance(row.get("completion"), str):
        return "no completion"
    if not isinstance(row.get("correct"), bool):
        return "no grade"
    if row.get("finish") == "length":
        return "truncated"
    return "" if row["completion"].strip() else "empty"


def pair_row(kind: str, chosen: Sized, rejected: Sized, unit: str) -> Row:
    """A pair as one row of its file, with the lengths of both sides in this unit."""
    (short, better), (long, worse) = chosen, rejected
    row: Row = {"prompt": better["prompt"], "chosen": better["completion"]}
    row |= {"rejected": worse["completion"], "kind": kind, "id": better.get("id")}
    return row | {unit: [short, long]}
