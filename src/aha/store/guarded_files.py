"""Reads the files of a run folder that may come from somebody else: an archive, a shared disk.

Three things are guarded. A file is opened only where it is a regular file inside its folder: no
link, FIFO or device leads a reader elsewhere or makes it wait. What is read at once has a limit: a
line, a JSON file, all rows of a file. And JSON is read strictly; a line that is none is counted
with its reason, never an error and never left out in silence.

    rows, damage = read_all_rows(GuardedFile(run, "metrics.jsonl"))
"""

import json
import math
import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn
from zlib import crc32

from aha.core.errors import RunError

MAX_LINE_BYTES = 8_000_000  # a completion of 32,000 tokens, token by token, has about 3 MB
MAX_OBJECT_BYTES = 8_000_000
GIVE_UP_BYTES = 64_000_000  # of one line: what is no text is not read to its end
MAX_READ_BYTES = 1_000_000_000  # of one file of rows
MAX_ROWS = 200_000  # of one file that is read as a whole
MAX_DEPTH = 32
MAX_NUMBER = 1e100
PART_BYTES = 32_000_000  # of one read: a huge file takes several
KEPT_BYTES = 128
# Not to wait for the writer of a FIFO, and not to follow a link that has just been put there.
FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)

Row = dict[str, Any]


