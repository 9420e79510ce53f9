from hypothesis import given
from hypothesis import strategies as st

from aha.behaviors.detector import _Reader
from aha.core.control_characters import visible
from aha.web.event_spans import EVENT_KINDS, mean_behaviours, puzzle_of, text_pieces

from .conftest import RIGHT, row


def joined(pieces) -> str:
    return "".join(text for text, _, _ in pieces)


def test_pieces_carry_the_events_and_their_ends():
    pieces = text_pieces(row(0, True), 1000)
    assert joined(pieces) == RIGHT
    ends = [(text, ending) for text, _, ending in pieces if ending]
    assert ("25*3=75", ["back-to-start"]) in ends and ("75+7=82", ["solution"]) in ends
    assert any("true-check" in ending and "yes" in text for text, ending in ends)
    assert ends[-1][1] == ["right-answer"]


@given(st.text(max_size=300), st.integers(0, 400))
def test_any_text_is_shown_whole_up_to_the_limit(text, limit):
    pieces = text_pieces({"numbers": [3, 7], "target": 10, "completion": text}, limit)
    assert joined(pieces) == visible(text[:limit])


def test_events_beyond_the_limit_are_left_out():
    pieces = text_pieces(row(0, True), 8)
    assert joined(pieces) == RIGHT[:8]


def test_control_characters_become_signs_of_one_character():
    assert visible("a\x1b[31m\x00\x7f\u202eb\ud800\tc\n") == "a␛[31m␀␡\ufffdb\ufffd\tc\n"


def test_every_word_of_the_detector_has_a_kind():
    import inspect
    import re

    said = set(re.findall(r'(?:record|mark)\([^)]*"([a-z ]+)"\)', inspect.getsource(_Reader)))
    counts = {word for word in said if "_" in word}
    assert said - counts <= {kind.detector_label for kind in EVENT_KINDS} and len(said) > 8
    assert (
        len({kind.sign for kind in EVENT_KINDS})
        == len({kind.key for kind in EVENT_KINDS})
        == len(EVENT_KINDS)
    )


def test_a_row_without_a_puzzle_has_no_behaviours():
    for broken in ({"numbers": "3 7"}, {"numbers": [3.5], "target": 1}, {"numbers": [3]}):
        assert puzzle_of(broken) is None
    assert puzzle_of({"numbers": [True], "target": 1}) is None
    assert puzzle_of({"numbers": list(range(99)), "target": 1}) is None
    assert mean_behaviours([{"completion": "3+7=10"}]) == {}
    assert mean_behaviours([row(0, True)])["attempts"] == 2


def test_a_completion_that_is_no_text_is_empty():
    assert text_pieces({"numbers": [3], "target": 3, "completion": None}, 10) == []
