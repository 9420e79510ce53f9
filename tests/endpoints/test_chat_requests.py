"""What an address is, and what is read out of replies; requests are tested with judge and
teacher."""

import pytest

from aha.core.errors import ConfigError
from aha.endpoints.chat_requests import TEXT, Endpoint, TryAgain, chat_answer, json_of, seconds_of


class Reply:
    def __init__(self, text: str):
        self.text = text

    def json(self):
        raise ValueError("no JSON")


@pytest.mark.parametrize("written", ["", "/", "/chat/completions", "/completions"])
def test_an_address_ends_with_what_is_spoken_there(written):
    address = f"http://127.0.0.1:1/v1{written}"
    assert Endpoint(address, "m").address() == "http://127.0.0.1:1/v1/chat/completions"
    assert Endpoint(address, "m", path=TEXT).address() == "http://127.0.0.1:1/v1/completions"


def test_what_is_no_address_is_refused():
    with pytest.raises(ConfigError, match="the address .file.*http://127.0.0.1"):
        Endpoint("file:///etc/passwd", "m").address()


def test_a_server_of_one_model_needs_no_name():
    assert Endpoint("http://a", "").model_field() == {}
    assert Endpoint("http://a", "m").model_field() == {"model": "m"}


def test_a_web_page_is_named_as_one():
    with pytest.raises(TryAgain, match="a web page .HTML. in place of an answer: '<html>"):
        json_of(Reply(" <html>\n<body>Sign in"))
    with pytest.raises(TryAgain, match="no JSON in place of an answer: 'busy'"):
        json_of(Reply("busy"))


@pytest.mark.parametrize("content", [None, [], {"choices": []}, {"choices": [{"message": {}}]}])
def test_what_is_no_chat_completion_has_no_answer(content):
    assert chat_answer(content) is None


def test_a_pause_in_seconds():
    assert seconds_of("12") == 12.0 and seconds_of("soon") == 0.0
