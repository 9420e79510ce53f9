"""What a task is (`Task`), and the split of a problem, computed from the problem alone."""

import hashlib
from collections.abc import Iterator
from typing import Protocol

from aha.core.errors import ConfigError
from aha.core.records import Graded, Problem


class Task(Protocol):
    """Gives problems, writes the prompt of each, and grades its completions."""

    name: str

    def problems(self, split: str, seed: int) -> Iterator[Problem]:
        """Different problems of a split ("train", "validation", "test"); may be endless.

        The order follows from `seed` alone, and no problem belongs to two splits.
        """

    def ask(self, problem: Problem) -> str:
        """The text of the prompt, up to the point where the model goes on."""

    def grade(self, problem: Problem, text: str) -> Graded:
        """The reward of a completion, from its text alone. Any text gets a reward, never an error:
        a wrong or unreadable answer is a low reward with a reason."""


# -- splits --------------------------------------------------------------------------------------

SPLITS = ("train", "validation", "test")


def hash_percent(key: str) -> int:
    """A hash of a key from 0 to 99, equally likely, the same on every machine."""
    digest = hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=4).digest()
    return int.from_bytes(digest, "big") % 100


def split_by_hash(key: str, percent: int) -> str:
    """The split of a key: `percent` of all keys are test, as many validation, the rest train."""
    bucket = hash_percent(key)
    return "test" if bucket < percent else "validation" if bucket < 2 * percent else "train"


def check_split(split: str) -> None:
    """Raise `ConfigError` for a name that is not in SPLITS."""
    if split not in SPLITS:
        raise ConfigError(f"split {split!r}", f"one of {', '.join(SPLITS)}")
