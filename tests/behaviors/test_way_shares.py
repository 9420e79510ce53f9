"""The columns of a step, worked out by hand."""

import json

import pytest

from aha.behaviors.search_ways import read_search
from aha.behaviors.way_shares import COLUMNS, WAY_COLUMNS, Reading, way_shares

NUMBERS, TARGET = (24, 1, 3), 73
LOOK = "24+1=25\n24-1=23\n24+3=27\n24-3=21\n24*3=72\n72+1=73 yes\n</think>"
WRONG = "24+1=25\n25+3=28 no\n24-1=23\n23-3=20 no\n24+3=27\n27+1=28 no\n</think>"
GUESS = "</think>"


def reading(text: str, correct: bool | None, tokens: int | None) -> Reading:
    return Reading(read_search(text, NUMBERS, TARGET), correct, tokens)


def test_columns():
    found = way_shares(
        [reading(LOOK, True, 60), reading(WRONG, False, 50), reading(GUESS, True, 10)]
    )
    assert list(found) == list(COLUMNS)
    assert sum(found[name] for name in WAY_COLUMNS) == pytest.approx(1)
    assert found["way_look"] == found["way_glance"] == found["way_none"] == pytest.approx(1 / 3)
    assert found["first_attempt_rate"] == pytest.approx(2 / 3)  # LOOK, and the guess as it is right
    assert found["attempts_per_solve"] == (5 + 3 + 0) / 2
    assert found["tokens_per_solve"] == 120 / 2
    assert found["moves_in_order"] == pytest.approx(8 / 8)
    assert found["openings_back"] == 0
    assert found["openings_passed"] == pytest.approx(4 / 6)  # the last openings do not count
    assert found["openings_tried_once"] == pytest.approx(2 / 6)
    assert found["openings_tried_more"] == 0
    assert json.loads(json.dumps(found)) == found


def test_what_has_no_denominator_is_left_out():
    assert way_shares([]) == {}
    found = way_shares([reading(GUESS, False, 10)])
    assert set(found) == {*WAY_COLUMNS, "first_attempt_rate"}
    assert found["first_attempt_rate"] == 0
    unknown = way_shares([reading(LOOK, None, 60), reading(LOOK, True, 60)])
    assert not {"first_attempt_rate", "attempts_per_solve", "tokens_per_solve"} & set(unknown)
    assert "tokens_per_solve" not in way_shares([reading(LOOK, True, None)])
