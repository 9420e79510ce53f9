"""Checksums of a folder's files, in the file that `sha256sum -c SHA256SUMS` reads."""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

NAME = "SHA256SUMS"


def digest(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def digests(paths: Iterable[Path]) -> dict[Path, str]:
    """The digests of files, computed at the same time: hashing needs no interpreter lock."""
    paths = list(paths)
    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(paths, pool.map(digest, paths), strict=True))


def files_below(folder: Path) -> dict[str, Path]:
    """The files below a folder by their relative names, without the checksums themselves."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: path for name, path in named.items() if name != NAME}


def write_checksums(folder: Path) -> None:
    """Write the digests of all files below the folder."""
    files = files_below(folder)
    known = digests(files.values())
    lines = [f"{known[path]}  {name}\n" for name, path in files.items()]
    (folder / NAME).write_text("".join(lines), encoding="utf-8")


def read_checksums(folder: Path) -> dict[str, str]:
    """The digests as they were written, by relative name; lines that are none are left out."""
    text = (folder / NAME).read_text(encoding="utf-8", errors="replace")
    rows = (line.partition("  ") for line in text.split("\n"))
    return {name: known for known, _, name in rows if name}


def damage_of(folder: Path, skip: tuple[str, ...] = (), added: bool = False) -> str:
    """The first fault of a folder with checksums, in words; empty for a whole one.

    Files of the names in `skip` are not read. With `added`, other files may lie beside its own.
    """
    files = files_below(folder)
    try:
        known = read_checksums(folder)
        if missing := sorted(known.keys() - files.keys()):
            return f"{missing[0]} is missing"
        unknown = sorted(files.keys() - known.keys())
        if unknown and not added:
            return f"{unknown[0]} is not in {NAME}"
        files = {name: path for name, path in files.items() if name in known}
        now = digests(path for name, path in files.items() if name not in skip)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    for name, path in files.items():
        if path in now and now[path] != known[name]:
            return f"{name} is not what was written: its checksum differs"
    return ""
