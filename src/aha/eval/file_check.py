"""The check of all rows of a file of problems; what it has seen is kept in the cache folder.

A file is checked once for each tokenizer, form of the prompt and lengths: `key_of` is a hash of all
that its faults depend on.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import aha
from aha.core.errors import AhaError, ConfigError
from aha.eval.prompt_limits import PromptFault, PromptLimits
from aha.machine.c_build import cache_folder
from aha.store.checksums import digests
from aha.tasks.protocol import Task
from aha.tasks.splits import SPLITS

ALL_SPLITS = (*SPLITS, "test_targets")
CACHE_VERSION = 1  # raise it where a change finds other faults


@dataclass(frozen=True)
class FileCheck:
    """The rows of a file of problems: how many each split has, and which cannot be read."""

    rows: Mapping[str, int]
    faults: list[PromptFault]

    @property
    def total(self) -> int:
        return sum(self.rows.values())


def check_rows(task: Task, limits: PromptLimits) -> FileCheck:
    """Look at the prompt of every problem that a task has in its file."""
    rows: dict[str, int] = {}
    faults = []
    for split in ALL_SPLITS:
        with suppress(ConfigError):  # a task without that split
            for problem in task.problems(split, 0):
                rows[split] = rows.get(split, 0) + 1
                fault = limits.fault(problem, task)
                if fault:
                    faults.append(fault)
    return FileCheck(rows, faults)


def remembered_rows(task: Task, limits: PromptLimits, settings: Mapping[str, Any]) -> FileCheck:
    """`check_rows`, once for each file, tokenizer, form of the prompt and lengths."""
    name = f"{key_of(task, limits, settings)}.json"
    if name not in _checked:
        path = cache_folder() / "prompts" / name
        check = read_check(path)
        if check is None:
            check = check_rows(task, limits)
            write_check(path, check)
        _checked[name] = check
    return _checked[name]


_checked: dict[str, FileCheck] = {}  # of this process, where the cache folder cannot be written


def files_of(settings: Mapping[str, Any]) -> list[Path]:
    """The files of problems among a task's settings."""
    return [Path(settings[key]) for key in ("data", "test_data") if settings.get(key)]


def key_of(task: Task, limits: PromptLimits, settings: Mapping[str, Any]) -> str:
    """A hash of all that the faults of a file depend on. Some prompts are part of it: they change
    with the code that writes them."""
    tokenizer = limits.tokenizer
    prompts = []
    for split in ALL_SPLITS:
        with suppress(AhaError):
            prompts += [task.ask(problem) for problem in islice(task.problems(split, 0), 1)]
    parts = (
        *(CACHE_VERSION, aha.__version__, task.name, sorted(settings.items()), prompts),
        *(limits.positions, limits.max_new_tokens, limits.model, limits.option),
        *(tokenizer.template, tokenizer.settings, tokenizer.stop_ids),
    )
    digest = hashlib.blake2b(repr(parts).encode(errors="surrogatepass"), digest_size=16)
    digest.update(tokenizer.fast.to_str().encode())
    for content in digests(files_of(settings)).values():
        digest.update(content.encode())
    return digest.hexdigest()


def read_check(path: Path) -> FileCheck | None:
    """What was remembered; None where nothing was, or where it is damaged."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        rows = {str(split): int(count) for split, count in raw["rows"].items()}
        return FileCheck(rows, [PromptFault(**fault) for fault in raw["faults"]])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def write_check(path: Path, check: FileCheck) -> None:
    """Remember it, complete or not at all; without a word where the folder cannot be written."""
    content = json.dumps({"rows": check.rows, "faults": [asdict(f) for f in check.faults]})
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write(content)
            os.replace(partial, path)
        except OSError:  # a full disk
            os.unlink(partial)
