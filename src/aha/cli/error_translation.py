"""Errors that are not ours, in our words: of the disk, the memory, the system, a text.

`as_user_error` is the one place. What it does not know is a fault of the program: its traceback has
to be seen.
"""

import errno
import json
import os
import re
import tomllib
import traceback
from pathlib import Path

import cyclopts

from aha.core.errors import AhaError
from aha.machine.out_of_memory import is_out_of_memory

Words = tuple[str, str, str]  # got, wanted, fix

AGAIN = "then the same command again; a run goes on with `aha train --resume RUN`"
FULL: Words = (
    "the disk is full",
    "free space for what is written",
    f"delete what is not needed, such as old folders in runs/; {AGAIN}",
)
DENIED: Words = (
    "no permission",
    "a file or folder that you may read and write",
    "change its permissions, or work in a folder of your own",
)
OPEN_FILES: Words = (
    "too many open files",
    "room for another one",
    f"`ulimit -n 4096`; {AGAIN}",
)
NO_FOLDER: Words = ("a file in the place of a folder", "a folder", "move the file away")
SYSTEM: dict[int, Words] = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: ("your quota of the disk is used up", *FULL[1:]),
    errno.EFBIG: ("a file that is larger than may be", *FULL[1:]),
    errno.EACCES: DENIED,
    errno.EPERM: DENIED,
    errno.EROFS: ("a disk that is read-only", *DENIED[1:]),
    errno.ENOTDIR: NO_FOLDER,
    errno.EEXIST: ("a file or folder that is there already", "a new name", "choose another name"),
    errno.EISDIR: ("a folder in the place of a file", "a file", "choose another name"),
    errno.ENAMETOOLONG: ("a name that is too long", "at most 255 bytes", "a shorter name"),
    errno.ENOENT: ("no such file", "a file or folder that exists", "check its name"),
    errno.ELOOP: ("links that lead in a circle", "a file or folder", "remove the link"),
    errno.EMFILE: OPEN_FILES,
    errno.ENFILE: OPEN_FILES,
}
# Of libraries that write files by themselves. torch: "inline_container.cc:672] . unexpected pos 704
# vs 598", "PytorchStreamWriter failed writing file"; in Rust, as safetensors: "(os error 28)".
FULL_WORDS = ("no space left", "storagefull", "unexpected pos", "failed writing file")
OS_ERROR = re.compile(r"\(os error (\d+)\)")
PARSERS = tuple(str(Path(str(module.__file__)).parent) for module in (json, tomllib, cyclopts))
MEMORY = "memory for more than the weights"
LESS_MEMORY = (
    "half of --rollout.max_rows, --max-new-tokens or --batch-tokens, whichever the command has; "
    "`aha plan RECIPE` says what a run needs"
)


def as_user_error(error: BaseException) -> AhaError | None:
    """The error to print in place of one that is not ours; None for a fault of the program."""
    if isinstance(error, AhaError):
        return error
    if is_out_of_memory(error) or getattr(error, "errno", None) == errno.ENOMEM:
        return AhaError(first_line(error) or "out of memory", MEMORY, LESS_MEMORY)
    if isinstance(error, OSError):
        return of_system(error)
    if isinstance(error, UnicodeError):
        return of_text(error)
    if isinstance(error, RecursionError) and raised_in_parser(error):
        expected = "a few levels"
        return AhaError("lists or tables nested too deeply", expected, "write it with fewer levels")
    if isinstance(error, ValueError) and "null byte" in str(error):
        return AhaError("a name with a NUL in it", "the name of a file", "take the NUL out")
    if number := OS_ERROR.search(str(error)):
        return of_system(OSError(int(number[1]), first_line(error)))
    if any(words in str(error).lower() for words in FULL_WORDS):
        return AhaError(f"{FULL[0]} ({first_line(error)})", *FULL[1:])
    return None


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0]


def of_system(error: OSError) -> AhaError | None:
    """The operating system's error, with the name of the file."""
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    where = " -> ".join(names)
    number = error.errno
    if number in (errno.ENOTDIR, errno.EEXIST) and isinstance(error.filename, str):
        blocking = file_among_folders(Path(error.filename))
        if blocking:
            number, where = errno.ENOTDIR, blocking
    if number in SYSTEM:
        got, expected, fix = SYSTEM[number]
        if not where and error.strerror and error.strerror != os.strerror(number):
            where = error.strerror  # a library's words, with the name of the file in them
        return AhaError(f"{where}: {got}" if where else got, expected, fix)
    if number in (errno.EBADF, errno.EINVAL) and not where:
        return None  # nothing that a user has named
    reason = error.strerror or first_line(error) or type(error).__name__
    return AhaError(
        f"{where}: {reason}" if where else f"{type(error).__name__}: {reason}",
        "a file, a disk and a network that work",
        f"mend it, {AGAIN}",
    )


def file_among_folders(path: Path) -> str:
    """The first part of a path that is a file, and would have to be a folder; empty if none is."""
    for part in reversed(path.parents):
        if os.path.lexists(part) and not part.is_dir():
            return str(part)
    return ""


def of_text(error: UnicodeError) -> AhaError:
    """Bytes that are no text, or a text that has no bytes."""
    if isinstance(error, UnicodeDecodeError):
        got = f"bytes that are not {error.encoding}: {error.object[error.start :][:8]!r}"
        return AhaError(f"{got} at place {error.start}", "a text file in UTF-8", "convert the file")
    if isinstance(error, UnicodeEncodeError):
        got = f"a character that {error.encoding} cannot write: {error.object[error.start]!r}"
        return AhaError(got, "text", "take the character out, or set PYTHONUTF8=1")
    return AhaError(first_line(error), "text in UTF-8", "convert the file")


def raised_in_parser(error: BaseException) -> bool:
    """Whether it comes from reading a text that somebody wrote, and not from a loop of ours."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(PARSERS)
