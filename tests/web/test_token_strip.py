import math

import pytest

from aha.web.completions import IndexCache, groups_of
from aha.web.token_strip import MISSING, MOST_TOKENS, NONE_KEPT, strip_of

from .conftest import row, with_tokens, write_rows


def test_a_strip_has_a_number_for_every_token():
    strip = strip_of(with_tokens(row(0, True, advantage=0.5)))
    count = len(strip["pieces"])
    assert "".join(strip["pieces"]).startswith("3+7=10") and count > 20
    assert strip["logprobs"][3] == -3.0 and strip["entropies"][3] == 1.5
    # No critic: every token of a completion got the same.
    assert strip["advantages"] == [0.5] * count
    assert strip["missing"] == [] and strip["hidden"] == 0


def test_what_a_critic_said_goes_before_the_mean():
    one = with_tokens(row(0, True, advantage=0.5))
    one["advantages"] = [0.1 * n for n in range(len(one["pieces"]))]
    assert strip_of(one)["advantages"][2] == pytest.approx(0.2)


def test_an_old_run_says_that_no_tokens_were_kept():
    strip = strip_of(row(0, True, advantage=0.5))
    assert strip["pieces"] == [] and strip["missing"] == [NONE_KEPT]


def test_what_is_missing_is_said():
    one = with_tokens(row(0, True))
    del one["entropies"]
    one["logprobs"].pop()
    strip = strip_of(one)
    assert strip["missing"] == [MISSING[name] for name in ("logprobs", "entropies", "advantages")]


def test_nonsense_in_a_strip_is_a_gap():
    one = with_tokens(row(0, True))
    one["pieces"][:3] = ["\x1b[2J", 7, None]
    one["logprobs"][:3] = [math.nan, "x", None]
    strip = strip_of(one)
    assert strip["pieces"][:3] == ["␛[2J", "?", "?"] and strip["logprobs"][:3] == [None] * 3


def test_a_very_long_strip_is_cut_and_says_so():
    long = {"pieces": ["1"] * (MOST_TOKENS + 7), "logprobs": [-1.0] * (MOST_TOKENS + 7)}
    strip = strip_of(long | {"advantage": 1.0})
    assert strip["hidden"] == 7
    assert len(strip["pieces"]) == len(strip["logprobs"]) == len(strip["advantages"]) == MOST_TOKENS


def test_a_group_says_whether_its_tokens_were_recorded(tmp_path):
    rows = [row(0, True, group=0), with_tokens(row(1, True, group=1)), row(1, False, group=1)]
    write_rows(tmp_path / "step.jsonl", rows)
    lines = groups_of(IndexCache().index(tmp_path / "step.jsonl"), 0)["lines"]
    assert [line["recorded"] for line in lines] == [False, True]
