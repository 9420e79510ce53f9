"""Pairs of a file, and pairs out of graded completions."""

import pytest

from aha.sft.example_rows import UnusableRow
from aha.sft.pair_rows import PairRules, encoded_pair, pairs_of

from ..tiny import TOKENIZER

STOP = TOKENIZER.stop_ids[0]


def row(prompt: str, text: str, correct: bool, tokens: int, **more) -> dict:
    return {"prompt": prompt, "completion": text, "correct": correct, "tokens": tokens} | more


def made(rows: list[dict], **rules) -> tuple[list[dict], list[str]]:
    results = list(pairs_of(rows, PairRules(**rules)))
    return [pair for _, pair in results if pair], [kind for kind, pair in results if not pair]


GROUP = [
    row("p", "long and right", True, 30),
    row("p", "right", True, 10),
    row("p", "wrong", False, 8),
    row("p", "wrong and long", False, 50),
]


def test_the_shortest_right_one_is_chosen_over_the_longest_and_over_a_short_wrong_one():
    pairs, none = made(GROUP)
    assert [(p["chosen"], p["rejected"], p["kind"]) for p in pairs] == [
        ("right", "long and right", "shorter"),
        ("right", "wrong", "right"),
    ]
    assert none == [] and pairs[0]["tokens"] == [10, 30]


def test_tokens_and_characters_are_not_compared():
    """Of one completion nobody has counted tokens: 4 tokens are not shorter than 5 characters."""
    rows = [row("p", "a longer one", True, 4), row("p", "short", True, 0) | {"tokens": None}]
    (pair,), _ = made(rows, right=False)
    assert (pair["chosen"], pair["characters"]) == ("short", [5, 12]) and "tokens" not in pair


def test_what_gives_no_pair_is_counted():
    rows = [
        row("a", "wrong", False, 3),
        row("b", "right", True, 10),
        row("b", "hardly longer", True, 11),
        row("c", "cut", True, 5, finish="length"),
        row("d", " ", True, 1),
        {"prompt": "e", "completion": "f"},
        {"prompt": "g"},
    ]
    pairs, none = made(rows)
    expected = ["truncated", "empty", "no grade", "no completion"]
    assert pairs == [] and none == [*expected, "no right completion", "nothing to choose"]
    assert len(made(rows, most=1.0)[0]) == 1


def test_rules_can_be_switched_off():
    assert [pair["kind"] for pair in made(GROUP, right=False)[0]] == ["shorter"]
    assert [pair["kind"] for pair in made(GROUP, shorter=False)[0]] == ["right"]


def test_a_pair_in_tokens():
    (pair,) = encoded_pair({"prompt": "2+2=", "chosen": "4", "rejected": "5 no"}, TOKENIZER, 100)
    assert pair.prompt == tuple(TOKENIZER.encode("2+2="))
    assert pair.chosen == (*TOKENIZER.encode("4"), STOP)
    assert pair.rejected == (*TOKENIZER.encode("5 no"), STOP)
    assert pair.num_tokens == len(pair.prompt) + len(pair.completion)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"rejected": None}, "without an answer"),
        ({"chosen": ""}, "without an answer"),
        ({"prompt": None}, "without a prompt"),
        ({"chosen": "5"}, "with two equal completions"),
        ({"chosen": "\u00e9"}, "with text that the tokenizer lacks"),
        ({"chosen": "4<|im_end|>"}, "with the tags of another template"),
        ({"chosen": "4" * 200}, "longer than the context"),
        ({"chosen": [{"role": "assistant", "content": "4"}]}, "with the tags of another template"),
    ],
)
def test_a_pair_that_cannot_be_used(changes, kind):
    row = {"prompt": "2+2=", "chosen": "4", "rejected": "5"} | changes
    with pytest.raises(UnusableRow, match=kind):
        encoded_pair(row, TOKENIZER, 100)


def test_a_row_that_is_none():
    with pytest.raises(UnusableRow, match="that are no examples"):
        encoded_pair([1], TOKENIZER, 100)