# -- one file --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GuardedFile:
    """A file by a folder, out of which nothing is read, and its name below it."""

    folder: Path
    name: str

    @classmethod
    def of(cls, path: "Path | GuardedFile") -> "GuardedFile":
        """A path as a guarded file of its own folder: no link at its name is followed out of it."""
        return path if isinstance(path, GuardedFile) else cls(path.parent, path.name)

    @classmethod
    def named_by_user(cls, path: Path) -> "GuardedFile":
        """A file that the user has named; where it is a link, the file that the link leads to."""
        return cls.of(Path(os.path.realpath(path)))

    @property
    def path(self) -> Path:
        """The file's path; nothing is guarded where this is opened."""
        return self.folder / self.name

    def real_path(self) -> str:
        """The path without links. Raises `RunError` where it is outside of the folder."""
        try:
            root, real = os.path.realpath(self.folder), os.path.realpath(self.path)
            inside = os.path.commonpath([root, real]) == root
        except (OSError, ValueError):
            inside = False
        if not inside:
            self._refuse("leads out of its folder", "a file in the folder", "copy the file itself")
        return real

    def exists(self) -> bool:
        """Whether anything has this name, readable or not."""
        try:
            return os.path.lexists(self.path)
        except ValueError:
            return False

    def open(self) -> BinaryIO:
        """The file for reading.

        Raises FileNotFoundError where there is none, and `RunError` for everything that is no
        regular file inside of its folder, or that this user may not read.
        """
        real = self.real_path()
        try:
            self._check_kind(os.lstat(real))  # before: to open a device may have an effect
            descriptor = os.open(real, FLAGS)
        except FileNotFoundError:
            if self.exists():
                self._refuse("is a link to nothing", "a file", "copy the file itself")
            raise
        except RunError:
            raise
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            self._refuse(f"cannot be opened: {reason}", "a file that can be read", "")
        try:
            self._check_kind(os.fstat(descriptor))
            return os.fdopen(descriptor, "rb")
        except BaseException:
            os.close(descriptor)
            raise

    def stat(self) -> os.stat_result | None:
        """Size and time of a regular file inside the folder; None for everything else."""
        try:
            status = os.lstat(self.real_path())
        except (OSError, ValueError):
            return None
        return status if stat.S_ISREG(status.st_mode) else None

    def check_writable(self) -> None:
        """Raise `RunError` where something has this name that is no regular file in the folder.

        To write through a link would replace a file elsewhere, and a FIFO waits for a reader.
        """
        if self.exists() and (self.path.is_symlink() or self.stat() is None):
            self._refuse("is a link or no file", "a regular file or nothing", "remove it")

    def read_object(self) -> Row:
        """The JSON object in the file.

        Raises FileNotFoundError where there is no file, `RunError` where it cannot be read, is too
        large or is no JSON object.
        """
        with self.open() as source:
            content = source.read(MAX_OBJECT_BYTES + 1)
        if len(content) > MAX_OBJECT_BYTES:
            self._refuse("is too large", f"at most {MAX_OBJECT_BYTES // 1_000_000} MB", "")
        try:
            return object_of(content)
        except ValueError as error:
            self._refuse(f"is damaged: {error}", "a JSON object", "")

    def _check_kind(self, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            kind = next((name for is_kind, name in KINDS if is_kind(status.st_mode)), "no file")
            self._refuse(f"is {kind}", "a regular file", "remove it")

    def _refuse(self, problem: str, expected: str, fix: str) -> NoReturn:
        raise RunError(f"{self.name} {problem}", expected, fix)


def is_guarded_folder(path: Path, parent: Path) -> bool:
    """Whether `path` is a folder that is inside `parent` once every link is followed."""
    try:
        real, root = os.path.realpath(path), os.path.realpath(parent)
        return os.path.commonpath([root, real]) == root and os.path.isdir(real)
    except (OSError, ValueError):
        return False


# -- JSON ------------------------------------------------------------------------------------------


def object_of(content: bytes) -> Row:
    """JSON as an object. Raises ValueError with a reason that needs no line number.

    NaN and Infinity are read as such, because older runs wrote them: see `number`.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("no UTF-8") from None
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    except json.JSONDecodeError:
        raise ValueError("no JSON") from None
    except ValueError:
        raise ValueError("a number with thousands of digits") from None
    if not isinstance(value, dict):
        raise ValueError("no JSON object")
    # To look at every value takes time; what has few brackets cannot be deep.
    if text.count("[") + text.count("{") > MAX_DEPTH and is_deep(value):
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    return value


def row_of(line: bytes) -> Row | None:
    """One line as an object; None where it is none."""
    try:
        return object_of(line)
    except ValueError:
        return None


def is_deep(value: object) -> bool:
    """Whether lists and objects are nested deeper than MAX_DEPTH. Uses no recursion."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def number(value: object) -> float | None:
    """A finite number, or None: JSON has no NaN, and a curve has a gap there.

    Beyond MAX_NUMBER there is nothing that a run measures, and squares of such numbers overflow.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return value if math.isfinite(value) and abs(value) <= MAX_NUMBER else None
    except OverflowError:  # an integer beyond the range of floats
        return None


# -- files of rows ---------------------------------------------------------------------------------


class LastBytes:
    """The last bytes that were read, to distinguish a rewritten file from one that has grown.

    Size and inode are not enough: a rewritten file may be longer than before, and the system may
    give it the same inode number.
    """

    def __init__(self, checksum: int | None = None) -> None:
        self.data = b""
        self._checksum = checksum  # of what another reader has read: all that is known of it

    def precede(self, source: BinaryIO, offset: int) -> bool:
        """Whether the bytes before `offset` are still those that were read there."""
        kept, checksum = self.data, self._checksum
        source.seek(max(0, offset - KEPT_BYTES))
        self.data, self._checksum = source.read(min(offset, KEPT_BYTES)), None
        return self.data.endswith(kept) and checksum in (None, crc32(self.data))

    def append(self, data: bytes) -> None:
        """Note that `data` was read."""
        self.data = (self.data + data[-KEPT_BYTES:])[-KEPT_BYTES:]


class GrowingLines:
    """The lines of a file that another process may be writing; each read goes on where the last
    one ended.

    `damage` counts the lines that could not be used, by reason; `refused` says why the file is not
    read, or not to its end.
    """

    def __init__(self, file: Path | GuardedFile, offset: int = 0, max_bytes: int = MAX_READ_BYTES):
        self.file, self.offset, self.max_bytes = GuardedFile.of(file), offset, max_bytes
        self.damage: Counter[str] = Counter()
        self.refused = ""
        self.unfinished = False  # the last read met a line without an end
        self._last_bytes = LastBytes()
        self._long_bytes = 0  # of a line that is too long, so far; its end has not come yet

    @property
    def place(self) -> str:
        """OFFSET-CHECKSUM: where the next read begins, and CRC-32 of the bytes just before it."""
        return f"{self.offset}-{crc32(self._last_bytes.data)}"

    def go_on_from(self, offset: int, checksum: int | None) -> None:
        """Begin at the `place` of another reader; the checksum is None where it is not known. Where
        the file was rewritten since, the first read begins again and says so."""
        self.offset, self._last_bytes = offset, LastBytes(checksum)

    def _begin_again(self) -> None:
        self.offset, self._last_bytes, self._long_bytes = 0, LastBytes(), 0
        self.unfinished = False
        self.damage.clear()

    def read_lines(self) -> tuple[list[tuple[int, bytes]], bool]:
        """(offset and content of each new line, whether all earlier lines are void).

        Reads at most PART_BYTES; there may be more as long as `offset` moves. A resumed run
        truncates its files, and may have written beyond the old end by now.
        """
        self.refused = ""
        try:
            with self.file.open() as source:
                size = os.fstat(source.fileno()).st_size
                rewritten = size < self.offset or not self._last_bytes.precede(source, self.offset)
                if rewritten:
                    self._begin_again()
                source.seek(self.offset)
                left = 0 if self._long_bytes > GIVE_UP_BYTES else self.max_bytes - self.offset
                data = source.read(min(PART_BYTES, max(0, left)))
        except OSError as error:
            rewritten = self.offset > 0
            self._begin_again()
            if not isinstance(error, FileNotFoundError):
                self.refused = str(error)
            return [], rewritten
        lines = self._lines_of(data)
        if self._long_bytes > GIVE_UP_BYTES:
            self.refused = f"{self.file.name} goes on without a newline: the rest is left out"
        elif self.max_bytes < size:
            limit = f"{self.max_bytes // 1_000_000} MB"
            self.refused = f"{self.file.name} is larger than {limit}: the rest is left out"
        return lines, rewritten

    def _lines_of(self, data: bytes) -> list[tuple[int, bytes]]:
        start, end = self.offset, data.rfind(b"\n") + 1
        self.unfinished = end < len(data)
        begin = 0
        if self._long_bytes:
            begin = data.find(b"\n") + 1
            if not begin:
                self._long_bytes += len(data)
                self._skip(data)
                return []
            self._long_bytes = 0
        lines: list[tuple[int, bytes]] = []
        while begin < end:
            stop = data.index(b"\n", begin)
            if stop - begin > MAX_LINE_BYTES:
                self.damage[LONG] += 1
            else:
                lines.append((start + begin, data[begin:stop]))
            begin = stop + 1
        self._skip(data[:end])
        if len(data) - end > MAX_LINE_BYTES:
            self._long_bytes = len(data) - end
            self.damage[LONG] += 1
            self._skip(data[end:])
        return lines

    def _skip(self, data: bytes) -> None:
        self.offset += len(data)
        self._last_bytes.append(data)


LONG = f"longer than {MAX_LINE_BYTES // 1_000_000} MB"


class JsonLines(GrowingLines):
    """The rows of such a file: every line that is a JSON object."""

    def read_placed(self) -> tuple[list[tuple[int, int, Row]], bool]:
        """((offset, size, row) of each new row, whether all earlier rows are void)."""
        lines, rewritten = self.read_lines()
        rows = []
        for offset, line in lines:
            try:
                rows.append((offset, len(line), object_of(line)))
            except ValueError as error:
                self.damage[str(error)] += 1
        return rows, rewritten

    def read_new(self) -> tuple[list[Row], bool]:
        """(new rows, whether all earlier rows are void)."""
        rows, rewritten = self.read_placed()
        return [row for _, _, row in rows], rewritten

    def read_all(self, most: int = MAX_ROWS) -> list[Row]:
        """Every row that has not been read yet, at most `most` of them."""
        rows: list[Row] = []
        while True:
            before = self.offset
            rows += self.read_new()[0]
            if len(rows) > most:
                self.refused = f"{self.file.name} has more than {most} rows: the rest is left out"
                return rows[:most]
            if self.offset == before:
                return rows

    @property
    def faults(self) -> list[str]:
        """What could not be read, as sentences; empty for a file that is whole or missing."""
        faults = [self.refused] if self.refused else []
        if self.damage:
            reasons = ", ".join(f"{count} {reason}" for reason, count in self.damage.items())
            faults.append(f"{self.file.name}: damaged lines: {reasons}")
        return faults


def read_all_rows(
    file: Path | GuardedFile, most: int = MAX_ROWS, max_bytes: int = MAX_READ_BYTES
) -> tuple[list[Row], list[str]]:
    """(every finished row of a file within these limits, what could not be read)."""
    lines = JsonLines(file, max_bytes=max_bytes)
    return lines.read_all(most), lines.faults
