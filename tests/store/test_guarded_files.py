"""What a run folder from somebody else may hold in place of a run's files."""

import json
import os
import socket
import threading

import pytest

from aha.core.errors import RunError
from aha.store import guarded_files
from aha.store.guarded_files import (
    MAX_DEPTH,
    MAX_LINE_BYTES,
    GuardedFile,
    JsonLines,
    is_guarded_folder,
    number,
    object_of,
    read_all_rows,
)


def test_a_growing_file_is_read_on_from_where_the_last_look_ended(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"a": 1}\n')
    lines = JsonLines(path)
    assert lines.read_new() == ([{"a": 1}], False)
    with path.open("a") as out:
        out.write('{"a": 2}\n{"a": 3')
    assert lines.read_new() == ([{"a": 2}], False) and lines.unfinished
    with path.open("a") as out:
        out.write("}\n")
    assert lines.read_new() == ([{"a": 3}], False) and not lines.unfinished
    assert lines.read_new() == ([], False)


@pytest.mark.parametrize("how", ["shorter", "another file"])
def test_a_file_that_was_cut_back_begins_anew(tmp_path, how):
    path = tmp_path / "m.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    lines = JsonLines(path)
    lines.read_new()
    if how == "shorter":
        path.write_text('{"a": 1}\n')
    else:
        (tmp_path / "other").write_text('{"a": 1}\n{"a": 9}\n{"a": 9}\n')
        (tmp_path / "other").replace(path)
    rows, rewritten = lines.read_new()
    assert rewritten and rows[0] == {"a": 1}


@pytest.mark.parametrize("rewritten", [False, True])
def test_another_reader_goes_on_from_a_place_unless_the_file_was_rewritten(tmp_path, rewritten):
    path = tmp_path / "m.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n')
    first = JsonLines(path)
    first.read_new()
    rows = [1, 9, 3] if rewritten else [1, 2, 3]
    path.write_text("".join(f'{{"a": {a}}}\n' for a in rows))
    second = JsonLines(path)
    second.go_on_from(*map(int, first.place.split("-")))
    found = [{"a": a} for a in rows] if rewritten else [{"a": 3}]
    assert second.read_new() == (found, rewritten)
    assert second.read_new() == ([], False)
    path.unlink()
    assert second.read_new() == ([], True) and second.place == "0-0"


def test_strange_lines_are_counted_and_passed_over(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'nonsense\n[1]\n\xff\xfe\n{"a": 1}\n\n' + b"[" * 100_000 + b'\n{"a": 2}\n')
    lines = JsonLines(path)
    assert lines.read_all() == [{"a": 1}, {"a": 2}]
    assert lines.damage.total() == 5


def test_numbers_are_finite_or_none():
    assert [number(x) for x in (1, 2.5, True, "3", None, float("nan"), float("inf"))] == [
        *(1, 2.5),
        *[None] * 5,
    ]
    assert number(10**400) is None


