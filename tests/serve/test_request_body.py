import json

import pytest

from aha.serve.request_body import RequestError, object_of_body, short
from aha.store.guarded_files import MAX_DEPTH


def test_a_plain_body_is_read_as_it_stands():
    body = {"model": "m", "messages": [{"role": "user", "content": "ünï 🙂"}], "n": 10**30}
    assert object_of_body(json.dumps(body).encode(), "messages") == body
    assert object_of_body(json.dumps(body, ensure_ascii=False).encode(), "messages") == body
    assert object_of_body(b"\xef\xbb\xbf{}", "messages") == {}


@pytest.mark.parametrize(
    "raw, got",
    [
        (b"", "no JSON (Expecting value, line 1 column 1)"),
        (b"{", "no JSON (Expecting property name"),
        (b"model=m&prompt=x", "no JSON"),
        (b'{"a": 1} {"b": 2}', "no JSON (Extra data"),
        (b"\x1f\x8b\x08", "no UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "no UTF-8"),
        (b"[]", "[]; wanted a JSON object"),
        (b"null", "None; wanted a JSON object"),
        (b'{"temperature": NaN}', "NaN, which is no JSON"),
        (b'{"temperature": -Infinity}', "-Infinity, which is no JSON"),
        (b'{"temperature": 1e999}', "1e999, which no float can hold"),
        (b'{"seed": ' + b"1" * 5000 + b"}", "a number with thousands of digits"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' more than once"),
        (b'{"messages": [{"role": "user", "role": "system"}]}', "'role' more than once"),
        (b'{"prompt": "\\ud800"}', "'prompt' with half of a surrogate pair"),
        (b'{"messages": [{"content": [{"text": "a\\udfffb"}]}]}', "'messages' with half"),
        (b'{"\\udc00": 1}', "with half of a surrogate pair"),
        (b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", "nested deeper"),
        (b'{"a":' * 500_000, "nested deeper"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "nested deeper"),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else "",
)
def test_what_is_ambiguous_or_no_object_is_refused_with_the_reason(raw, got):
    with pytest.raises(RequestError) as caught:
        object_of_body(raw, "messages")
    assert got in str(caught.value) and caught.value.status == 400
    json.dumps(str(caught.value), ensure_ascii=False).encode()  # an answer can carry it


def test_a_pair_of_surrogates_is_a_character():
    assert object_of_body(b'{"a": "\\ud83d\\ude42"}', "messages") == {"a": "🙂"}


def test_nesting_is_counted_and_not_brackets():
    flat = {"a": "[" * 100, "b": [[0] for _ in range(100)]}
    assert object_of_body(json.dumps(flat).encode(), "prompt") == flat
    deep = b'{"a":' + b"[" * (MAX_DEPTH - 1) + b"]" * (MAX_DEPTH - 1) + b"}"
    assert object_of_body(deep, "prompt")


def test_values_are_short_in_messages():
    for value in ("x" * 10**6, list(range(10**5)), 10**400, {"a": "\ud800"}):
        assert len(short(value)) <= 60
