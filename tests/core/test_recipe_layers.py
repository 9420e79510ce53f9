"""Recipe files that are none: one line with the file's name, at once."""

import os
import time

import pytest

from aha.algo.recipe import load_recipe
from aha.core.errors import ConfigError
from aha.core.recipe_layers import LARGEST_RECIPE, parse_toml

ODD = {
    "lists in lists": b"a = " + b"[" * 5_000 + b"]" * 5_000,
    "tables in tables": b"a = " + b"{x=" * 5_000 + b"1" + b"}" * 5_000,
    "a key of 5,000 parts": b"a." * 5_000 + b"b = 1",
    "options of 5,000 levels": b"[task.options]\n" + b"a." * 5_000 + b"b = 1",
    "not UTF-8": b"steps = 1 # \xff\xfe",
    "UTF-16": "steps = 1".encode("utf-16"),
    "a NUL": b"steps = 1\0",
    "a key twice": b"steps = 1\nsteps = 2",
    "a table twice": b"[optim]\nlr = 1.0\n[optim]\nlr = 2.0",
    "a table and a value": b"optim = 3\n[optim]\nlr = 1.0",
    "a value for a section": b"optim = 3",
    "a list of sections": b"[[optim]]\nlr = 1.0",
    "a dotted key in a value": b"steps = 1\nsteps.more = 2",
    "an inline table that grows": b"optim = {lr = 1.0}\noptim.beta1 = 0.5",
    "10^400": b"steps = 1" + b"0" * 400,
    "5,000 digits": b"steps = " + b"9" * 5_000,
    "1e400": b"[optim]\nlr = 1e400",
    "nan": b"[optim]\nlr = nan",
    "minus infinity": b"[optim]\ngrad_clip = -inf",
    "a date": b"[task.options]\nday = 2026-01-01",
    "a huge file": b"#" * (LARGEST_RECIPE + 1),
    "a long key": b"k" * 900_000 + b" = 1",
    "a long value": b"steps = '" + b"v" * 900_000 + b"'",
    "many numbers": b"[task]\nnumbers = [" + b"7," * 100_000 + b"]",
}


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_recipe_is_one_short_line_at_once(tmp_path, kind):
    path = tmp_path / "odd.toml"
    path.write_bytes(ODD[kind])
    began = time.monotonic()
    with pytest.raises(ConfigError) as error:
        load_recipe(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1_500
    assert time.monotonic() - began < 60
    assert "odd.toml" in error.value.got or "task.numbers" in error.value.got


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    (tmp_path / "zero.toml").symlink_to("/dev/zero")
    (tmp_path / "folder.toml").mkdir()
    for name in ("pipe", "zero", "folder"):
        with pytest.raises(ConfigError, match=f"{name}.toml is no file"):
            load_recipe(tmp_path / f"{name}.toml")


def test_dotted_keys_inline_tables_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "good.toml"
    path.write_bytes(b"\xef\xbb\xbfoptim.lr = 1e-4\nrollout = {prompts = 8, group_size = 4}\r\n")
    cfg = load_recipe(path)
    assert (cfg.optim.lr, cfg.rollout.prompts, cfg.rollout.group_size) == (1e-4, 8, 4)


def test_a_text_that_is_no_toml_is_a_value_error_of_one_line():
    for text in ("=", "a = [", "[" * 5_000, "x = " + "9" * 5_000, "a = '''\n", "\0"):
        with pytest.raises(ValueError) as error:
            parse_toml(text)
        assert "\n" not in str(error.value)