# -- where a file leads ----------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """A folder beside a secret file and a secret folder."""
    (tmp_path / "secret.json").write_text('{"secret": 1}')
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "rows.jsonl").write_text('{"secret": 1}\n')
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def make_fifo(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(path.parent)  # the address of a socket is short
        listener.bind(path.name)


STRANGE = {
    "a link out": lambda path: path.symlink_to("../secret.json"),
    "an absolute link": lambda path: path.symlink_to(path.parents[1] / "secret.json"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to the memory of this process": lambda path: path.symlink_to("/proc/self/mem"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "a FIFO": make_fifo,
    "a socket": make_socket,
    "a folder": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_file_of_the_folder_is_refused_with_the_reason(folder, kind, monkeypatch):
    monkeypatch.chdir(folder)
    STRANGE[kind](folder / "x.json")
    file = GuardedFile(folder, "x.json")
    with pytest.raises(RunError, match="x.json (is|leads|cannot)"):
        file.read_object()
    assert file.exists() and file.stat() is None
    rows, faults = read_all_rows(file)
    assert rows == [] and len(faults) == 1 and faults[0].startswith("x.json")
    with pytest.raises(RunError):
        file.check_writable()


@pytest.mark.parametrize("name", ["../secret.json", "sub/../../secret.json", "a\0b", "/etc/passwd"])
def test_no_name_leads_out_of_the_folder(folder, name):
    with pytest.raises(RunError, match="out of its folder"):
        GuardedFile(folder, name).open()


def test_a_folder_that_is_a_link_leads_nowhere(folder):
    (folder / "completions").symlink_to("../elsewhere")
    assert not is_guarded_folder(folder / "completions", folder)
    with pytest.raises(RunError, match="out of its folder"):
        GuardedFile(folder, "completions/rows.jsonl").open()


def test_links_inside_a_folder_and_links_that_the_user_names_are_followed(folder):
    (folder / "real.json").write_text('{"a": 1}')
    (folder / "alias.json").symlink_to("real.json")
    assert GuardedFile(folder, "alias.json").read_object() == {"a": 1}
    (folder / "mine.json").symlink_to("../secret.json")
    assert GuardedFile.named_by_user(folder / "mine.json").read_object() == {"secret": 1}


def test_a_missing_file_is_not_a_refused_one(folder):
    with pytest.raises(FileNotFoundError):
        GuardedFile(folder, "gone.json").open()
    assert read_all_rows(folder / "gone.jsonl") == ([], [])
    GuardedFile(folder, "gone.json").check_writable()


def test_a_fifo_does_not_wait_for_its_writer(folder):
    os.mkfifo(folder / "metrics.jsonl")
    reading = threading.Thread(target=read_all_rows, args=(folder / "metrics.jsonl",), daemon=True)
    reading.start()
    reading.join(60)
    assert not reading.is_alive()


# -- what it holds -----------------------------------------------------------------------------

DAMAGED = {
    "no UTF-8": b'{"a": "\xff"}',
    "no JSON": b'{"a": 1',
    "no JSON object": b"[1, 2]",
    f"nested deeper than {MAX_DEPTH}": b'{"a": ' + b"[" * 900 + b"]" * 900 + b"}",
    "a number with thousands of digits": b'{"a": ' + b"1" * 5000 + b"}",
}


@pytest.mark.parametrize("reason", DAMAGED)
def test_damaged_json_has_a_reason_and_the_other_lines_are_read(tmp_path, reason):
    (tmp_path / "x.json").write_bytes(DAMAGED[reason])
    with pytest.raises(RunError, match=f"x.json is damaged: {reason}"):
        GuardedFile(tmp_path, "x.json").read_object()
    (tmp_path / "x.jsonl").write_bytes(b'{"a": 1}\n' + DAMAGED[reason] + b'\n{"a": 2}\n')
    rows, faults = read_all_rows(tmp_path / "x.jsonl")
    assert rows == [{"a": 1}, {"a": 2}]
    assert faults == [f"x.jsonl: damaged lines: 1 {reason}"]


@pytest.mark.parametrize("depth", [MAX_DEPTH, MAX_DEPTH + 1, 5_000, 100_000])
@pytest.mark.parametrize("opened, closed", [("[", "]"), ('{"a":', "}")])
def test_nesting_has_a_limit(depth, opened, closed):
    text = '{"a":' + opened * (depth - 1) + "1" + closed * (depth - 1) + "}"
    if depth == MAX_DEPTH:
        assert "a" in object_of(text.encode())
    else:
        with pytest.raises(ValueError, match="nested deeper"):
            object_of(text.encode())


def test_a_large_json_file_is_refused(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps({"a": "x" * guarded_files.MAX_OBJECT_BYTES}))
    with pytest.raises(RunError, match="too large"):
        GuardedFile(tmp_path, "x.json").read_object()


def test_a_line_that_is_too_long_is_counted_and_not_kept_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(guarded_files, "MAX_LINE_BYTES", 1_000)
    monkeypatch.setattr(guarded_files, "PART_BYTES", 3_000)
    long = b'{"a": "' + b"x" * 10_000 + b'"}\n'
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n' + long + b'{"a": 2}\n' + long + long + b'{"a": 3}\n' + long[:-1])
    lines = JsonLines(path)
    assert lines.read_all() == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert lines.damage.total() == 4
    offset = lines.offset
    assert offset == path.stat().st_size and lines.read_new() == ([], False)
    with path.open("ab") as out:
        out.write(b'\n{"a": 4}\n')
    assert lines.read_new() == ([{"a": 4}], False) and lines.damage.total() == 4


def test_two_gigabytes_without_a_newline_are_read_in_parts(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    os.truncate(path, 2_000_000_000)  # a sparse file
    lines = JsonLines(path)
    assert lines.read_all() == [{"a": 1}]
    assert lines.read_all() == []  # a page looks again and again
    assert lines.offset < 150_000_000
    assert "goes on without a newline: the rest is left out" in lines.faults[0]
    assert f"longer than {MAX_LINE_BYTES // 1_000_000} MB" in lines.faults[1]


def test_a_file_larger_than_its_limit_says_so(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n' * 120_000)
    lines = JsonLines(tmp_path / "x.jsonl", max_bytes=1_000_000)
    assert len(lines.read_all(10**6)) == 1_000_000 // 9
    assert lines.faults == ["x.jsonl is larger than 1 MB: the rest is left out"]


def test_a_file_of_too_many_rows_ends_at_the_limit(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"a": 1}\n' * 100)
    lines = JsonLines(tmp_path / "x.jsonl")
    assert len(lines.read_all(most=30)) == 30 and "more than 30 rows" in lines.faults[0]


def test_parts_that_hold_no_row_do_not_end_the_reading(tmp_path, monkeypatch):
    monkeypatch.setattr(guarded_files, "PART_BYTES", 100)
    (tmp_path / "x.jsonl").write_text("nonsense\n" * 100 + '{"a": 1}\n')
    rows, faults = read_all_rows(tmp_path / "x.jsonl")
    assert rows == [{"a": 1}] and "damaged lines: 100 no JSON" in faults[0]
