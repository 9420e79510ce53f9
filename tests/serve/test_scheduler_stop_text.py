import pytest

from aha.serve.scheduler import TextStream

from ..tiny import TOKENIZER


def streamed(text: str, *stop: str) -> list[str]:
    """A text of ASCII, one character a token, as it is streamed."""
    stream = TextStream("".join, stop)
    return [stream.read(text[:size], size == len(text)) for size in range(1, len(text) + 1)]


def test_without_stops_every_token_is_returned_at_once():
    assert streamed("3+7=10") == list("3+7=10")


def test_a_text_ends_before_the_first_stop_that_comes():
    assert "".join(streamed("abcdef", "ef", "cd")) == "ab"
    stream = TextStream("".join, ("cd", "ef"))
    assert stream.read("abcd", False) == "ab" and stream.stopped
    assert stream.text == "ab"


def test_what_may_become_a_stop_is_held_back_until_it_is_clear():
    assert streamed("a</b</a>x", "</a>") == ["a", "", "", "</b", "", "", "", "", ""]
    assert streamed("a</", "</a>") == ["a", "", "</"]  # at the end it was no stop


@pytest.mark.parametrize("stop", ["aab", "aba"])
def test_overlapping_beginnings(stop):
    text = "aaab" if stop == "aab" else "abaaba"
    assert "".join(streamed(text, stop)) == text[: text.find(stop)]


def test_a_character_of_several_tokens_is_returned_when_it_is_whole():
    raw = "é5".encode()
    stream = TextStream(lambda tokens: bytes(tokens).decode(errors="replace"))
    assert [stream.read(raw[:n], n == len(raw)) for n in (1, 2, 3)] == ["", "é", "5"]


def test_all_pieces_together_are_the_text_of_the_tokenizer():
    text = "3+7=10\n</think>\n<answer>3+7</answer>"
    tokens = TOKENIZER.encode(text)
    stream = TextStream(TOKENIZER.decode, ("zz",))
    pieces = [stream.read(tokens[:n], n == len(tokens)) for n in range(1, len(tokens) + 1)]
    assert "".join(pieces) == text == stream.text
