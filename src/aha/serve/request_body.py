"""The body of a request: strict JSON, so that what a client did not mean to send is told to it.

Python's reader takes NaN, keys that occur twice and text that no UTF-8 can hold; each of them would
come out somewhere else, as another error or as another request.
"""

import json
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from aha.core.errors import AhaError
from aha.store.guarded_files import MAX_DEPTH, is_deep

Result = TypeVar("Result")


class RequestError(AhaError):
    """The request is invalid or cannot be answered.

    `param` is the field that is wrong, `status` the HTTP status, `code` OpenAI's name of the error.
    """

    def __init__(
        self,
        got: str,
        wanted: str = "",
        fix: str = "",
        *,
        param: str | None = None,
        status: int = 400,
        code: str | None = None,
    ):
        super().__init__(got, wanted, fix)
        self.param, self.status, self.code = param, status, code


def with_request_error(param: str, make: Callable[[], Result]) -> Result:
    """The result of `make()`; its AhaError becomes a RequestError about the field `param`."""
    try:
        return make()
    except AhaError as error:
        raise RequestError(error.got, error.wanted, error.fix, param=param) from error


def short(value: object) -> str:
    """A value for an error message, at most 60 characters."""
    if isinstance(value, int) and abs(value) >= 10**40:
        return "a number of more than 40 digits"
    if isinstance(value, str):
        value = value[:60]
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def object_of_body(raw: bytes, content: str) -> dict[str, Any]:
    """The JSON object of a request. `content` is the field of its text: messages or prompt.

    Raises RequestError for what is no JSON object, and for one that is ambiguous.
    """
    expected = f"a JSON object with model and {content}"
    try:
        body = json.loads(
            raw.decode("utf-8-sig"),
            object_pairs_hook=_without_duplicates,
            parse_constant=_no_constant,
            parse_float=_finite_float,
        )
    except UnicodeDecodeError:
        raise RequestError(f"{raw[:40]!r}, which is no UTF-8", expected) from None
    except RecursionError:
        raise _too_deep(expected) from None
    except json.JSONDecodeError as error:
        place = f"{error.msg}, line {error.lineno} column {error.colno}"
        raise RequestError(f"no JSON ({place}): {raw[:40]!r}", expected) from None
    except ValueError:
        raise RequestError("a number with thousands of digits", expected) from None
    if not isinstance(body, dict):
        raise RequestError(f"{short(body)}", expected)
    if is_deep(body):
        raise _too_deep(expected)
    for key, value in body.items():
        if not is_unicode({key: value}):
            raise RequestError(
                f"{short(key)} with half of a surrogate pair, which is no character",
                "text that UTF-8 can hold",
                "send both halves, or U+FFFD in their place",
                param=key if key.isprintable() else None,
            )
    return body


def is_unicode(value: object) -> bool:
    """Whether all text in a value can be written as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _too_deep(expected: str) -> RequestError:
    return RequestError(f"lists and objects nested deeper than {MAX_DEPTH}", expected)


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RequestError(f"{short(twice)} more than once in one object", "each field once")
    return fields


def _no_constant(name: str) -> NoReturn:
    raise RequestError(f"{name}, which is no JSON", "a finite number, or null")


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise RequestError(f"{text[:40]}, which no float can hold", "a number of a usual size")
    return value
