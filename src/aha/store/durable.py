"""Writes that survive a crash, a full disk and a power cut.

A file or a folder is written under another name, flushed to the disk with everything in it, and
renamed; then the folder that holds the name is flushed. So there is the old content or the new
content, whenever the process dies. A folder that has to go is renamed before it is deleted: a name
never stands for half of it.
"""

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from aha.core.errors import AhaError, ConfigError, RunError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# First parts of the names of folders in transition. Readers take no notice of any of them.
PARTIAL, REPLACED, REMOVED, DAMAGED = ".partial_", ".replaced_", ".removed_", ".damaged_"


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders, and keeps their names by itself
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_tree(folder: Path) -> None:
    """Flush all files and folders below a folder, and itself."""
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            flush(Path(path) / name)
        flush(Path(path))


@contextmanager
def disk_errors(action: str, kept: str = "") -> Iterator[None]:
    """Turns what the disk refuses into a `RunError`: "cannot ACTION: no space left on device".

    `kept` says what is left as it was, where the disk still has it. torch and safetensors hide the
    system's error in one of their own; it is looked for there.
    """
    try:
        yield
    except AhaError:
        raise
    except Exception as error:
        cause = system_error(error)
        if cause is None:
            raise
        reason = (cause.strerror or str(cause)).lower()
        raise RunError(f"cannot {action}: {reason}", *cure(cause, kept)) from error


def cure(error: OSError, kept: str) -> tuple[str, str]:
    """(what is wanted, the fix) for an error of the disk."""
    if isinstance(error, FileNotFoundError):
        return (
            "its folder, which somebody has removed or renamed meanwhile",
            "give the folder its name back, or begin anew",
        )
    if isinstance(error, PermissionError) or "read-only" in (error.strerror or "").lower():
        expected, fix = "a folder that this user may write to", "another folder, or chmod u+w"
    elif isinstance(error, NotADirectoryError | FileExistsError):
        expected, fix = "a folder", "move the file of that name away"
    elif error.errno in FULL:
        expected, fix = "a disk that takes it", "free some space (`df -h .`)"
    else:
        expected, fix = "a disk that works", "another disk, or `dmesg` for what is wrong with it"
    return expected, f"{fix}; {kept}" if kept else fix


def system_error(error: BaseException | None) -> OSError | None:
    """The error of the system in an exception, in what caused it, or in its text."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError):
            return error
        number = re.search(r"\(os error (\d+)\)", str(error))  # as Rust's libraries say it
        if number:
            return OSError(int(number[1]), os.strerror(int(number[1])))
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def check_writable(folder: Path) -> None:
    """Raises `RunError` for a folder that this user may not write to, before anything is
    computed."""
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RunError(
            f"{folder.absolute()} cannot be written to",
            "a folder that this user may write to",
            "another folder (cd), or chmod u+w",
        )


def check_new_file(out: Path) -> None:
    """Raises `ConfigError` for a file that exists, and for one whose folder does not, `RunError`
    for one whose folder cannot be written to."""
    if out.exists():
        raise ConfigError(f"{out} exists already", "a new file", "choose another --out")
    if not out.parent.is_dir():
        raise ConfigError(f"no folder {out.parent}", "a file in a folder", f"mkdir -p {out.parent}")
    check_writable(out.parent)


# -- files --------------------------------------------------------------------------------------


def finite(value: Any) -> Any:
    """The value with None for every number that JSON does not have: NaN and the infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that every reader takes: a number that is none is null."""
    try:
        return json.dumps(value, indent=indent, allow_nan=False)
    except (TypeError, ValueError):  # rows of completions seldom need the copy, which takes longer
        return json.dumps(finite(value), indent=indent, allow_nan=False)


def partial_of(path: Path) -> Path:
    """The file that `write_text` writes and renames."""
    return path.with_name(f"{path.name}.partial")


def write_text(path: Path, text: str) -> None:
    """Replace a file as a whole. Raises `RunError` where the disk does not take it."""
    partial = partial_of(path)
    with disk_errors(f"write {path}"):
        try:
            with partial.open("w", encoding="utf-8") as out:
                out.write(text)
                out.flush()
                os.fsync(out.fileno())
            os.replace(partial, path)
            flush(path.parent)
        except OSError:
            with suppress(OSError):
                partial.unlink()
            raise


# -- folders ------------------------------------------------------------------------------------


def replace_folder(final: Path, write: Callable[[Path], None]) -> None:
    """Replace a folder by what `write(folder)` writes, or make it.

    An old one stands until the new one is on the disk. If the process dies between the two
    renames, the old one is left under another name, which `recover` undoes. Where `write` or the
    disk fails, nothing has changed.
    """
    parent = final.parent
    partial, replaced = parent / f"{PARTIAL}{final.name}", parent / f"{REPLACED}{final.name}"
    parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(parent, final.name)
    try:
        partial.mkdir()
        write(partial)
        flush_tree(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if final.exists():
        os.rename(final, replaced)
    os.rename(partial, final)
    flush(parent)
    flush(parent.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Delete a folder: first its name, then its files."""
    removed = folder.with_name(f"{REMOVED}{folder.name}")
    shutil.rmtree(removed, ignore_errors=True)
    os.rename(folder, removed)
    shutil.rmtree(removed, ignore_errors=True)


def recover(parent: Path) -> None:
    """Give a folder its name back that a process was replacing when it died."""
    for replaced in parent.glob(f"{REPLACED}*"):
        final = replaced.with_name(replaced.name.removeprefix(REPLACED))
        if not final.exists():
            os.rename(replaced, final)
            flush(parent)


def clear_leftovers(parent: Path, name: str = "*") -> None:
    """Remove what writers and removers of `name` left when they died; of all names without one."""
    recover(parent)
    for prefix in (PARTIAL, REPLACED, REMOVED):
        for left in parent.glob(f"{prefix}{name}"):
            shutil.rmtree(left, ignore_errors=True)
