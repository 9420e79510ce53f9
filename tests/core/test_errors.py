"""What a user reads when something is wrong, and that errors survive a process boundary."""

import copy
import pickle

import pytest

from aha.core import errors
from aha.core.errors import (
    AhaError,
    ConfigError,
    DataError,
    MissingExtra,
    ModelError,
    RunError,
    shown,
)

PLAIN = [AhaError, ConfigError, DataError, ModelError, RunError]


@pytest.mark.parametrize("kind", PLAIN)
def test_a_message_says_got_wanted_and_fix(kind):
    error = kind("group_size 1", "at least 2", "--rollout.group_size 16")
    assert str(error) == "group_size 1; wanted at least 2; fix: --rollout.group_size 16"
    assert (error.got, error.wanted) == ("group_size 1", "at least 2")
    assert error.fix == "--rollout.group_size 16"


@pytest.mark.parametrize("kind", PLAIN)
def test_what_is_not_said_leaves_no_trace(kind):
    assert str(kind("no file")) == "no file"
    assert str(kind("no file", fix="make one")) == "no file; fix: make one"
    assert str(kind("no file", "a file")) == "no file; wanted a file"


EVERY = [kind("got this", "that", "do so") for kind in PLAIN] + [
    MissingExtra("pyarrow", "parquet"),
    MissingExtra("vllm", "vllm", "use the native engine"),
    DataError("only got"),
]


@pytest.mark.parametrize("error", EVERY, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(
    "trip", [lambda e: pickle.loads(pickle.dumps(e)), copy.copy, copy.deepcopy]
)
def test_round_trips(error, trip):
    again = trip(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert (again.got, again.wanted, again.fix) == (error.got, error.wanted, error.fix)


def test_a_missing_extra_says_how_to_install_it():
    error = MissingExtra("pyarrow", "parquet")
    assert "pyarrow" in str(error) and "pip install 'aha[parquet]'" in str(error)
    again = pickle.loads(pickle.dumps(error))
    assert (again.package, again.extra) == ("pyarrow", "parquet")


@pytest.mark.parametrize(
    ("kind", "also"),
    [
        (ConfigError, ValueError),
        (DataError, ValueError),
        (ModelError, ValueError),
        (RunError, OSError),
        (MissingExtra, ImportError),
    ],
)
def test_each_is_also_what_a_library_user_would_catch(kind, also):
    assert issubclass(kind, also) and issubclass(kind, AhaError)


def test_the_tree_in_the_docstring_is_the_tree():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    for kind in kinds:
        assert kind.__name__ in errors.__doc__
        assert kind is AhaError or kind.__bases__[0] in kinds


def test_a_message_is_one_line_of_a_readable_length():
    error = ConfigError("x" * 5_000 + "\nend", "a\nb", "c\r\nd\u2028e")
    assert len(str(error)) < 1_100 and len(str(error).splitlines()) == 1
    assert "end; wanted a b; fix: c d e" in str(error) and len(error.got) == 5_004


def test_any_value_can_be_shown():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    for value in (10**5_000, deep, "y" * 10**6, object(), "a\nb", b"\xff"):
        assert len(shown(value)) < 120 and "\n" not in shown(value)
    assert shown([3, 4]) == "[3, 4]"
