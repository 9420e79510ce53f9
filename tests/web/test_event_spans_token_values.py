import math

import pytest

from aha.web.completions import IndexCache, groups_page
from aha.web.event_spans import MAX_TOKENS, MISSING, NOT_RECORDED, token_values

from .conftest import row, with_tokens, write_rows


def test_every_token_has_a_number():
    values = token_values(with_tokens(row(0, True, advantage=0.5)))
    count = len(values["pieces"])
    assert "".join(values["pieces"]).startswith("3+7=10") and count > 20
    assert values["logprobs"][3] == -3.0 and values["entropies"][3] == 1.5
    # No critic: every token of a completion got the same.
    assert values["advantages"] == [0.5] * count
    assert values["missing"] == [] and values["hidden"] == 0


def test_what_a_critic_said_goes_before_the_mean():
    one = with_tokens(row(0, True, advantage=0.5))
    one["advantages"] = [0.1 * n for n in range(len(one["pieces"]))]
    assert token_values(one)["advantages"][2] == pytest.approx(0.2)


def test_an_old_run_says_that_no_tokens_were_kept():
    values = token_values(row(0, True, advantage=0.5))
    assert values["pieces"] == [] and values["missing"] == [NOT_RECORDED]


def test_what_is_missing_is_said():
    one = with_tokens(row(0, True))
    del one["entropies"]
    one["logprobs"].pop()
    values = token_values(one)
    assert values["missing"] == [MISSING[name] for name in ("logprobs", "entropies", "advantages")]


def test_nonsense_among_the_values_is_a_gap():
    one = with_tokens(row(0, True))
    one["pieces"][:3] = ["\x1b[2J", 7, None]
    one["logprobs"][:3] = [math.nan, "x", None]
    values = token_values(one)
    assert values["pieces"][:3] == ["␛[2J", "?", "?"] and values["logprobs"][:3] == [None] * 3


def test_a_very_long_completion_is_shortened_and_says_so():
    long = {"pieces": ["1"] * (MAX_TOKENS + 7), "logprobs": [-1.0] * (MAX_TOKENS + 7)}
    values = token_values(long | {"advantage": 1.0})
    assert values["hidden"] == 7
    assert (
        len(values["pieces"]) == len(values["logprobs"]) == len(values["advantages"]) == MAX_TOKENS
    )


def test_a_group_says_whether_its_tokens_were_recorded(tmp_path):
    rows = [row(0, True, group=0), with_tokens(row(1, True, group=1)), row(1, False, group=1)]
    write_rows(tmp_path / "step.jsonl", rows)
    lines = groups_page(IndexCache().index(tmp_path / "step.jsonl"), 0)["lines"]
    assert [line["recorded"] for line in lines] == [False, True]
